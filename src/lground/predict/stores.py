"""The scenes of a prepared store, one after another, as a model segments them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from lground.data import Voxels, build_reader
from lground.errors import InputError
from lground.instances import Grouping
from lground.models import Model
from lground.predict.segmentation import Segmentation, segment_voxels
from lground.predict.views import View, views_of
from lground.progress import track
from lground.scannet import PreparedScene, list_scenes, open_scene
from lground.scans import Scan, check_scan


def segment_scenes(
    model: Model,
    data: str | os.PathLike,
    split: str,
    device: torch.device | str = "cpu",
    workers: int = 0,
    *,
    views: int = 1,
    superpoints: bool = False,
    instances: bool = False,
    grouping: Grouping | None = None,
) -> Iterator[tuple[PreparedScene, Segmentation]]:
    """Each scene of `<data>/<split>` and what `segment` says of it, with progress shown; sorted by name.

    workers: processes that read and voxelise. superpoints: those of the store. The rest: `segment`.
    Raises InputError, at once where the model or the split is at fault, else at the scene.
    """
    if model.label_set.name not in ("scannet200", "scannet20"):
        raise InputError(
            f"{data}: holds ScanNet labels, the model knows the classes of {model.label_set.name}"
        )
    if instances:
        model.require_offsets()
    scenes = _SeenScenes(list_scenes(data, split), views_of(views, model.voxel_size)[::-1], model.voxel_size)

    options = dict(device=device, instances=instances, grouping=grouping)

    def segmented(scene: PreparedScene, voxels: list[Voxels]) -> Segmentation:
        patches = _superpoints(scene) if superpoints else None
        room = Scan(scene.coord, scene.color)
        try:
            return segment_voxels(
                model, room, scenes.views, voxels, model.voxel_size, superpoints=patches, **options
            )
        except InputError as error:
            raise InputError(f"{scene.folder}: {error}") from None

    reader = track(build_reader(scenes, workers), f"segment {split}", total=len(scenes))
    return ((scene, segmented(scene, voxels)) for scene, voxels in reader)


class _SeenScenes(Dataset):
    """Scenes and their voxels in each of some views."""

    def __init__(self, folders: Sequence[Path], views: Sequence[View], voxel_size: float) -> None:
        self.folders, self.views, self.voxel_size = folders, views, voxel_size

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> tuple[PreparedScene, list[Voxels]]:
        scene = open_scene(self.folders[index])
        points = np.asarray(scene.coord)
        check_scan(Scan(points), str(scene.folder))
        return scene, [view.voxelize(points, self.voxel_size) for view in self.views]


def _superpoints(scene: PreparedScene) -> np.ndarray:
    superpoints = np.asarray(scene.superpoint)
    if (superpoints < 0).all():
        raise InputError(
            f"{scene.folder}: has no superpoints; prepare the raw scene, or leave out --superpoints"
        )
    return superpoints
