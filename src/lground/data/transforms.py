"""The list of augmentations: what a scene goes through, in order."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lground.data.color import AutoContrast, ColorDrop, ColorJitter, ColorScale, ColorTranslation
from lground.data.geometry import Dropout, ElasticDistortion, Flip, RotateScale, Shift
from lground.data.scenes import Sample, VoxelScene, voxelize_sample

PointTransform = Callable[[Sample, np.random.Generator], Sample]
VoxelTransform = Callable[[VoxelScene, np.random.Generator], VoxelScene]


@dataclass(frozen=True)
class Transforms:
    """Steps on the vertices (metres, upright), then voxelisation, then steps on the voxels."""

    points: tuple[PointTransform, ...] = ()
    voxels: tuple[VoxelTransform, ...] = ()

    def __call__(
        self, sample: Sample, rng: np.random.Generator, *, voxel_size: float, reduce: str
    ) -> VoxelScene:
        for transform in self.points:
            sample = transform(sample, rng)
        scene = voxelize_sample(sample, voxel_size, reduce)
        for transform in self.voxels:
            scene = transform(scene, rng)
        return scene


def training_transforms(
    *,
    elastic: bool = True,
    rotation: bool = True,
    scale: tuple[float, float] = (0.9, 1.1),
    flip: bool = True,
    auto_contrast: float = 0.2,
    color_translation: float = 0.10,
    color_jitter: float = 0.05,
    color_scale: float = 1.0,
    color_drop: float = 0.0,
    dropout: float = 0.0,
    shift: int = 99,
) -> Transforms:
    """The augmentations of training, in the order and with the numbers of the original.

    elastic: elastic distortion (p 0.95, two passes). rotation: about x and y up to pi/64, about z fully.
    scale: range of the uniform scale. flip: mirror x and y. auto_contrast: its probability.
    color_translation, color_jitter: magnitudes as fractions of the colour range (p 0.95 each).
    color_scale: constant factor. color_drop: probability of a scene without colour. dropout: probability of
    losing 20 % of the voxels (0.2 in the original's instance stage). shift: most voxels of the random move.
    A number that makes a step do nothing (0, factor 1) leaves it out.
    """
    angles = RotateScale.angles if rotation else (0.0, 0.0, 0.0)
    points = [
        (elastic, ElasticDistortion()),
        (rotation or tuple(scale) != (1, 1), RotateScale(angles, tuple(scale))),
    ]
    voxels = [
        (flip, Flip()),
        (auto_contrast, AutoContrast(auto_contrast)),
        (color_translation, ColorTranslation(color_translation)),
        (color_jitter, ColorJitter(color_jitter)),
        (color_scale != 1, ColorScale(color_scale)),
        (color_drop, ColorDrop(color_drop)),
        (dropout, Dropout(probability=dropout)),
        (shift, Shift(shift)),
    ]
    return Transforms(
        tuple(step for wanted, step in points if wanted), tuple(step for wanted, step in voxels if wanted)
    )


def validation_transforms() -> Transforms:
    """No augmentation: voxels of exactly floor(point / voxel_size)."""
    return Transforms()
