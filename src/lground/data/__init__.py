"""Prepared scenes in, training batches out: voxelise, augment, paste, mix, collate.

scene folder -> `SceneDataset` -> (transforms on vertices, `voxelize`, transforms on voxels) -> `VoxelScene`
-> `collate` -> list of `Batch`. `build_loader` puts it together for some epochs.
"""

from lground.data.attributes import Attributes
from lground.data.batches import Batch, collate
from lground.data.dataset import SceneDataset
from lground.data.loader import EpochSampler, SceneLoader, build_loader, build_reader
from lground.data.pasting import Paste
from lground.data.scenes import Sample, VoxelScene, voxelize_sample
from lground.data.transforms import Transforms, training_transforms, validation_transforms
from lground.data.voxels import Voxels, voxelize

__all__ = [
    "Attributes",
    "Batch",
    "EpochSampler",
    "Paste",
    "Sample",
    "SceneDataset",
    "SceneLoader",
    "Transforms",
    "VoxelScene",
    "Voxels",
    "build_loader",
    "build_reader",
    "collate",
    "training_transforms",
    "validation_transforms",
    "voxelize",
    "voxelize_sample",
]
