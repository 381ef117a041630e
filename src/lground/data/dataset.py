"""Prepared scenes as a data set whose items depend on (seed, epoch, index) alone."""

import os
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from lground.data.scenes import Sample, VoxelScene
from lground.data.transforms import Transforms
from lground.errors import InputError
from lground.progress import track
from lground.scannet import PreparedScene, list_scenes, open_scene


class SceneDataset(Dataset):
    """The scenes of one split of a prepared store, voxelised and augmented on access.

    root: folder with {train,val,test}/<scene>/.
    label_set: "scannet200" or "scannet20"; a scene without labels (the test split) has -1 throughout.
    annotation: a limited-annotation setting, for the train split only (other splits are always fully
        labelled): "object-0.05" or "scene-20" keep the labels of the annotated vertices, all others get
        label and instance -1; "scenes-0.10" keeps a list of scenes.
    voxel_size: metres. reduce: "first" or "majority", see `voxelize_sample`.
    transforms: `training_transforms(...)`; without, `validation_transforms()`.
    cache: keep all scenes in memory, loaded now and shared with worker processes; for small sets.

    dataset[epoch, index] draws from np.random.default_rng([seed, epoch, index]), so an item does not depend
    on who loads it or when.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        *,
        label_set: str = "scannet200",
        annotation: str | None = None,
        voxel_size: float = 0.02,
        transforms: Transforms = Transforms(),  # noqa: B008 (immutable)
        reduce: str = "first",
        cache: bool = False,
        seed: int = 0,
    ) -> None:
        annotation = annotation if split == "train" else None
        by_scene = annotation is not None and annotation.startswith("scenes-")
        self.folders: list[Path] = list_scenes(root, split, subset=annotation if by_scene else None)
        self.annotation = None if by_scene else annotation
        self.label_set = label_set
        self.voxel_size = voxel_size
        self.transforms = transforms
        self.reduce = reduce
        self.seed = seed
        self._cache: list[Sample] | None = None
        if cache:
            self._cache = [
                self._load(i, copy=True) for i in track(range(len(self)), f"Loading {split} scenes")
            ]

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, address: tuple[int, int]) -> VoxelScene:
        epoch, index = address
        sample = self._cache[index] if self._cache is not None else self._load(index)
        rng = np.random.default_rng([self.seed, epoch, index])
        try:
            return self.transforms(sample, rng, voxel_size=self.voxel_size, reduce=self.reduce)
        except InputError as error:
            raise InputError(f"{self.folders[index]}: {error}") from None

    def class_counts(self, num_classes: int) -> np.ndarray:
        """Labelled vertices of each class, (num_classes,) int64, over all scenes as they are annotated."""
        counts = np.zeros(num_classes, dtype=np.int64)
        for index in track(range(len(self)), "Counting labels"):
            sample = self._cache[index] if self._cache is not None else self._load(index)
            counts += np.bincount(sample.labels[sample.labels >= 0], minlength=num_classes)
        return counts

    def _load(self, index: int, copy: bool = False) -> Sample:
        scene = open_scene(self.folders[index])
        read = np.array if copy else np.asarray  # without a copy the arrays stay on disk until read
        labels, instances = self._annotation_of(scene)
        return Sample(scene.name, read(scene.coord), read(scene.color), labels, instances)

    def _annotation_of(self, scene: PreparedScene) -> tuple[np.ndarray, np.ndarray]:
        labels = np.asarray(scene.segment(self.label_set)).astype(np.int64)
        instances = np.asarray(scene.instance).astype(np.int64)
        annotated = scene.annotated(self.annotation)
        if annotated is not None:
            labels[~annotated] = -1
            instances[~annotated] = -1
        return labels, instances
