"""One int64 key per voxel, ordered as (batch, x, y, z), so that sorting and searching are one-dimensional."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lground.errors import InputError


@dataclass(frozen=True)
class KeySpace:
    """A box of cells numbered row by row, z fastest. Any box gives the same order of keys.

    Attributes:
        low: (4,) int64, the smallest batch, x, y, z of the box.
        steps: (4,) int64, what one step along each axis adds to a key.
        sizes: (4,) int64, the number of cells along each axis.
    """

    low: Tensor
    steps: Tensor
    sizes: Tensor

    @classmethod
    def around(cls, cells: Sequence[Tensor], margin: Sequence[int] = (0, 0, 0)) -> "KeySpace":
        """The box that holds all rows of all `cells` and `margin` more on both sides of x, y, z."""
        device = cells[0].device
        reach = torch.tensor([0, *margin], device=device)
        low = torch.stack([c.amin(0) for c in cells]).amin(0) - reach
        sizes = torch.stack([c.amax(0) for c in cells]).amax(0) + reach + 1 - low
        steps, total = [], 1
        for size in reversed(sizes.tolist()):
            steps.insert(0, total)
            total *= size
        if total >= 2**63:
            raise InputError(
                "the coordinates lie too far apart to be indexed "
                f"({' x '.join(map(str, sizes.tolist()))} cells): move each scene towards the origin, "
                "or take larger voxels"
            )
        return cls(low, torch.tensor(steps, device=device), sizes)

    def pack(self, cells: Tensor) -> Tensor:
        """(N,) int64 keys of (N, 4) int64 rows."""
        return ((cells - self.low) * self.steps).sum(1)

    def unpack(self, keys: Tensor) -> Tensor:
        """(N, 4) int64 rows of (N,) keys."""
        return keys[:, None] // self.steps % self.sizes + self.low
