"""A scene on its way to a batch: first its vertices in metres, then its voxels."""

from dataclasses import dataclass, field

import numpy as np
import torch

from lground.data.voxels import mean_colors, most_frequent, voxelize
from lground.errors import InputError

REDUCTIONS = ("first", "majority", "agreed")


@dataclass(frozen=True)
class Sample:
    """A scene's vertices. Transforms return a new one; arrays are shared and never written to."""

    name: str
    points: np.ndarray  # (N, 3) float32, metres
    colors: np.ndarray  # (N, 3), 0..255
    labels: np.ndarray  # (N,) int16, class index, -1 ignored
    instances: np.ndarray  # (N,) int32, -1 none
    matrix: np.ndarray = field(default_factory=lambda: np.eye(3))  # (3, 3) rotation times scale, applied last
    attributes: np.ndarray = None  # (N,) int8, how a changed object looks, see `attributes.NAMES`; 0 plain

    def __post_init__(self) -> None:
        if self.attributes is None:  # nothing was said about it
            object.__setattr__(self, "attributes", np.zeros(len(self.points), dtype=np.int8))


@dataclass(frozen=True)
class VoxelScene:
    """A scene's voxels (M) and the way back to its vertices (N)."""

    name: str
    coordinates: np.ndarray  # (M, 3) int32, unique rows
    colors: np.ndarray  # (M, 3) float32, 0..255
    labels: np.ndarray  # (M,) int64, -1 ignored
    instances: np.ndarray  # (M,) int64, -1 none
    inverse: np.ndarray  # (N,) int64: vertex v lies in voxel inverse[v]; -1 if that voxel was dropped
    vertex_labels: np.ndarray  # (N,) int16, for metrics per vertex
    attributes: np.ndarray = None  # (M,) int64, 0 plain
    vertex_instances: np.ndarray = None  # (N,) int32, -1 none

    def __post_init__(self) -> None:
        if self.attributes is None:
            object.__setattr__(self, "attributes", np.zeros(len(self), dtype=np.int64))
        if self.vertex_instances is None:
            object.__setattr__(self, "vertex_instances", np.full(len(self.inverse), -1, dtype=np.int32))

    def __len__(self) -> int:
        return len(self.coordinates)

    # Pickled as tensors, which come from worker processes through shared memory and not through a pipe: a
    # tenth of the time that the training process spends on receiving a scene.
    def __getstate__(self) -> dict:
        return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    def __setstate__(self, state: dict) -> None:
        vars(self).update({k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in state.items()})


def voxelize_sample(sample: Sample, voxel_size: float, reduce: str) -> VoxelScene:
    """Turn vertices into voxels.

    reduce: "first": colour, label, instance and attribute are those of the voxel's first vertex in file order
    (the original's rule); "majority": the mean colour, the most frequent label among the vertices that have one,
    and the most frequent instance and attribute among the vertices of that label; ties go to what comes first in
    the file; "agreed": "first", but a voxel whose vertices differ in their label (an unlabelled one differs, too) is
    ignored, and one whose vertices differ in their instance, or that is ignored, has none (the rule of the
    original's instance stage; its code marks another voxel than the one that is mixed).
    """
    if reduce not in REDUCTIONS:
        raise InputError(f"reduce={reduce!r}: choose one of {', '.join(REDUCTIONS)}")
    voxels = voxelize(sample.points, voxel_size, matrix=sample.matrix)
    if reduce == "majority":
        count = len(voxels.index)
        colors = mean_colors(sample.colors, voxels.inverse, count)
        labels = most_frequent(sample.labels, voxels.inverse, count)
        same_label = sample.labels == labels[voxels.inverse]
        instances, attributes = (
            most_frequent(np.where(same_label, values, -1), voxels.inverse, count)
            for values in (sample.instances, sample.attributes)
        )
    else:
        colors = np.take(sample.colors, voxels.index, axis=0)
        labels, instances, attributes = (
            np.take(values, voxels.index).astype(np.int64)
            for values in (sample.labels, sample.instances, sample.attributes)
        )
    if reduce == "agreed":
        labels = _agreed(sample.labels, labels, voxels.inverse)
        instances = np.where(labels >= 0, _agreed(sample.instances, instances, voxels.inverse), -1)
    return VoxelScene(
        name=sample.name,
        coordinates=voxels.coordinates,
        colors=colors.astype(np.float32),
        labels=labels,
        instances=instances,
        inverse=voxels.inverse,
        vertex_labels=sample.labels,
        vertex_instances=sample.instances,
        attributes=attributes,
    )


def _agreed(values: np.ndarray, first: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """The value of each voxel (M,) that its first vertex has, -1 where another vertex has another; values (N,)."""
    agreed = first.copy()
    agreed[inverse[values != first[inverse]]] = -1
    return agreed
