"""Triton kernels that build a pyramid: all voxels and neighbours of five strides from one sort.

Voxels are sorted by Morton code: the bits of x, y and z interleaved. Dropping the last three bits of a code gives the
cell of the next level, so the rows of every level come out sorted, a row opens a new cell where its code differs from
the one before, and prefix sums of these flags number the cells of all levels.

Neighbours need no hash table. With u = octant + offset along an axis, the neighbour of a row lies in the neighbour
u >> 1 of its parent, at the child u & 1: the table of a level follows from the table of the coarser one in two loads,
and only the coarsest level, the smallest, searches its sorted codes.

Twins: the functions of `lground.sparse.kernels.morton`.
"""

import triton
import triton.language as tl

from lground.sparse.kernels.launch import Kernel
from lground.sparse.kernels.masks import mask_rank, offset_of_bit, row_key

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


@triton.jit
def _spread(x):
    """Bit b of x to bit 3 b."""
    x = (x | (x << 32)) & 0x1F00000000FFFF
    x = (x | (x << 16)) & 0x1F0000FF0000FF
    x = (x | (x << 8)) & 0x100F00F00F00F00F
    x = (x | (x << 4)) & 0x10C30C30C30C30C3
    return (x | (x << 2)) & 0x1249249249249249


@Kernel
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


@Kernel
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


@Kernel
@triton.jit(do_not_specialize=["blocks"])
def tree_kernel(keys, counts, state, parent, child, coarse_keys, child_stride, blocks, caps, B: tl.constexpr):
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
        tl.store(child + octant * child_stride + base - caps[0] + above, row, mask=opens & fits)
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


@Kernel
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


@Kernel
@triton.jit(do_not_specialize=["level"])
def neighbours_kernel(parent, child, table, row_keys, state, total, child_stride, base, capacity, level,
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
        row = tl.load(
            child + cousin * child_stride + above - (total - child_stride) + aunt, mask=aunt >= 0, other=-1
        )
        tl.store(at, row, mask=is_offset)
    mask = tl.sum((row >= 0).to(tl.int32) << bit, 0)
    tl.store(row_keys + base + i, row_key(mask_rank(mask), is_row, level))
