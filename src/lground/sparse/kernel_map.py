"""Which input voxel meets which output voxel at each offset of a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lground.sparse.keys import KeySpace

if TYPE_CHECKING:
    from lground.sparse.coordinates import CoordinateMap

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class KernelMap:
    """The pairs of a sparse convolution: at offset k, row `inputs[k][j]` contributes to row `outputs[k][j]`.

    No row occurs twice within one offset, so adding into `outputs[k]` never collides.

    Attributes:
        inputs, outputs: K tensors (P_k,) int64; a pair of offset k at the same position in both.
        input_rows, output_rows: number of rows of the two coordinate maps.
        identity: the offset whose pairs are every row with itself (the centre of an odd kernel at stride 1), or None.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    input_rows: int
    output_rows: int
    identity: int | None = None

    def transposed(self) -> KernelMap:
        """The map of the adjoint operator: every pair turned round."""
        return KernelMap(self.outputs, self.inputs, self.output_rows, self.input_rows, self.identity)


def axis_range(size: int) -> range:
    """Offsets along one axis: centred for an odd kernel size, 0 .. size - 1 for an even one."""
    return range(-(size // 2), size // 2 + 1) if size % 2 else range(size)


def kernel_offsets(kernel_size: Triple, dilation: Triple = (1, 1, 1)) -> list[Triple]:
    """The K offsets of a kernel in units of the stride, in the order of the weights: x runs fastest, z slowest."""
    x, y, z = ([i * d for i in axis_range(s)] for s, d in zip(kernel_size, dilation, strict=True))
    return [(a, b, c) for c in z for b in y for a in x]


def build_kernel_map(
    source: CoordinateMap, target: CoordinateMap, kernel_size: Triple, dilation: Triple
) -> KernelMap:
    """Find, for every offset, the pairs with `source voxel = target voxel + offset * source.stride`."""
    offsets = kernel_offsets(kernel_size, dilation)
    mirrored = source is target and all(size % 2 for size in kernel_size)
    identity = offsets.index((0, 0, 0)) if mirrored else None
    # Between a map and itself the pairs at -o are those at o turned round, so half of the offsets are searched.
    wanted = offsets[identity:] if mirrored else offsets
    found = _search(source, target, wanted)
    if mirrored:
        found |= {tuple(-i for i in o): (b, a) for o, (a, b) in found.items()}
    inputs, outputs = zip(*(found[o] for o in offsets), strict=True)
    return KernelMap(inputs, outputs, len(source), len(target), identity)


def _search(source: CoordinateMap, target: CoordinateMap, offsets: list[Triple]) -> dict[Triple, tuple]:
    """{offset: (source rows, target rows)}: one search per (x, y) column of the kernel, then a walk along z.

    Keys of neighbours along z are consecutive numbers, so after the first search the position of the next neighbour
    is known: it moves on by one exactly where a voxel was met.
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
        position = torch.searchsorted(keys, key)
        for z in range(first, max(heights) + 1):
            met = keys_and_end[position] == key
            if z in heights:
                rows = met.nonzero().squeeze(1)
                found[x, y, z] = _rows(source, position[rows]), _rows(target, rows)
            position = position + met
            key = key + 1
    return found


def _rows(coordinate_map: CoordinateMap, sorted_positions: Tensor) -> Tensor:
    order = coordinate_map.order
    return sorted_positions if order is None else order[sorted_positions]
