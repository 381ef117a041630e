"""Plain PyTorch twins of the map kernels: Morton keys and what follows from them, in a few lines each."""

import torch
from torch import Tensor

from lground.sparse.kernel_map import kernel_offsets
from lground.sparse.kernels.maps import AXIS_MASK, BATCH_SHIFT, HALF, LEVELS
from lground.sparse.keys import KeySpace


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
