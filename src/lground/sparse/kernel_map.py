"""Which input voxel meets which output voxel at each offset of a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lground.sparse.keys import KeySpace

if TYPE_CHECKING:
    from lground.sparse.coordinates import CoordinateMap

Triple = tuple[int, int, int]


# Output rows computed together: on a CPU their products stay in the cache, elsewhere few launches count.
CPU_BLOCK_ROWS = 512, 2048
BLOCK_ROWS = 1 << 16


@dataclass(frozen=True)
class Block:
    """The pairs of a range of output rows, grouped by offset: what gather - multiply - reduce needs.

    Attributes:
        rows: the output rows.
        inputs, outputs: (P,) int32 rows of the pairs, offset after offset.
        sizes: K numbers of pairs.
        terms, starts: output row j of the block sums the pairs `terms[starts[j] : starts[j + 1]]`, int32.
    """

    rows: slice
    inputs: Tensor
    outputs: Tensor
    sizes: list[int]
    terms: Tensor
    starts: Tensor


@dataclass(frozen=True)
class KernelMap:
    """The pairs of a sparse convolution: at offset k, row `inputs[k][j]` contributes to row `outputs[k][j]`.

    No row occurs twice within one offset, so adding into `outputs[k]` never collides.

    Attributes:
        inputs, outputs: K tensors (P_k,) int64; a pair of offset k at the same position in both.
        input_rows, output_rows: number of rows of the two coordinate maps.
        identity: of a map between a set of voxels and itself, the offset that pairs every row with itself.
            Such a map is its own mirror image: the pairs of offset K - 1 - k are those of k turned round.
            Else None.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    input_rows: int
    output_rows: int
    identity: int | None = None

    def __len__(self) -> int:
        """The number of offsets, K."""
        return len(self.inputs)

    @cached_property
    def transposed(self) -> KernelMap:
        """The map of the adjoint operator: every pair turned round."""
        return KernelMap(self.outputs, self.inputs, self.output_rows, self.input_rows, self.identity)

    @cached_property
    def neighbours(self) -> Tensor:
        """(N_out, K) int32: the input row that output row o meets at offset k, `input_rows` if none.

        Each offset's column is contiguous.
        """
        table = self.inputs[0].new_full((len(self), self.output_rows), self.input_rows, dtype=torch.int32)
        for row, inputs, outputs in zip(table, self.inputs, self.outputs, strict=True):
            row.scatter_(0, outputs, inputs.int())
        return table.t()

    @property
    def block_rows(self) -> int:
        """How many output rows to compute together."""
        if self.inputs[0].device.type != "cpu":
            return BLOCK_ROWS
        return sorted((*CPU_BLOCK_ROWS, self.output_rows // 4))[1]

    @cached_property
    def blocks(self) -> list[Block]:
        """All pairs but those of the identity, in blocks of consecutive output rows."""
        tables = self.neighbours.split(self.block_rows)
        return [self._block(self.block_rows * number, table) for number, table in enumerate(tables)]

    def _block(self, start: int, table: Tensor) -> Block:
        present = table != self.input_rows
        if self.identity is not None:
            present[:, self.identity] = False
        by_offset = present.t()
        inputs = table.t()[by_offset]
        numbers = by_offset.flatten().cumsum(0, dtype=torch.int32).sub_(1).view(by_offset.shape)
        sums = present.sum(1, dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return Block(
            rows=slice(start, start + len(table)),
            inputs=inputs,
            outputs=(by_offset.nonzero()[:, 1] + start).int(),
            sizes=present.sum(0).tolist(),
            terms=numbers.t()[present],
            starts=torch.nn.functional.pad(sums[:-1], (1, 0)),
        )


def axis_range(size: int) -> range:
    """Offsets along one axis: centred for an odd kernel size, 0 .. size - 1 for an even one."""
    return range(-(size // 2), size // 2 + 1) if size % 2 else range(size)


def kernel_offsets(kernel_size: Triple, dilation: Triple = (1, 1, 1)) -> list[Triple]:
    """The K offsets of a kernel in units of the stride, ordered as the weights: x runs fastest, z slowest."""
    x, y, z = ([i * d for i in axis_range(s)] for s, d in zip(kernel_size, dilation, strict=True))
    return [(a, b, c) for c in z for b in y for a in x]


def build_kernel_map(
    source: CoordinateMap, target: CoordinateMap, kernel_size: Triple, dilation: Triple
) -> KernelMap:
    """Find, for every offset, the pairs with `source voxel = target voxel + offset * source.stride`."""
    offsets = kernel_offsets(kernel_size, dilation)
    mirrored = source is target and all(size % 2 for size in kernel_size)
    identity = offsets.index((0, 0, 0)) if mirrored else None
    # Between a map and itself the pairs at -o are those at o turned round: half of the offsets are searched.
    wanted = offsets[identity:] if mirrored else offsets
    found = _search(source, target, wanted)
    if mirrored:
        found |= {tuple(-i for i in o): (b, a) for o, (a, b) in found.items()}
    inputs, outputs = zip(*(found[o] for o in offsets), strict=True)
    return KernelMap(inputs, outputs, len(source), len(target), identity)


def _search(source: CoordinateMap, target: CoordinateMap, offsets: list[Triple]) -> dict[Triple, tuple]:
    """{offset: (source rows, target rows)}: one search per (x, y) column of the kernel, then a walk along z.

    Keys of neighbours along z are consecutive numbers, so after the first search the position of the next
    neighbour is known: it moves on by one exactly where a voxel was met.
    """
    queries = target.cells * target.cells.new_tensor([1, *[target.stride // source.stride] * 3])
    margin = [max(abs(o[axis]) for o in offsets) for axis in range(3)]
    space = KeySpace.around([source.cells, queries], margin)
    keys = space.pack(source.cells)
    keys_and_end = torch.nn.functional.pad(
        keys, (0, 1), value=-1
    )  # no key is negative: the end never matches
    _, step_x, step_y, _ = space.steps.tolist()
    start = space.pack(queries)

    columns: dict[tuple[int, int], list[int]] = {}
    for x, y, z in offsets:
        columns.setdefault((x, y), []).append(z)
    found = {}
    for (x, y), heights in columns.items():
        first = min(heights)
        key = start + (x * step_x + y * step_y + first)
        position = torch.searchsorted(keys, key, out_int32=True)
        for z in range(first, max(heights) + 1):
            met = keys_and_end.index_select(0, position) == key
            if z in heights:
                rows = met.nonzero().squeeze(1)
                met_at = position.index_select(0, rows).long()
                found[x, y, z] = _rows(source, met_at), _rows(target, rows)
            position += met
            key += 1
    return found


def _rows(coordinate_map: CoordinateMap, sorted_positions: Tensor) -> Tensor:
    order = coordinate_map.order
    return sorted_positions if order is None else order.index_select(0, sorted_positions)
