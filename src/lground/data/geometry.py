"""Augmentations of shape and position: called with a scene and a random generator, they return a scene."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import uniform_filter1d
from torch.nn.functional import grid_sample

from lground.data.scenes import Sample, VoxelScene
from lground.data.voxels import bounds
from lground.errors import InputError

MAX_NOISE_CELLS = 2**25  # 400 MB of noise; a room has about 50,000 cells, a floor of a large building 10^7


@dataclass(frozen=True)
class ElasticDistortion:
    """Bend the scene by smooth noise, coarse over fine.

    passes: (granularity, magnitude) in metres, applied in order; `probability` decides once for all of them.
    The noise of one pass is normal on a grid of `granularity`, smoothed (`noise_grid`), read trilinearly.
    """

    passes: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6))
    probability: float = 0.95

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return sample
        points = np.asarray(sample.points, dtype=np.float32)
        for granularity, magnitude in self.passes:
            low, high = bounds(points)
            noise = noise_grid(high - low, granularity, rng)
            cells = (points - low) / np.float32(
                granularity
            ) + 1  # the grid starts one cell before the minimum
            points = points + trilinear(noise, cells) * np.float32(magnitude)
        return replace(sample, points=points)


def noise_grid(extent: np.ndarray, granularity: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (X, Y, Z, 3) float32 for a scene of `extent` (3,) metres.

    Normal noise on floor(extent / granularity) + 3 cells per axis, averaged twice over three neighbours along
    x, y and z, with zeros outside.
    """
    cells = np.floor(np.asarray(extent, dtype=np.float64) / granularity) + 3
    if not np.prod(cells) <= MAX_NOISE_CELLS:  # so written, NaN is refused too
        raise InputError(
            f"the scene spans {' x '.join(f'{e:.4g}' for e in extent)} m, too much for elastic distortion: "
            "check the units, remove far outliers or switch the distortion off"
        )
    noise = rng.standard_normal((*cells.astype(np.int64), 3), dtype=np.float32)
    for axis in (0, 1, 2) * 2:
        noise = uniform_filter1d(noise, 3, axis=axis, mode="constant")
    return noise


def trilinear(grid: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Read a grid (X, Y, Z, C) float32 at positions (N, 3) in cells; returns (N, C), zeros outside."""
    last = np.array(grid.shape[:3], dtype=np.float32) - 1
    unit = torch.from_numpy(positions * (2 / last) - 1).flip(1)  # torch wants -1..1 and z, y, x
    volume = torch.from_numpy(grid).permute(3, 0, 1, 2)[None]
    return grid_sample(volume, unit[None, None, None], align_corners=True)[0, :, 0, 0].T.numpy()


@dataclass(frozen=True)
class RotateScale:
    """Turn about x, y and z by uniform angles (radians, in random order) and scale uniformly.

    Sets `Sample.matrix`, which voxelisation applies; the points stay upright and metric for later steps.
    """

    angles: tuple[float, float, float] = (np.pi / 64, np.pi / 64, np.pi)
    scale: tuple[float, float] = (0.9, 1.1)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        turns = [rotation(axis, rng.uniform(-most, most)) for axis, most in enumerate(self.angles)]
        first, second, third = (turns[axis] for axis in rng.permutation(3))
        matrix = rng.uniform(*self.scale) * (first @ second @ third)
        return replace(sample, matrix=matrix @ sample.matrix)


def rotation(axis: int, angle: float) -> np.ndarray:
    """The (3, 3) matrix that turns by `angle` radians about axis 0, 1 or 2 (right-handed)."""
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[[i, j], [i, j]] = np.cos(angle)
    matrix[j, i] = np.sin(angle)
    matrix[i, j] = -np.sin(angle)
    return matrix


@dataclass(frozen=True)
class Flip:
    """Mirror x and mirror y in voxel space (c -> max - c), each with `axis_probability`, once entered."""

    probability: float = 0.95
    axis_probability: float = 0.5

    def __call__(self, scene: VoxelScene, rng: np.random.Generator) -> VoxelScene:
        if rng.random() >= self.probability:
            return scene
        coordinates = scene.coordinates.copy()
        for axis in (0, 1):
            if rng.random() < self.axis_probability:
                coordinates[:, axis] = coordinates[:, axis].max() - coordinates[:, axis]
        return replace(scene, coordinates=coordinates)


@dataclass(frozen=True)
class Dropout:
    """Drop a fraction of the voxels at random; their vertices get -1 in `inverse`.

    The original's instance stage uses it (both numbers 0.2); its semantic stages leave it off.
    """

    ratio: float = 0.2
    probability: float = 0.2

    def __call__(self, scene: VoxelScene, rng: np.random.Generator) -> VoxelScene:
        if rng.random() >= self.probability:
            return scene
        count = len(scene)
        left = max(1, round(count * (1 - self.ratio)))
        kept = np.sort(rng.choice(count, left, replace=False, shuffle=False))
        row = np.full(count, -1, dtype=np.int64)
        row[kept] = np.arange(left)
        return replace(
            scene,
            coordinates=scene.coordinates[kept],
            colors=scene.colors[kept],
            labels=scene.labels[kept],
            instances=scene.instances[kept],
            attributes=scene.attributes[kept],
            inverse=row[scene.inverse],
        )


@dataclass(frozen=True)
class Shift:
    """Move the scene by a whole number of voxels per axis, each 0 to `most`, so that strided cells vary.

    The original draws one vector per batch; here it is one per scene (as in its instance stage), which makes
    a scene independent of what it is batched with.
    """

    most: int = 99

    def __call__(self, scene: VoxelScene, rng: np.random.Generator) -> VoxelScene:
        shift = rng.integers(0, self.most, size=3, dtype=np.int32, endpoint=True)
        return replace(scene, coordinates=scene.coordinates + shift)
