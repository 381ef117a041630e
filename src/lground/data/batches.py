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
    names: list[str]  # of the scenes
    sizes: list[int]  # voxels of each
    scenes: list[VoxelScene]  # stay on the CPU; empty where nobody asks for more than the above

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def halves(self) -> tuple["Batch", "Batch"]:
        """Its first scenes, and the others, of which there may be one less."""
        middle = (len(self.names) + 1) // 2
        row = sum(self.sizes[:middle])
        first = self._part(slice(row), slice(middle))
        second = self._part(slice(row, None), slice(middle, None))
        coordinates = second.coordinates - second.coordinates.new_tensor([middle, 0, 0, 0])
        return first, replace(second, coordinates=coordinates)

    def _part(self, rows: slice, scenes: slice) -> "Batch":
        lists = {name: getattr(self, name)[scenes] for name in ("names", "sizes", "scenes")}
        return replace(self._map(lambda tensor: tensor[rows]), **lists)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (called by torch's DataLoader where there is a GPU)."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        names = ("coordinates", "features", "labels", "instances", "attributes")
        return replace(self, **{name: function(getattr(self, name)) for name in names})


def collate(
    scenes: Sequence[VoxelScene],
    point_limit: int | None = None,
    scene_limit: int | None = None,
    whole: bool = True,
) -> list[Batch]:
    """Put the scenes of one step into micro-batches, in order, dropping none.

    A micro-batch holds at most `point_limit` voxels and `scene_limit` scenes; if `whole`, the scenes themselves, too.

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
    return [_batch(group, whole) for group in groups]


_reported = mmap.mmap(-1, 1)  # one byte shared with forked workers, so that the line below appears once


def _report_large(scene: VoxelScene, point_limit: int) -> None:
    if not _reported[0]:
        _reported[0] = 1
        say(
            f"{scene.name} has {len(scene)} voxels, more than the limit of {point_limit} points per batch: "
            "it runs alone, as will others like it; if memory runs out use larger voxels"
        )


def _batch(scenes: list[VoxelScene], whole: bool) -> Batch:
    colors = _joined([scene.colors for scene in scenes])
    return Batch(
        coordinates=_coordinates(scenes),
        features=colors.div_(255).sub_(0.5),
        labels=_joined([scene.labels for scene in scenes]),
        instances=_joined([scene.instances for scene in scenes]),
        attributes=_joined([scene.attributes for scene in scenes]),
        names=[scene.name for scene in scenes],
        sizes=[len(scene) for scene in scenes],
        scenes=scenes if whole else [],
    )


def _joined(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def _coordinates(scenes: list[VoxelScene]) -> Tensor:
    coordinates = np.empty((sum(map(len, scenes)), 4), dtype=np.int32)
    coordinates[:, 0] = np.repeat(np.arange(len(scenes)), [len(scene) for scene in scenes])
    np.concatenate([scene.coordinates for scene in scenes], out=coordinates[:, 1:])
    return torch.from_numpy(coordinates)
