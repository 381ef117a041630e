"""The voxels of five strides (1, 2, 4, 8, 16) and all neighbours in them, from one sort.

Voxels are sorted by Morton code: the bits of x, y and z interleaved. Dropping the last three bits of a code gives the
cell of the next level, so the rows of every level come out sorted, a row opens a new cell where its code differs from
the one before, and prefix sums of these flags number the cells of all levels.

Neighbours need no hash table. With u = octant + offset along an axis, the neighbour of a row lies in the neighbour
u >> 1 of its parent, at the child u & 1: the table of a level follows from the table of the coarser one in two loads,
and only the coarsest level, the smallest, searches its sorted codes.

Numbers of rows stay on the device, so that with given capacities nothing waits for the host, and the whole can be
captured in a CUDA graph.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from lground.errors import InputError
from lground.sparse.coordinates import CoordinateMap
from lground.sparse.kernel_map import kernel_offsets
from lground.sparse.kernels.tiles import Tiles, build_tiles, mask_rank, offset_of_bit, row_key
from lground.sparse.keys import KeySpace

LEVELS = 5
# A key: batch (12 bits) << 51 | the bits of z + HALF, y + HALF and x + HALF (17 bits each), interleaved, x lowest.
HALF, AXIS_MASK = tl.constexpr(1 << 16), tl.constexpr((1 << 17) - 1)
BATCH_SHIFT, BATCH_MASK = tl.constexpr(51), tl.constexpr((1 << 12) - 1)
OUT_OF_RANGE, DUPLICATE, OVERFLOW = tl.constexpr(1), tl.constexpr(2), tl.constexpr(4)
LAST_KEY = tl.constexpr(2**63 - 1)
# Bits of x in a code of the coarsest level.
COARSE_X = tl.constexpr(sum(1 << 3 * bit for bit in range(17 - 4)))
# Layout of the state: numbers of rows of levels 0..4, at STATUS the status bits, at EIGHT the numbers 0..7 and 8.
STATUS, EIGHT, STATE = tl.constexpr(5), tl.constexpr(8), tl.constexpr(17)
BLOCK = 1024


@triton.jit
def _spread(x):
    """Bit b of x to bit 3 b."""
    x = (x | (x << 32)) & 0x1F00000000FFFF
    x = (x | (x << 16)) & 0x1F0000FF0000FF
    x = (x | (x << 8)) & 0x100F00F00F00F00F
    x = (x | (x << 4)) & 0x10C30C30C30C30C3
    return (x | (x << 2)) & 0x1249249249249249


@triton.jit
def keys_kernel(coordinates, n0, keys, state, capacity, B: tl.constexpr):
    """Morton keys of the caller's rows; fills the constant part of the state."""
    i = tl.program_id(0) * B + tl.arange(0, B)
    n = tl.load(n0)
    is_row = i < tl.minimum(n, capacity)
    key = tl.load(coordinates + i * 4, mask=is_row, other=0).to(tl.int64)
    outside = key != (key & BATCH_MASK)
    key = (key & BATCH_MASK) << BATCH_SHIFT
    for axis in tl.static_range(3):
        x = tl.load(coordinates + i * 4 + 1 + axis, mask=is_row, other=0).to(tl.int64) + HALF
        outside |= x != (x & AXIS_MASK)
        key |= _spread(x & AXIS_MASK) << axis
    tl.store(keys + i, tl.where(is_row, key, LAST_KEY), mask=i < capacity)
    tl.atomic_or(state + STATUS, OUT_OF_RANGE, mask=tl.max(outside.to(tl.int32), 0) > 0)
    if tl.program_id(0) == 0:
        tl.store(state, n)
        tl.atomic_or(state + STATUS, OVERFLOW, mask=n > capacity)
        eight = tl.arange(0, 8)
        tl.store(state + EIGHT + eight, eight)
        tl.store(state + EIGHT + 8, 8)


@triton.jit(do_not_specialize=["blocks"])
def counts_kernel(keys, counts, state, blocks, capacity, B: tl.constexpr):
    """How many cells of levels 1..4 a block of rows opens; duplicates."""
    block = tl.program_id(0)
    i = block * B + tl.arange(0, B)
    is_row = i < tl.minimum(tl.load(state), capacity)
    key = tl.load(keys + i, mask=is_row, other=0)
    before = tl.load(keys + i - 1, mask=is_row & (i > 0), other=-1)
    repeats = (is_row & (key == before)).to(tl.int32)
    tl.atomic_or(state + STATUS, DUPLICATE, mask=tl.max(repeats, 0) > 0)
    for level in tl.static_range(1, 5):
        opens = is_row & ((key >> (3 * level)) != (before >> (3 * level)))
        count = tl.sum(opens.to(tl.int32), 0)
        tl.store(counts + (level - 1) * blocks + block, count)
        tl.atomic_add(state + level, count)


@triton.jit(do_not_specialize=["blocks"])
def tree_kernel(keys, counts, state, parent, child, coarse_keys, total, blocks, caps, B: tl.constexpr):
    """Rows of all levels: their parents, their children, and the codes of the coarsest."""
    block = tl.program_id(0)
    i = block * B + tl.arange(0, B)
    is_row = i < tl.minimum(tl.load(state), caps[0])
    key = tl.load(keys + i, mask=is_row, other=0)
    before = tl.load(keys + i - 1, mask=is_row & (i > 0), other=-1)
    row, opens, base = i, is_row, 0
    for level in tl.static_range(4):
        octant = ((key >> (3 * level)) & 7).to(tl.int32)
        opens_above = is_row & ((key >> (3 * level + 3)) != (before >> (3 * level + 3)))
        earlier = tl.zeros((B,), tl.int32)
        start = 0
        while start < block:
            at = start + tl.arange(0, B)
            earlier += tl.load(counts + level * blocks + at, mask=at < block, other=0)
            start += B
        above = tl.sum(earlier, 0) + tl.cumsum(opens_above.to(tl.int32), 0) - 1
        opens = opens & (row < caps[level])
        fits = above < caps[level + 1]
        tl.store(parent + base + row, tl.where(fits, above, -1) * 8 + octant, mask=opens)
        base += caps[level]
        tl.store(child + octant * total + base + above, row, mask=opens & fits)
        row, opens = above, opens_above
        if block == 0:
            too_many = tl.load(state + level + 1) > caps[level + 1]
            tl.atomic_or(state + STATUS, OVERFLOW, mask=too_many)
    tl.store(coarse_keys + row, key >> 12, mask=opens & (row < caps[4]))


@triton.jit
def _move(code, axis: tl.constexpr, step):
    """The bits of one axis of the codes after a step of -1, 0 or 1 along it, and which steps stay in range."""
    AXIS: tl.constexpr = COARSE_X << axis
    x = code & AXIS
    moved = tl.where(step > 0, (x | ~AXIS) + 1, tl.where(step < 0, x - 1, x)) & AXIS
    return moved, (step == 0) | (x != tl.where(step > 0, AXIS, 0))


@triton.jit
def search_kernel(keys, table, state, total, base, capacity, B: tl.constexpr):
    """Neighbours on the coarsest level at offset program_id(1), by binary search."""
    i = tl.program_id(0) * B + tl.arange(0, B)
    j = tl.program_id(1)
    n = tl.minimum(tl.load(state + 4), capacity)
    is_row = i < n
    key = tl.load(keys + i, mask=is_row, other=0)
    x, x_stays = _move(key, 0, j % 3 - 1)
    y, y_stays = _move(key, 1, j // 3 % 3 - 1)
    z, z_stays = _move(key, 2, j // 9 - 1)
    wanted = (key & ~(COARSE_X * 7)) | x | y | z
    step = 1
    while step * 2 <= n:
        step *= 2
    smaller = tl.zeros((B,), tl.int32)  # number of keys known to be smaller than the wanted one
    while step > 0:
        inside = is_row & (smaller + step <= n)
        seen = tl.load(keys + smaller + step - 1, mask=inside, other=LAST_KEY)
        smaller = tl.where(inside & (seen < wanted), smaller + step, smaller)
        step >>= 1
    met = is_row & x_stays & y_stays & z_stays & (smaller < n)
    met = met & (tl.load(keys + smaller, mask=met, other=-1) == wanted)
    tl.store(table + j * total + base + i, tl.where(met, smaller, -1))


@triton.jit(do_not_specialize=["level"])
def neighbours_kernel(parent, child, table, row_keys, state, total, base, capacity, level,
                      COARSEST: tl.constexpr, B: tl.constexpr):  # fmt: skip
    """Neighbours on a level from those of the level above, and the keys that sort its rows into tiles."""
    i = tl.program_id(0) * B + tl.arange(0, B)
    is_row = i < tl.load(state + level)
    if not COARSEST:
        family = tl.load(parent + base + i, mask=is_row, other=-8)
        octant = family & 7
        above = base + capacity
        up = above + (family >> 3)
        tl.store(row_keys + total + base + i, row_key(octant, is_row, level + 5))
    bit = tl.arange(0, 32)[:, None]
    j = offset_of_bit()[:, None]
    at = table + j * total + base + i[None, :]
    is_offset = bit + tl.zeros((32, B), tl.int32) < 27
    if COARSEST:
        row = tl.load(at, mask=is_offset, other=-1)
    else:
        octant = octant[None, :]
        x = (octant & 1) + (j % 3 - 1)
        y = (octant >> 1 & 1) + (j // 3 % 3 - 1)
        z = (octant >> 2) + (j // 9 - 1)
        aunt = 13 + (x >> 1) + 3 * (y >> 1) + 9 * (z >> 1)
        aunt = tl.load(table + aunt * total + up[None, :], mask=is_offset & (family[None, :] >= 0), other=-1)
        cousin = (x & 1) + 2 * (y & 1) + 4 * (z & 1)
        row = tl.load(child + cousin * total + above + aunt, mask=aunt >= 0, other=-1)
        tl.store(at, row, mask=is_offset)
    mask = tl.sum((row >= 0).to(tl.int32) << bit, 0)
    tl.store(row_keys + base + i, row_key(mask_rank(mask), is_row, level))


@dataclass(eq=False)
class Pyramid:
    """The voxels of levels 0..4 (strides 1, 2, 4, 8, 16) of some scenes, on the device.

    Rows of a level are numbered in Morton order. In `parent`, `child` and `table` the columns of level l start at
    `base[l]`; their values are rows of a level; -1 is none.

    Attributes:
        source: (N, 4) int32 rows [batch, x, y, z] as the caller gave them.
        caps: capacities of the levels, multiples of the rows of a tile; `total` is their sum, `base` the sums before.
        numbering: whether tiles call the rows of level 0 by their "sorted" numbers or by the "caller"'s.
        state: (17,) int32, see `n`.
        keys: (caps[0],) int64 sorted Morton codes.
        order: (caps[0],) int64 row of the caller for each row of level 0.
        parent: (total,) int32 row of the parent * 8 + octant, for levels 0..3.
        child: (8, total) int32 row of the child in each octant, for levels 1..4.
        table: (27, total) int32 row of the neighbour at each offset, x fastest.
    """

    source: Tensor
    caps: list[int]
    numbering: str
    state: Tensor
    keys: Tensor
    order: Tensor
    parent: Tensor
    child: Tensor
    table: Tensor
    _tiles: tuple[list[Tiles], list[Tiles]]

    @classmethod
    def build(
        cls,
        coordinates: Tensor,
        n0: Tensor,
        caps: list[int] | None = None,
        numbering: str = "sorted",
        tile_rows: int = 128,
    ) -> "Pyramid":
        """Build all maps of the first n0 rows of `coordinates`.

        Args:
            coordinates: (N, 4) int32 rows [batch, x, y, z], contiguous; batch in 0..4095, x, y, z in -65536..65535.
            n0: (1,) int32 on the device, number of rows that count.
            caps: capacities of the five levels, multiples of `tile_rows`, caps[0] >= n0. With None they are made to
                measure, for which the host waits once. Else nothing waits, and nothing depends on data.
            numbering: "caller" to call the rows of level 0 in tiles by the caller's numbers.
            tile_rows: rows of a tile, a power of two.

        Nothing is raised here: see `check` and `overflowed`.
        """
        with torch.cuda.device_of(coordinates):
            return cls._build(coordinates, n0, caps, numbering, tile_rows)

    @classmethod
    def _build(cls, coordinates, n0, caps, numbering, tile_rows) -> "Pyramid":
        rows = caps[0] if caps else triton.cdiv(max(len(coordinates), 1), tile_rows) * tile_rows
        blocks = triton.cdiv(rows, BLOCK)
        state = coordinates.new_zeros(STATE.value)
        keys = coordinates.new_empty(rows, dtype=torch.int64)
        keys_kernel[(triton.cdiv(rows, 256),)](coordinates, n0, keys, state, rows, B=256)
        keys, order = torch.sort(keys, stable=True)
        counts = coordinates.new_empty(4, blocks)
        counts_kernel[(blocks,)](keys, counts, state, blocks, rows, B=BLOCK)
        if caps is None:
            wanted = state[1:LEVELS].tolist()
            caps = [rows, *(triton.cdiv(max(n, 1), tile_rows) * tile_rows for n in wanted)]

        base, total = [0, *accumulate(caps)][:LEVELS], sum(caps)
        parent = coordinates.new_empty(total)
        child = coordinates.new_full((8, total), -1)
        table = coordinates.new_empty(27, total)
        coarse_keys = keys.new_empty(caps[4])
        tree_kernel[(blocks,)](
            keys, counts, state, parent, child, coarse_keys, total, blocks, tuple(caps), B=BLOCK, num_warps=8,
        )  # fmt: skip
        search_kernel[(caps[4] // tile_rows, 27)](
            coarse_keys, table, state, total, base[4], caps[4], B=tile_rows
        )
        row_keys = coordinates.new_empty(total + base[4])
        for level in reversed(range(LEVELS)):
            neighbours_kernel[(caps[level] // tile_rows,)](
                parent, child, table, row_keys, state, total, base[level], caps[level], level,
                COARSEST=level == LEVELS - 1, B=tile_rows,
            )  # fmt: skip
        caller = order if numbering == "caller" else None
        tiles = build_tiles(row_keys, table, parent, caller, state, caps, tile_rows)
        return cls(coordinates, caps, numbering, state, keys, order, parent, child, table, tiles)

    @property
    def n(self) -> Tensor:
        """(8,) int32: numbers of rows of levels 0..4, and at 5 the status bits 1 (a coordinate out of range),
        2 (duplicates), 4 (a level has more rows than its capacity: the rows that exceed it are missing)."""
        return self.state[:8]

    @property
    def base(self) -> list[int]:
        """First column of each level."""
        return [0, *accumulate(self.caps)][:LEVELS]

    @property
    def total(self) -> int:
        """Number of columns."""
        return sum(self.caps)

    @cached_property
    def _host(self) -> list[int]:
        return self.state.tolist()

    @property
    def status(self) -> int:
        """The status bits of `n`. Waits for the device."""
        return self._host[STATUS.value]

    def counts(self) -> list[int]:
        """Rows of each level, with those that exceed its capacity. Waits for the device."""
        return self._host[:LEVELS]

    def overflowed(self) -> bool:
        """Whether a level has more rows than its capacity, so that the maps are useless. Waits for the device."""
        return bool(self._host[STATUS.value] & OVERFLOW.value)

    def check(self) -> None:
        """Raise InputError on duplicate, negative batch or out-of-range coordinates. Waits for the device."""
        if self._host[STATUS.value] & (OUT_OF_RANGE.value | DUPLICATE.value):
            CoordinateMap.from_rows(
                self.source[: self._host[0]], 1
            )  # says what is wrong, unless it is the range of keys
            raise InputError(
                "on CUDA, coordinates must lie in -65536..65535 and batch indices in 0..4095: "
                "move each scene towards the origin"
            )

    def tiles(self, level: int) -> Tiles:
        """Tiles of the 3^3 convolutions on a level."""
        return self._tiles[0][level]

    def tiles_up(self, level: int) -> Tiles:
        """Tiles of the transposed 2^3 convolution from level + 1 to `level`."""
        return self._tiles[1][level]

    def tiles_down(self, level: int) -> Tiles:
        """Tiles of the 2^3 convolution of stride 2 from `level` to level + 1: its neighbours are the children."""
        tile_rows = self.tiles(0).tile_rows
        child = self.child[:, self.base[level + 1] :]
        if level == 0 and self.numbering == "caller":
            child = self._caller_child
        eight = self.state[EIGHT.value :]
        return Tiles(
            rows=None, neighbours=child, tile_stride=tile_rows, slot_stride=child.stride(0),
            offsets=eight, list_stride=0, counts=eight[8:], count_stride=0,
            n=self.state[level + 1 : level + 2], tile_rows=tile_rows, volume=8, capacity=self.caps[level + 1],
        )  # fmt: skip

    @cached_property
    def _caller_child(self) -> Tensor:
        """(8, caps[1]) int32: the children at level 0 by the caller's numbers."""
        caller = torch.nn.functional.pad(
            self.order.int(), (0, 1), value=-1
        )  # index -1 finds the -1 at the end
        return caller[self.child[:, self.base[1] : self.base[2]]]

    def coordinates(self, level: int) -> Tensor:
        """(n, 4) int32 rows [batch, x, y, z] of a level, in units of level 0. Waits for the device."""
        n = self._host[:LEVELS]
        if level == 0 and self.numbering == "caller":
            return self.source[: n[0]]
        keys = self.keys[: n[0]] >> 3 * level
        row = torch.arange(n[0], device=keys.device)
        for below in range(level):
            row = self.parent[self.base[below] + row] >> 3
        keys = torch.empty_like(keys[: n[level]]).index_put_((row,), keys)  # a cell's rows all write its key
        return coordinates_of(keys << 3 * level)


# The plain twins of the kernels: what they compute, in a few lines.


def morton_keys(coordinates: Tensor) -> Tensor:
    """(N,) int64 Morton keys of (N, 4) rows [batch, x, y, z]."""
    batch, *axes = coordinates.long().unbind(1)
    keys = batch << BATCH_SHIFT.value
    for axis, x in enumerate(axes):
        for bit in range(17):
            keys |= (x + HALF.value >> bit & 1) << 3 * bit + axis
    return keys


def coordinates_of(keys: Tensor) -> Tensor:
    """(N, 4) int32 rows [batch, x, y, z] of (N,) Morton keys."""
    x = torch.stack([keys, keys >> 1, keys >> 2], 1) & 0x1249249249249249
    x = (x | x >> 2) & 0x10C30C30C30C30C3
    x = (x | x >> 4) & 0x100F00F00F00F00F
    x = (x | x >> 8) & 0x1F0000FF0000FF
    x = (x | x >> 16) & 0x1F00000000FFFF
    x = (x | x >> 32) & 0x1FFFFF
    return torch.cat([keys[:, None] >> BATCH_SHIFT.value, (x & AXIS_MASK.value) - HALF.value], 1).int()


def level_keys(keys: Tensor) -> list[Tensor]:
    """Sorted keys of the rows of each level, from the keys of level 0 in any order."""
    levels = [keys.sort()[0]]
    while len(levels) < LEVELS:
        levels.append(torch.unique(levels[-1] >> 3))
    return levels


def find(keys: Tensor, wanted: Tensor) -> Tensor:
    """int32 positions of the wanted keys among sorted keys, -1 where there is none."""
    place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return torch.where(keys[place] == wanted, place, -1).int()


def parents(fine: Tensor, coarse: Tensor) -> Tensor:
    """(N,) int32 row of the parent * 8 + octant, from the keys of two successive levels."""
    return find(coarse, fine >> 3) * 8 + (fine & 7).int()


def children(fine: Tensor, coarse: Tensor) -> Tensor:
    """(8, M) int32 row of the child in each octant of the rows of the coarse level, -1 for none."""
    return torch.stack([find(fine, (coarse << 3) + octant) for octant in range(8)])


def neighbour_table(cells: Tensor) -> Tensor:
    """(27, N) int32 row of the neighbour of each of (N, 4) rows [batch, x, y, z] in units of the stride."""
    cells = cells.long()
    space = KeySpace.around([cells], (1, 1, 1))
    keys, order = space.pack(cells).sort()
    found = [find(keys, space.pack(cells + cells.new_tensor([0, *o]))) for o in kernel_offsets((3, 3, 3))]
    return torch.stack([torch.where(place < 0, -1, order[place.long()].int()) for place in found])
