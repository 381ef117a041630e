"""Operands for the TF32 unit, which cuts significands off after 10 bits where it should round.

A cut makes every product too small, by 2^-11 of it on average and per operand, and over a network's layers that adds
up: what is rounded to the nearest before leaves the unit nothing to cut.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lground.sparse.kernels.launch import Kernel, cdiv


@triton.jit
def round_to_tf32(x):
    """The nearest float32 that has the short significand of TF32; what is not a number stays so."""
    bits = (x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
    return tl.where(x == x, bits.to(tl.float32, bitcast=True), x)


@Kernel
@triton.jit
def round_all(x, y, number, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, round_to_tf32(tl.load(x + at, mask=at < number)), mask=at < number)


def operand(x: Tensor, precision: str) -> Tensor:
    """`x` as it should be multiplied: contiguous and rounded if the unit is to have it, else as it is."""
    if precision != "tf32" or x.dtype != torch.float32 or not x.numel():
        return x
    x = x.contiguous()
    rounded = torch.empty_like(x)
    round_all[(cdiv(x.numel(), 2048),)](x, rounded, x.numel(), 2048)
    return rounded


def lay_out(kernel: Tensor, precision: str) -> Tensor:
    """The matrices (K, Cin, Cout) as they are read best: the TF32 unit wants input channels side by side."""
    if precision != "tf32" or kernel.stride(1) == 1:
        return kernel
    return kernel.transpose(1, 2).contiguous().transpose(1, 2)


def plain_round_to_tf32(x: Tensor) -> Tensor:
    """The plain twin of `round_to_tf32`, for finite float32 numbers."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)
