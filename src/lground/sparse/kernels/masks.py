"""The order of rows in which neighbours in the order meet the same offsets of a kernel.

The offsets that a row of a 3^3 convolution has are the bits of a mask, and rows are sorted by mask. Two things make
the order good. The rarest offsets, the corners, get the highest bits, so they differ between few neighbours of the
order. And a mask is replaced by its rank in the Gray code, so that masks in successive ranks differ in one bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Key of a row, int32: segment - 4 << 28 | no row << 27 | payload of 27 bits. Segments 0..4 hold the rows of the levels,
# their payload is the rank of the mask; segments 5..8 those of levels 0..3 as outputs of a transposed convolution,
# their payload is the octant.
NO_ROW = tl.constexpr(1 << 27)

# ORDER[b] is the offset at bit b of a mask, from the commonest to the rarest.
ORDER = tl.constexpr(
    tuple(sorted(range(27), key=lambda j: (sum(j // s % 3 != 1 for s in (1, 3, 9)), j // 9 != 1, j)))
)


@triton.jit
def row_key(payload, is_row, segment):
    """Sort key of a row; a lane without a row goes to the end of its segment."""
    return ((segment - 4) << 28) | tl.where(is_row, payload, NO_ROW)


@triton.jit
def mask_rank(mask):
    """Rank of a 27-bit mask in the Gray code; the mask is rank ^ rank >> 1."""
    for shift in tl.static_range(5):
        mask = mask ^ (mask >> (1 << shift))
    return mask


@triton.jit
def offset_of_bit():
    """(32,) the offset at each bit of a mask."""
    bit = tl.arange(0, 32)
    j = tl.zeros((32,), tl.int32)
    for b in tl.static_range(27):
        j = tl.where(bit == b, ORDER[b], j)
    return j


def mask_order(table: Tensor) -> Tensor:
    """The plain twin: (n,) int64 rows of a (27, n) neighbour table in the order in which tiles take them."""
    bits = [(table[j] >= 0).long() << bit for bit, j in enumerate(ORDER.value)]
    mask = torch.stack(bits).sum(0)
    rank = mask.clone()
    for shift in range(1, 27):
        rank ^= mask >> shift
    return torch.sort(rank, stable=True)[1]
