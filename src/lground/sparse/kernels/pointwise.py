"""Product of many rows with one small matrix, in half precision: 1x1 shortcuts and the classifier in inference.

Bound by memory: x is read once and y written once. cuBLAS does as well, but takes 32 MB of workspace for every stream
it is used on (Hopper), a tenth of what a scene of 130 thousand voxels needs in all.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lground.sparse.kernels.launch import Kernel, cdiv, power_of_2
from lground.sparse.narrow import HALF

ROWS = 64  # per program
WIDEST = 256  # columns per program
PROGRAMS = 256  # about two for each multiprocessor; fewer leave some idle


def pointwise(x: Tensor, kernel: Tensor, bias: Tensor, out: Tensor | None = None) -> Tensor:
    """(N, Cout): `x @ kernel + bias`, summed in float32 whatever the type.

    Args:
        x: (N, Cin) floating, rows contiguous.
        kernel: (Cin, Cout) of the same type.
        bias: (Cout,), of the same type.
        out: (N, Cout) of the same type, rows contiguous, apart from x; made when None.
    """
    (rows, depth), columns = x.shape, kernel.shape[1]
    if x.dtype not in HALF or depth % 16 or x.stride(1) != 1:
        return torch.addmm(bias, x, kernel, out=out)
    out = x.new_empty(rows, columns) if out is None else out
    if not rows:
        return out
    down, wide = cdiv(rows, ROWS), min(max(16, power_of_2(columns)), WIDEST)
    while wide > 32 and down * cdiv(columns, wide) < PROGRAMS:
        wide //= 2
    step = next(step for step in (64, 32, 16) if depth % step == 0)
    multiply[down, cdiv(columns, wide)](
        x, kernel, bias, out, rows, columns, x.stride(0), *kernel.stride(), out.stride(0),
        depth, step, ROWS, wide, num_warps=8 if wide > 128 else 4, num_stages=3,
    )  # fmt: skip
    return out


@Kernel
@triton.jit
def multiply(
    x, kernel, bias, y, rows, columns, x_stride, kernel_in, kernel_out, y_stride,
    DEPTH: tl.constexpr, STEP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    live, there = (row < rows)[:, None], (column < columns)[None, :]
    channel = tl.arange(0, STEP)
    acc = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, DEPTH, STEP):
        at = start + channel
        a = tl.load(x + row[:, None] * x_stride + at[None, :], mask=live, other=0.0)
        b = tl.load(kernel + at[:, None] * kernel_in + column[None, :] * kernel_out, mask=there, other=0.0)
        acc = tl.dot(a, b, acc)
    acc += tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    tl.store(y + row[:, None] * y_stride + column[None, :], acc.to(y.type.element_ty), mask=live & there)
