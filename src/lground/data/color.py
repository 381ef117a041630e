"""Augmentations of colour: (M, 3) float32 in 0..255 in, the same out."""

from dataclasses import dataclass, replace

import numpy as np

from lground.data.scenes import VoxelScene
from lground.data.voxels import bounds

GREY = 127.5  # the network's zero: features are colour / 255 - 0.5


def _with_colors(scene: VoxelScene, colors: np.ndarray) -> VoxelScene:
    return replace(scene, colors=np.clip(colors, 0, 255).astype(np.float32, copy=False))


@dataclass(frozen=True)
class AutoContrast:
    """Stretch each channel to 0..255 and blend with the original by a uniform weight.

    A channel of one value has nothing to stretch and stays as it is (the original divides by zero).
    """

    probability: float = 0.2

    def __call__(self, scene: VoxelScene, rng: np.random.Generator) -> VoxelScene:
        if rng.random() >= self.probability:
            return scene
        low, high = bounds(scene.colors)
        flat = high == low
        stretched = (scene.colors - low) * (255 / np.where(flat, 1, high - low))
        weight = np.where(flat, 0, rng.random()).astype(np.float32)
        return _with_colors(scene, (1 - weight) * scene.colors + weight * stretched)


@dataclass(frozen=True)
class ColorTranslation:
    """Add one uniform value of up to `ratio` of the range, plus or minus, to each channel."""

    ratio: float = 0.10
    probability: float = 0.95

    def __call__(self, scene: VoxelScene, rng: np.random.Generator) -> VoxelScene:
        if rng.random() >= self.probability:
            return scene
        step = rng.uniform(-1, 1, 3).astype(np.float32) * (255 * self.ratio)
        return _with_colors(scene, scene.colors + step)


@dataclass(frozen=True)
class ColorJitter:
    """Add normal noise of `std` times the range to every voxel and channel."""

    std: float = 0.05
    probability: float = 0.95

    def __call__(self, scene: VoxelScene, rng: np.random.Generator) -> VoxelScene:
        if rng.random() >= self.probability:
            return scene
        noise = rng.standard_normal(scene.colors.shape, dtype=np.float32)
        return _with_colors(scene, scene.colors + noise * (255 * self.std))


@dataclass(frozen=True)
class ColorScale:
    """Multiply all colours by a constant."""

    factor: float = 1.0

    def __call__(self, scene: VoxelScene, rng: np.random.Generator) -> VoxelScene:
        return _with_colors(scene, scene.colors * np.float32(self.factor))


@dataclass(frozen=True)
class ColorDrop:
    """Paint the whole scene grey, so that the network also learns scans without colour (ours)."""

    probability: float = 0.2

    def __call__(self, scene: VoxelScene, rng: np.random.Generator) -> VoxelScene:
        if rng.random() >= self.probability:
            return scene
        return replace(scene, colors=np.full_like(scene.colors, GREY))
