"""Lists of the pairs of a kernel map, offset by offset, and in which order to work them off.

The occupied entries of a neighbour table are written into one list, by offset and then by row (count, cumulative
sum, write), so that no product is computed for an absent neighbour.

- Equal shares. Every offset's pairs are cut into shares of the same length, one program each, so that the
  dense centre and the sparse corners of a kernel load the device evenly.
- Shares run in the order of the rows they read, whatever their offset: share q of m lies at (q + 1/2) / m of
  the rows. What is in flight at any moment reads the same stretch of features, which stays in the L2 cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

from lground.sparse.kernels.launch import Kernel, cdiv, power_of_2

BLOCK = 1024  # table rows per program when pairs are listed
# Arguments whose value no kernel is compiled anew for.
SIZES = "n", "stride_offset", "rows", "blocks", "stride", "capacity", "shares", "share"


@dataclass(frozen=True)
class Pairs:
    """The pairs of a convolution, ordered by offset, then by row of the table they were found in.

    Attributes:
        inputs, outputs: (P,) int32, rows of x and g; P is a capacity, entries past the last pair hold anything.
        starts: (K + 1,) int32; the pairs of offset k are `starts[k] : starts[k + 1]`. If `starts[K]` is more
            than P, the last pairs found no room and are left out.
    """

    inputs: Tensor
    outputs: Tensor
    starts: Tensor
    schedules: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    def schedule(self, share: int, volume: int) -> tuple[Tensor, Tensor]:
        """`work` (3, shares) and `first` (K + 1,) int32 of `_schedule`, made once for every length of a share."""
        if share not in self.schedules:
            capacity = len(self.inputs)
            shares = cdiv(capacity, share) + volume  # at most: every offset may end in a short one
            work = torch.empty(3, shares, dtype=torch.int32, device=self.inputs.device)
            first = torch.empty(volume + 1, dtype=torch.int32, device=self.inputs.device)
            _schedule[(cdiv(shares, 128),)](
                self.starts, self.starts.stride(0), capacity, work, shares, first, share, volume,
                power_of_2(volume), 128,
            )  # fmt: skip
            self.schedules[share] = work, first
        return self.schedules[share]


def build_pairs(
    table: Tensor,
    n: Tensor,
    input_numbering: Tensor | None = None,
    output_numbering: Tensor | None = None,
    capacity: int | None = None,
) -> Pairs:
    """List the occupied entries of a neighbour table.

    Args:
        table: (K, rows) int32 of any strides; the input row that output row o meets at offset k, -1 if none.
        n: (1,) int32 on the device, how many rows of the table count.
        input_numbering, output_numbering: int32 or int64, the row of x (of g) that a row of the table is;
            None where they are the same.
        capacity: room for pairs; None reads their exact number, which waits for the device.
    """
    volume, rows = table.shape
    blocks = max(1, cdiv(rows, BLOCK))
    counts = torch.zeros(volume * blocks + 1, dtype=torch.int32, device=table.device)
    of_table = table, n, *table.stride(), rows, blocks
    _count_pairs[blocks, volume](*of_table, counts, BLOCK)
    starts = counts.cumsum(0, dtype=torch.int32)
    if capacity is None:
        capacity = int(starts[-1])
    inputs, outputs = (torch.empty(capacity, dtype=torch.int32, device=table.device) for _ in range(2))
    numberings = input_numbering, output_numbering
    _write_pairs[blocks, volume](*of_table, starts, *numberings, inputs, outputs, capacity, BLOCK)
    return Pairs(inputs, outputs, starts[::blocks])


@triton.jit
def _table_block(table, n, stride_offset, stride_row, rows, BLOCK: tl.constexpr):
    """Row numbers and entries of this program's block of the table."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mine = table + tl.program_id(1).to(tl.int64) * stride_offset + row.to(tl.int64) * stride_row
    return row, tl.load(mine, mask=row < tl.minimum(tl.load(n), rows), other=-1)


@Kernel
@triton.jit(do_not_specialize=SIZES)
def _count_pairs(table, n, stride_offset, stride_row, rows, blocks, counts, BLOCK: tl.constexpr):
    _, met = _table_block(table, n, stride_offset, stride_row, rows, BLOCK)
    here = tl.program_id(1) * blocks + tl.program_id(0)
    tl.store(counts + 1 + here, tl.sum((met >= 0).to(tl.int32), 0))


@Kernel
@triton.jit(do_not_specialize=SIZES)
def _write_pairs(
    table, n, stride_offset, stride_row, rows, blocks, starts, input_numbering, output_numbering,
    inputs, outputs, capacity, BLOCK: tl.constexpr,
):  # fmt: skip
    row, met = _table_block(table, n, stride_offset, stride_row, rows, BLOCK)
    here = tl.program_id(1) * blocks + tl.program_id(0)
    present = met >= 0
    at = tl.load(starts + here) + tl.cumsum(present.to(tl.int32), 0) - 1
    present &= at < capacity
    if input_numbering is not None:
        met = tl.load(input_numbering + met, mask=present, other=0).to(tl.int32)
    if output_numbering is not None:
        row = tl.load(output_numbering + row, mask=present, other=0).to(tl.int32)
    tl.store(inputs + at, met, mask=present)
    tl.store(outputs + at, row, mask=present)


@Kernel
@triton.jit(do_not_specialize=SIZES)
def _schedule(
    starts, stride, capacity, work, shares, first, share,
    K: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The turn of every share: work[:, turn] = (its number, first pair, end); first[k]: offset k's first number.

    Share q of an offset's m comes before share q' of another's m' where (2q + 1) m' < (2q' + 1) m, ties by
    offset. Turns without a share are empty.
    """
    k = tl.arange(0, LANES)
    begins = tl.minimum(tl.load(starts + k * stride, mask=k < K, other=0), capacity)
    ends = tl.minimum(tl.load(starts + (k + 1) * stride, mask=k < K, other=0), capacity)
    counts = (ends - begins + share - 1) // share
    after = tl.cumsum(counts, 0)
    before = after - counts
    if tl.program_id(0) == 0:
        tl.store(first + k, before, mask=k < K)
        tl.store(first + K, tl.sum(counts, 0))
    number = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = number < tl.sum(counts, 0)
    mine = (before[None, :] <= number[:, None]) & (number[:, None] < after[None, :])
    offset = tl.sum(tl.where(mine, k[None, :], 0), 1)
    count = tl.maximum(tl.sum(tl.where(mine, counts[None, :], 0), 1), 1)
    q = number - tl.sum(tl.where(mine, before[None, :], 0), 1)
    earlier = (2 * q + 1)[:, None] * counts[None, :] - (k[None, :] >= offset[:, None]).to(tl.int32)
    turn = tl.sum((tl.maximum(earlier, 0) // count[:, None] + 1) // 2, 1)
    turn = tl.where(live, turn, number)
    begin = tl.sum(tl.where(mine, begins[None, :], 0), 1) + q * share
    end = tl.minimum(begin + share, tl.sum(tl.where(mine, ends[None, :], 0), 1))
    tl.store(work + turn, number, mask=number < shares)
    tl.store(work + shares + turn, tl.where(live, begin, 0), mask=number < shares)
    tl.store(work + 2 * shares + turn, tl.where(live, end, 0), mask=number < shares)
