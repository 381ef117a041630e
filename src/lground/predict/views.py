"""The same scan seen several ways: test-time augmentation."""

from dataclasses import dataclass

import numpy as np

from lground.data import Voxels, voxelize
from lground.data.geometry import rotation
from lground.errors import InputError


@dataclass(frozen=True, eq=False)
class View:
    """A way to look at a scan: moved by `shift` (3,) metres, then mirrored and turned by `matrix` (3, 3)."""

    shift: np.ndarray
    matrix: np.ndarray

    def voxelize(self, points: np.ndarray, voxel_size: float) -> Voxels:
        return voxelize(points + self.shift, voxel_size, matrix=self.matrix)

    def undo(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 3) of this view, in metres, where they are in the scan."""
        return points @ self.matrix - self.shift


PLAIN = View(np.zeros(3), np.eye(3))  # float64, which holds every float32 coordinate: nothing changes


def views_of(count: int, voxel_size: float) -> list[View]:
    """`count` views: turned about z by equal steps, every other one mirrored too, each a little further along x, y
    and z, together by less than a voxel; the first is the plain one. `voxel_size`: metres. Nothing is random.
    """
    if count < 1:
        raise InputError(f"--views {count}: give 1 (the scan as it is) or more, such as 8")
    if count == 1:
        return [PLAIN]
    mirror = np.diag([-1.0, 1.0, 1.0])
    steps = np.arange(count) / count
    return [
        View(np.full(3, step * voxel_size), rotation(2, 2 * np.pi * step) @ (mirror if k % 2 else np.eye(3)))
        for k, step in enumerate(steps)
    ]


def voxel_centers(voxels: Voxels, voxel_size: float) -> np.ndarray:
    """(M, 3) float64, metres, in the view that the voxels were made in."""
    return (voxels.coordinates + 0.5) * voxel_size
