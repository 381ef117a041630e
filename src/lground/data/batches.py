"""Scenes side by side: tensors for the network, in micro-batches that fit in memory."""

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lground.data.scenes import VoxelScene
from lground.progress import say


@dataclass(frozen=True)
class Batch:
    """One or more scenes; the rows of scene i have coordinates[:, 0] == i and lie together, in order."""

    coordinates: Tensor  # (M, 4) int32: batch, x, y, z
    features: Tensor  # (M, 3) float32: colour / 255 - 0.5
    labels: Tensor  # (M,) int64, -1 ignored
    instances: Tensor  # (M,) int64, -1 none
    attributes: Tensor  # (M,) int64, 0 plain, 1 to 8 red, green, blue, yellow, dark, bright, big, small
    scenes: list[VoxelScene]  # stays on the CPU

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (called by torch's DataLoader where there is a GPU)."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        names = ("coordinates", "features", "labels", "instances", "attributes")
        return replace(self, **{name: function(getattr(self, name)) for name in names})


def collate(
    scenes: Sequence[VoxelScene], point_limit: int | None = None, scene_limit: int | None = None
) -> list[Batch]:
    """Put the scenes of one step into micro-batches, in order, dropping none.

    A micro-batch holds at most `point_limit` voxels and `scene_limit` scenes.

    The step accumulates gradients over the micro-batches. (The original drops what exceeds the limit.) A
    single scene above the limit is a micro-batch of its own; the first such scene is reported once.
    """
    groups: list[list[VoxelScene]] = []
    room = 0
    for scene in scenes:
        full = bool(groups) and len(groups[-1]) == scene_limit
        if not groups or full or (point_limit is not None and len(scene) > room):
            groups.append([])
            room = point_limit or 0
        if point_limit is not None and len(scene) > point_limit:
            _report_large(scene, point_limit)
        groups[-1].append(scene)
        room -= len(scene)
    return [_batch(group) for group in groups]


_reported = mmap.mmap(-1, 1)  # one byte shared with forked workers, so that the line below appears once


def _report_large(scene: VoxelScene, point_limit: int) -> None:
    if not _reported[0]:
        _reported[0] = 1
        say(
            f"{scene.name} has {len(scene)} voxels, more than the limit of {point_limit} points per batch: "
            "it runs alone, as will others like it; if memory runs out use larger voxels"
        )


def _batch(scenes: list[VoxelScene]) -> Batch:
    colors = _joined([scene.colors for scene in scenes])
    return Batch(
        coordinates=_coordinates(scenes),
        features=colors.div_(255).sub_(0.5),
        labels=_joined([scene.labels for scene in scenes]),
        instances=_joined([scene.instances for scene in scenes]),
        attributes=_joined([scene.attributes for scene in scenes]),
        scenes=scenes,
    )


def _joined(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def _coordinates(scenes: list[VoxelScene]) -> Tensor:
    coordinates = np.empty((sum(map(len, scenes)), 4), dtype=np.int32)
    coordinates[:, 0] = np.repeat(np.arange(len(scenes)), [len(scene) for scene in scenes])
    np.concatenate([scene.coordinates for scene in scenes], out=coordinates[:, 1:])
    return torch.from_numpy(coordinates)
