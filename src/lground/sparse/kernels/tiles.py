"""Which rows a convolution computes together, and which offsets of its kernel they need.

A row of a 3^3 convolution meets about ten of its 27 possible neighbours, and a tile of rows has to walk through every
offset that any of its rows has. So rows with the same neighbours go into the same tile: rows are sorted by the mask of
their offsets (see `masks`). A row of a transposed convolution of size 2 has one input, its parent, at the offset that
is its octant: those rows are sorted by octant.

One sort serves all levels: a key starts with the number of its segment, and segments keep their place because their
sizes are fixed.
"""

from dataclasses import dataclass
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from lground.sparse.kernels.launch import Kernel
from lground.sparse.kernels.masks import NO_ROW, offset_of_bit

TILE_ROWS = 64  # shapes of programs (see `configuration`) are made for it


@dataclass(frozen=True)
class Tiles:
    """The rows of one convolution in tiles of `tile_rows`, and for every tile a list of offsets and inputs.

    Lane t of tile i is lane i * tile_rows + t. In its s-th slot, s < counts[i * count_stride], a tile meets offset
    `offsets[i * list_stride + s]`, and its lane t the input row
    `neighbours[i * tile_stride + s * slot_stride + t]`, -1 for none.

    Attributes:
        rows: (capacity,) int32 output row of each lane, None if lanes are rows; lanes past n hold any value.
        neighbours: int32, read with `tile_stride` and `slot_stride`; -1 in lanes past n.
        offsets: int32 indices of kernel offsets, read with `list_stride`.
        counts: int32 numbers of slots, read with `count_stride`.
        n: (1,) int32 number of output rows, a view of the device's row counts.
        volume: number of offsets of the kernel.
        capacity: number of lanes, a multiple of `tile_rows`.
    """

    rows: Tensor | None
    neighbours: Tensor
    tile_stride: int
    slot_stride: int
    offsets: Tensor
    list_stride: int
    counts: Tensor
    count_stride: int
    n: Tensor
    tile_rows: int
    volume: int
    capacity: int


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def _store_list(present, j, tile, offsets, counts):
    """List the offsets j of a tile, those with present == 1, and return their slots."""
    slot = tl.cumsum(present, 0) - 1
    tl.store(offsets + tile * 32 + slot, j, mask=present == 1)
    tl.store(counts + tile, tl.sum(present, 0))
    return slot


@triton.jit
def _base(lane, caps, LEVELS: tl.constexpr):
    """First column of the level that a lane of the concatenated levels belongs to."""
    base = 0
    end = 0
    for level in tl.static_range(LEVELS - 1):
        end += caps[level]
        base = tl.where(lane >= end, end, base)
    return base


@Kernel
@triton.jit
def same_kernel(keys, places, table, caller, rows, neighbours, offsets, counts, total, caps,
                TM: tl.constexpr, CALLER: tl.constexpr):  # fmt: skip
    """Tiles of the 3^3 convolutions of all levels; with CALLER, rows of level 0 are the caller's."""
    tile = tl.program_id(0)
    t = tl.arange(0, TM)
    lane = tile * TM + t
    rank = tl.load(keys + lane) & (NO_ROW * 2 - 1)
    column = tl.load(places + lane).to(tl.int32)
    is_row = rank < NO_ROW
    mask = tl.reduce(tl.where(is_row, rank ^ (rank >> 1), 0), 0, _either)
    base = _base(tile * TM, caps, 5)
    finest = base + tl.zeros((TM,), tl.int32) == 0
    row = column - base
    if CALLER:
        row = tl.where(finest, tl.load(caller + row, mask=finest, other=0).to(tl.int32), row)
    tl.store(rows + lane, row)
    j = tl.arange(0, 32)
    present = tl.sum((mask >> tl.arange(0, 32) & 1) << offset_of_bit(), 0) >> j & 1  # by offset, not by bit
    slot = _store_list(present, j, tile, offsets, counts)[:, None]
    met = present[:, None] == 1
    row = tl.load(table + j[:, None] * total + column[None, :], mask=met & is_row[None, :], other=-1)
    if CALLER:
        renumber = finest[None, :] & (row >= 0)
        row = tl.where(renumber, tl.load(caller + row, mask=renumber, other=0).to(tl.int32), row)
    tl.store(neighbours + (tile * 27 + slot) * TM + t[None, :], row, mask=met & (t[None, :] >= 0))


@Kernel
@triton.jit
def up_kernel(keys, places, parent, caller, rows, neighbours, offsets, counts, total, caps,
              TM: tl.constexpr, CALLER: tl.constexpr):  # fmt: skip
    """Tiles of the transposed 2^3 convolutions onto levels 0..3; with CALLER, rows of level 0 are the caller's."""
    tile = tl.program_id(0)
    t = tl.arange(0, TM)
    lane = tile * TM + t
    octant = tl.load(keys + total + lane) & (NO_ROW * 2 - 1)
    column = tl.load(places + total + lane).to(tl.int32) - total
    is_row = octant < NO_ROW
    octant = octant & 7
    base = _base(tile * TM, caps, 4)
    row = column - base
    if CALLER:
        finest = base + tl.zeros((TM,), tl.int32) == 0
        row = tl.where(finest, tl.load(caller + row, mask=finest, other=0).to(tl.int32), row)
    tl.store(rows + lane, row)
    above = tl.load(parent + column, mask=is_row, other=-8) >> 3
    j = tl.arange(0, 8)
    own = (octant[None, :] == j[:, None]) & is_row[None, :]
    present = tl.max(own.to(tl.int32), 1)
    slot = _store_list(present, j, tile, offsets, counts)[:, None]
    met = (present[:, None] == 1) & (t[None, :] >= 0)
    tl.store(neighbours + (tile * 8 + slot) * TM + t[None, :], tl.where(own, above[None, :], -1), mask=met)


def build_tiles(row_keys, table, parent, caller, n, caps, tile_rows) -> tuple[list[Tiles], list[Tiles]]:
    """Sort the rows of all levels and cut them into tiles.

    Args:
        row_keys: (sum(caps) + sum(caps[:4]),) int32, see `row_key`.
        table: (27, sum(caps)) int32 neighbours, parent: (sum(caps),) int32 parent row * 8 + octant.
        caller: (caps[0],) int64 row of the caller for each row of level 0, None to keep the sorted numbering.
        n: int32 numbers of rows of the levels; caps: the five capacities, multiples of `tile_rows`.

    Returns:
        The tiles of the 3^3 convolutions of levels 0..4 and of the transposed 2^3 convolutions onto levels 0..3.
    """
    keys, places = torch.sort(row_keys, stable=True)
    result = []
    for kernel, source, levels, volume in ((same_kernel, table, 5, 27), (up_kernel, parent, 4, 8)):
        lanes = sum(caps[:levels])
        tiles = lanes // tile_rows
        rows = keys.new_empty(lanes)
        neighbours = keys.new_empty(tiles, volume, tile_rows)
        offsets = keys.new_empty(tiles, 32)
        counts = keys.new_empty(tiles)
        kernel[(tiles,)](
            keys, places, source, caller, rows, neighbours, offsets, counts, sum(caps), tuple(caps),
            TM=tile_rows, CALLER=caller is not None,
        )  # fmt: skip
        result.append([])
        for level, start in enumerate([0, *accumulate(caps)][:levels]):
            first, last = start // tile_rows, (start + caps[level]) // tile_rows
            result[-1].append(Tiles(
                rows=rows[start : start + caps[level]],
                neighbours=neighbours[first:last], tile_stride=volume * tile_rows, slot_stride=tile_rows,
                offsets=offsets[first:last], list_stride=32, counts=counts[first:last], count_stride=1,
                n=n[level : level + 1], tile_rows=tile_rows, volume=volume, capacity=caps[level],
            ))  # fmt: skip
    return tuple(result)
