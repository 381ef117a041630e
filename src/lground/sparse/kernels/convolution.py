"""Sparse convolution as a masked implicit GEMM that stays with its output.

A program owns a tile of output rows and a range of output channels. It walks through the kernel offsets that
any row of its tile has (the tile's list), gathers the input rows found there (none: zeros) and multiplies them
by that offset's matrix, so nothing but the result is written and no sum is shared between programs. Rows
sorted by neighbour mask make the lists short. Where a level has too few tiles to fill the chip, the walk is
split between programs (split-K): each writes a partial sum, and the one that comes last adds them in a fixed
order. Batch norm, shortcut and ReLU are applied to the accumulator before its one write.

The data gradient is the same walk with the transposed matrices: along the same tiles with mirrored offsets for
a convolution between a set of voxels and itself, along the tiles of the opposite direction otherwise.

Twin: `lground.sparse.functional.sparse_convolution`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lground.sparse.kernels.epilogue import finish
from lground.sparse.kernels.launch import Kernel
from lground.sparse.kernels.shapes import Config, counters
from lground.sparse.kernels.tiles import Tiles


@triton.jit
def _add_product(a, b, acc, lost, COMPENSATED: tl.constexpr, PRECISION: tl.constexpr):
    """`acc + a @ b`; compensated, with what rounding took from the sum so far (Kahan): a sum of 10,000 float32 terms
    is then as good as one of `depth` terms."""
    if COMPENSATED:
        term = tl.dot(a, b, -lost, input_precision=PRECISION)
        total = acc + term
        return total, (total - acc) - term
    else:
        return tl.dot(a, b, acc, input_precision=PRECISION), lost


@triton.jit
def _sum_parts(parts, part_stride, rows, columns, valid, stride, SPLIT, shape: tl.constexpr):
    acc = tl.zeros(shape, tl.float32)
    at = parts + rows[:, None] * stride + columns[None, :]
    for _ in range(SPLIT):
        acc += tl.load(at, mask=valid[:, None], other=0.0, cache_modifier=".cg")
        at += part_stride
    return acc


@Kernel
@triton.jit(
    do_not_specialize=["chunks", "list_stride", "count_stride"],
    do_not_specialize_on_alignment=["counts", "n", "arrivals"],  # read one by one: one kernel for all levels
)
def convolve(
    x, w, y, neighbours, offsets, counts, rows, order, n, scale, shift, add, parts, arrivals,
    x_stride, y_stride, add_stride, w_offset, w_in, w_out, tile_stride, slot_stride, list_stride, count_stride,
    chunks, part_stride, out_channels,
    TM: tl.constexpr, BN: tl.constexpr, BN2: tl.constexpr, BK: tl.constexpr, RELU: tl.constexpr,
    ROUND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid: (tiles, output channels / (BN + BN2), splits). BN2: what a power of two lacks (96 = 64 + 32)."""
    tile = tl.program_id(0)
    number = tl.load(n)
    if tile * TM >= number:
        return
    lane = tl.arange(0, TM)
    valid = tile * TM + lane < number
    columns = tl.program_id(1) * (BN + BN2) + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    acc = tl.zeros((TM, BN), tl.float32)
    if BN2 > 0:
        columns2 = tl.program_id(1) * (BN + BN2) + BN + tl.arange(0, BN2)
        acc2 = tl.zeros((TM, BN2), tl.float32)
        lost2 = tl.zeros((TM, BN2), tl.float32)
    lost = tl.zeros((TM, BN), tl.float32)
    COMPENSATED: tl.constexpr = PRECISION == "ieee" and x.type.element_ty == tl.float32

    first = 0
    last = tl.load(counts + tile * count_stride) * chunks
    if parts is not None:
        share = tl.cdiv(last, tl.num_programs(2))
        first = tl.program_id(2) * share
        last = tl.minimum(last, first + share)
    neighbours += tile.to(tl.int64) * tile_stride + lane
    offsets += tile * list_stride
    for step in range(first, last):
        slot = step // chunks
        channel = (step % chunks) * BK + depth
        row = tl.load(neighbours + slot * slot_stride)
        at = x + row[:, None].to(tl.int64) * x_stride + channel[None, :]
        a = tl.load(at, mask=row[:, None] >= 0, other=0.0)
        matrix = w + tl.load(offsets + slot).to(tl.int64) * w_offset + channel[:, None] * w_in
        b = tl.load(matrix + columns[None, :] * w_out)
        acc, lost = _add_product(a, b, acc, lost, COMPENSATED, PRECISION)
        if BN2 > 0:
            b2 = tl.load(matrix + columns2[None, :] * w_out)
            acc2, lost2 = _add_product(a, b2, acc2, lost2, COMPENSATED, PRECISION)

    lanes = (tile * TM + lane).to(tl.int64)
    if parts is not None:
        mine = parts + tl.program_id(2).to(tl.int64) * part_stride
        tl.store(mine + lanes[:, None] * out_channels + columns[None, :], acc, mask=valid[:, None])
        if BN2 > 0:
            tl.store(mine + lanes[:, None] * out_channels + columns2[None, :], acc2, mask=valid[:, None])
        tl.debug_barrier()  # all threads have stored before one of them says so
        arrival = arrivals + tile * tl.num_programs(1) + tl.program_id(1)
        if tl.atomic_add(arrival, 1) != tl.num_programs(2) - 1:
            return
        tl.store(arrival, 0)
        splits = tl.num_programs(2)
        acc = _sum_parts(parts, part_stride, lanes, columns, valid, out_channels, splits, (TM, BN))
        if BN2 > 0:
            acc2 = _sum_parts(parts, part_stride, lanes, columns2, valid, out_channels, splits, (TM, BN2))
    if rows is not None:
        lanes = tl.load(rows + lanes, mask=valid, other=0).to(tl.int64)
    out_rows = lanes
    if order is not None:
        out_rows = tl.load(order + lanes, mask=valid, other=0)
    finish(acc, columns, lanes, out_rows, valid, y, y_stride, scale, shift, add, add_stride, RELU, ROUND)
    if BN2 > 0:
        finish(
            acc2, columns2, lanes, out_rows, valid, y, y_stride, scale, shift, add, add_stride, RELU, ROUND
        )


def parts_size(config: Config, capacity: int, out_channels: int) -> int:
    """Numbers, float32, that the partial sums of a convolution take; 0 where nothing is split."""
    return config.splits * capacity * out_channels if config.splits > 1 else 0


def takes(in_channels: int, out_channels: int) -> bool:
    """Whether the kernel has a tile for these widths."""
    return in_channels % 16 == 0 and (out_channels % 32 == 0 or out_channels == 16)


def convolution(
    x: Tensor,
    kernel: Tensor,
    tiles: Tiles,
    out: Tensor,
    config: Config,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    add: Tensor | None = None,
    relu: bool = False,
    mirrored: bool = False,
    precision: str = "ieee",
    arrivals: Tensor | None = None,
    parts: Tensor | None = None,
    order: Tensor | None = None,
    round_result: bool = False,
) -> Tensor:
    """`out[order] = relu(conv(x) * scale + shift + add)`.

    Args:
        x: (N_in, Cin) float16, bfloat16 or float32, rows contiguous. For TF32 it and the kernel are `tf32.operand`s.
        kernel: (K, Cin, Cout) of the same dtype, any strides.
        tiles: where each output row finds its inputs.
        out: (N_out, Cout), rows contiguous; written where `tiles` has rows.
        config: shape of a program; see `configuration`.
        scale, shift: (Cout,) float32. add: (N_out, Cout).
        mirrored: take matrix K - 1 - k for offset k.
        precision: "ieee", "tf32" or "tf32x3" of float32 products.
        arrivals: (at least tiles x programs along the columns,) int32 zeros, left as zeros; None for the stream's own.
        parts: (splits x capacity x Cout,) float32 or more, to write partial sums in; made when None or too small.
        order: (N_out,) int64 where each row of the result goes in `out`; None leaves it in its place.
        round_result: round to the nearest TF32 number (see `tf32`): what is written will be multiplied next.
    """
    _, in_channels, out_channels = kernel.shape
    splits, capacity = config.splits, tiles.capacity
    columns, more = (64, 32) if config.columns == 96 else (config.columns, 0)
    programs = capacity // tiles.tile_rows, out_channels // config.columns, splits
    if splits > 1:
        size = parts_size(config, capacity, out_channels)
        if parts is None or parts.numel() < size:
            parts = torch.empty(size, dtype=torch.float32, device=x.device)
        if arrivals is None:
            arrivals = counters(x.device)
    w_offset, w_in, w_out = kernel.stride()
    first = kernel[-1] if mirrored else kernel
    convolve[programs](
        x, first, out, tiles.neighbours, tiles.offsets, tiles.counts, tiles.rows, order, tiles.n, scale, shift,
        add,
        parts if splits > 1 else None,
        arrivals if splits > 1 else None,
        x.stride(0), out.stride(0), 0 if add is None else add.stride(0),
        -w_offset if mirrored else w_offset, w_in, w_out,
        tiles.tile_stride, tiles.slot_stride, tiles.list_stride, tiles.count_stride,
        in_channels // config.depth, capacity * out_channels, out_channels,
        tiles.tile_rows, columns, more, config.depth, relu, round_result, precision,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
    return out
