"""The first convolution: few input channels (colours), a wide window (3^3 or 5^3).

A product per offset would be too narrow for the matrix units, so offsets and channels are laid side by side:
a step takes 64 of them, that is 16 offsets of 4 (padded) channels. The neighbours are not tabulated (5^3 would
need 125 numbers per voxel): offset d of a voxel in octant o of its parent lies in octant (o + d) & 1 of the
parent's neighbour at (o + d) >> 1, both of which the pyramid holds, also for d = -2 and 2.

Twin: `lground.sparse.functional.sparse_convolution` on the kernel map of the window.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lground.sparse.kernels.epilogue import finish
from lground.sparse.kernels.launch import Kernel, cdiv
from lground.sparse.kernels.pyramid import Pyramid

MAX_CHANNELS = 8
STEP = 64  # offsets x padded channels of one product


@triton.jit
def _side_by_side(x, table, child, t_stride, c_stride, family, valid, step,
                  SIZE: tl.constexpr, PAD: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr):  # fmt: skip
    """(ROWS, STEP): the features of STEP / PAD window offsets of each row, zeros where no voxel is."""
    parent, octant = family >> 3, family & 7
    o = step * (STEP // PAD) + tl.arange(0, STEP // PAD)
    ux = (octant & 1)[:, None] + (o % SIZE - SIZE // 2)[None, :]
    uy = (octant >> 1 & 1)[:, None] + (o // SIZE % SIZE - SIZE // 2)[None, :]
    uz = (octant >> 2)[:, None] + (o // (SIZE * SIZE) - SIZE // 2)[None, :]
    offset = (ux >> 1) + 1 + 3 * ((uy >> 1) + 1) + 9 * ((uz >> 1) + 1)
    inside = valid[:, None] & (o < SIZE * SIZE * SIZE)[None, :]
    cell = tl.load(table + offset * t_stride + parent[:, None], mask=inside, other=-1)
    corner = (ux & 1) + 2 * (uy & 1) + 4 * (uz & 1)
    row = tl.load(child + corner * c_stride + cell, mask=cell >= 0, other=-1)
    at = x + row[:, :, None] * PAD + tl.arange(0, PAD)[None, None, :]
    return tl.reshape(tl.load(at, mask=(row >= 0)[:, :, None], other=0.0), (ROWS, STEP))


@Kernel
@triton.jit
def gather_padded(x, order, out, n, x_stride, channels, PAD: tl.constexpr, ROWS: tl.constexpr):
    """Rows in Morton order, channels padded with zeros: one aligned load per voxel from then on."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, PAD)
    valid = i < tl.load(n)
    row = tl.load(order + i, mask=valid, other=0)
    at = x + row[:, None] * x_stride + c[None, :]
    value = tl.load(at, mask=valid[:, None] & (c < channels)[None, :], other=0.0)
    tl.store(out + i[:, None] * PAD + c[None, :], value.to(out.type.element_ty), mask=valid[:, None])


@Kernel
@triton.jit
def convolve_stem(x, w, y, rows, parents, table, child, n, scale, shift, y_stride, t_stride, c_stride,
                  RELU: tl.constexpr, ROUND: tl.constexpr, SIZE: tl.constexpr, PAD: tl.constexpr, CO: tl.constexpr,
                  ROWS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    number = tl.load(n)
    if tl.program_id(0) * ROWS >= number:
        return
    valid = i < number
    parent = tl.load(parents + i, mask=valid, other=0)
    columns = tl.arange(0, CO)
    weights = w + tl.arange(0, STEP)[:, None] * CO + columns[None, :]
    acc = tl.zeros((ROWS, CO), tl.float32)
    for step in range((SIZE * SIZE * SIZE * PAD + STEP - 1) // STEP):
        a = _side_by_side(x, table, child, t_stride, c_stride, parent, valid, step, SIZE, PAD, ROWS, STEP)
        acc = tl.dot(a, tl.load(weights + step * STEP * CO), acc, input_precision=PRECISION)
    row = i.to(tl.int64)
    if rows is not None:
        row = tl.load(rows + i, mask=valid, other=0)
    finish(acc, columns, row, row, valid, y, y_stride, scale, shift, None, 0, RELU, ROUND)


@Kernel
@triton.jit
def stem_weight_gradient(x, g, parts, rows, parents, table, child, n, g_stride, t_stride, c_stride,
                         SIZE: tl.constexpr, PAD: tl.constexpr, CO: tl.constexpr, ROWS: tl.constexpr,
                         STEP: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Grid: (chunks of rows, steps). Each program sums its chunk; `parts` is (chunks, steps * STEP, CO)."""
    number = tl.load(n)
    blocks = tl.cdiv(tl.cdiv(number, ROWS), tl.num_programs(0))
    step = tl.program_id(1)
    columns = tl.arange(0, CO)
    acc = tl.zeros((STEP, CO), tl.float32)
    for block in range(tl.program_id(0) * blocks, (tl.program_id(0) + 1) * blocks):
        i = block * ROWS + tl.arange(0, ROWS)
        valid = i < number
        parent = tl.load(parents + i, mask=valid, other=0)
        a = _side_by_side(x, table, child, t_stride, c_stride, parent, valid, step, SIZE, PAD, ROWS, STEP)
        row = tl.load(rows + i, mask=valid, other=0)
        b = tl.load(g + row[:, None] * g_stride + columns[None, :], mask=valid[:, None], other=0.0)
        acc = tl.dot(tl.trans(a), b, acc, input_precision=PRECISION)
    at = (tl.program_id(0) * tl.num_programs(1) + step) * STEP + tl.arange(0, STEP)
    tl.store(parts + at[:, None] * CO + columns[None, :], acc)


def padded_channels(channels: int) -> int:
    """4 or 8: what a voxel's features are padded to."""
    return 4 if channels <= 4 else 8


def takes(kernel: Tensor, window: int) -> bool:
    """Whether the stem kernels handle (K, Cin, Cout) at this window size."""
    return window in (3, 5) and kernel.shape[1] <= MAX_CHANNELS and kernel.shape[2] in (16, 32, 64, 128)


def sort_features(x: Tensor, pyramid: Pyramid, dtype: torch.dtype) -> Tensor:
    """(capacity, 4 or 8): features (N, Cin) in Morton order, padded, in the type to multiply in."""
    pad = padded_channels(x.shape[1])
    out = torch.empty(pyramid.caps[0], pad, dtype=dtype, device=x.device)
    grid = (cdiv(pyramid.caps[0], 256),)
    gather_padded[grid](x, pyramid.order, out, pyramid.n, x.stride(0), x.shape[1], pad, 256)
    return out


def lay_out_weights(kernel: Tensor) -> Tensor:
    """(steps * 64, Cout): the matrices (K, Cin, Cout) padded as the features are, below each other."""
    volume, channels, _ = kernel.shape
    pad = padded_channels(channels)
    kernel = torch.nn.functional.pad(kernel, (0, 0, 0, pad - channels, 0, -volume % (STEP // pad)))
    return kernel.flatten(0, 1).contiguous()


def stem_convolution(
    x: Tensor,
    weights: Tensor,
    pyramid: Pyramid,
    window: int,
    out: Tensor,
    rows: Tensor | None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    relu: bool = False,
    precision: str = "ieee",
    round_result: bool = False,
) -> Tensor:
    """`out[rows] = relu(conv(x) * scale + shift)` at level 0.

    Args:
        x: from `sort_features`. weights: from `lay_out_weights`, of the same dtype.
        window: 3 or 5.
        out: (N, Cout). rows: (N,) int64 where each sorted row goes; None leaves them sorted.
        round_result: round to the nearest TF32 number, as `convolution` does.
    """
    block, table, child = 64, pyramid.stem_table, pyramid.children(1)
    convolve_stem[(cdiv(pyramid.caps[0], block),)](
        x, weights, out, rows, pyramid.parent, table, child, pyramid.n, scale, shift,
        out.stride(0), table.stride(0), child.stride(0), relu, round_result, window, x.shape[1], weights.shape[1],
        block, STEP, precision, num_warps=4, num_stages=2,
    )  # fmt: skip
    return out


def stem_gradient(
    x: Tensor, gradient: Tensor, pyramid: Pyramid, window: int, channels: int, rows: Tensor, precision: str
) -> Tensor:
    """(K, channels, Cout) float32: gradient of the matrices, from `sort_features` and (N, Cout) at `rows`."""
    pad, width = x.shape[1], gradient.shape[1]
    table, child = pyramid.stem_table, pyramid.children(1)
    steps = cdiv(window**3 * pad, STEP)
    chunks = min(128, cdiv(pyramid.caps[0], 1024))
    parts = torch.empty(chunks, steps * STEP, width, dtype=torch.float32, device=x.device)
    stem_weight_gradient[(chunks, steps)](
        x, gradient, parts, rows, pyramid.parent, table, child, pyramid.n,
        gradient.stride(0), table.stride(0), child.stride(0), window, pad, width, 64, STEP, precision,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    return parts.sum(0).view(-1, pad, width)[: window**3, :channels]
