"""Prepared scenes as a data set whose items depend on (seed, epoch, index) alone."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from lground.data.attributes import Attributes, ChangeAttributes
from lground.data.mixing import mix as mix_scenes
from lground.data.objects import CLASSES, RareObjects
from lground.data.pasting import BACKGROUND, Paste, Pasting
from lground.data.reading import held_out, read_sample
from lground.data.scenes import Sample, VoxelScene
from lground.data.transforms import PointTransform, Transforms
from lground.errors import InputError
from lground.labels import load_labels
from lground.progress import track
from lground.scannet import list_scenes, open_bank, open_scene
from lground.scannet.store import scene_name


class SceneDataset(Dataset):
    """The scenes of one split of a prepared store, voxelised and augmented on access.

    root: folder with {train,val,test}/<scene>/.
    label_set: "scannet200" or "scannet20"; a scene without labels (the test split) has -1 throughout.
    annotation: a limited-annotation setting, for the train split only (other splits are always fully
        labelled): "object-0.05" or "scene-20" keep the labels of the annotated vertices, all others get
        label and instance -1; "scenes-0.10" keeps a list of scenes.
    hold_out: names of classes that the train split shows as unlabelled, points and objects, whatever the annotation.
    voxel_size: metres. reduce: "first", "majority" or "agreed", see `voxelize_sample`.
    transforms: `training_transforms(...)`; without, `validation_transforms()`.
    cache: keep all scenes in memory, loaded now and shared with worker processes; for small sets.
    paste: set rare objects of the store's bank into each scene, before all transforms (see `Pasting`).
    attributes: change colours and sizes of tail objects, pasted ones too, right after (see `ChangeAttributes`).
    mix: probability that another scene, augmented likewise, is laid into an item (see `mixing`). Mix3D pairs the
        scenes of a batch; here the other one is any other scene of the set, so that an item does not depend on
        what it is batched with. A batch then holds (1 + mix) times as many voxels.

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
        hold_out: Sequence[str] = (),
        voxel_size: float = 0.02,
        transforms: Transforms = Transforms(),  # noqa: B008 (immutable)
        reduce: str = "first",
        cache: bool = False,
        seed: int = 0,
        paste: Paste | None = None,
        attributes: Attributes | None = None,
        mix: float = 0.0,
    ) -> None:
        annotation = annotation if split == "train" else None
        by_scene = annotation is not None and annotation.startswith("scenes-")
        self.folders: list[Path] = list_scenes(root, split, subset=annotation if by_scene else None)
        self.annotation = None if by_scene else annotation
        self.label_set = label_set
        self.hold_out = held_out(label_set, hold_out) if split == "train" else ()
        self.voxel_size = voxel_size
        self.reduce = reduce
        self.seed = seed
        if not 0 <= mix <= 1 or (mix and len(self) < 2):
            raise InputError(
                f"{root}: {len(self)} {split} scenes, and data.mix={mix} needs two; give 0 to 1, or data.mix=0"
            )
        self.mix = mix
        added: list[PointTransform] = []
        if paste is not None and paste.count:
            added.append(self._pasting(root, paste, cache))
        if attributes is not None:
            if self.annotation is not None:
                raise InputError(
                    f"attributes.mode=raw changes whole objects, of which data.annotation={self.annotation} shows a "
                    "few points: set attributes.mode=latent, or all labels"
                )
            added.append(ChangeAttributes(attributes, _classes(label_set, "tail", "attributes.mode=none")))
        self.transforms = replace(transforms, points=(*added, *transforms.points))
        self._cache: list[Sample] | None = None
        if cache:
            self._cache = [
                self._load(i, copy=True) for i in track(range(len(self)), f"Loading {split} scenes")
            ]
        else:
            self._load(0)  # what all scenes lack is told now, before anything is written

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, address: tuple[int, int]) -> VoxelScene:
        epoch, index = address
        rng = np.random.default_rng([self.seed, epoch, index])
        scene = self._augmented(index, rng)
        if self.mix and rng.random() < self.mix:
            other = (index + rng.integers(1, len(self))) % len(self)
            scene = mix_scenes(scene, self._augmented(int(other), rng))
        return scene

    def class_counts(self, num_classes: int) -> np.ndarray:
        """Labelled vertices of each class, (num_classes,) int64, over all scenes as they are annotated."""
        counts = np.zeros(num_classes, dtype=np.int64)
        for index in track(range(len(self)), "Counting labels"):
            sample = self._sample(index)
            counts += np.bincount(sample.labels[sample.labels >= 0], minlength=num_classes)
        return counts

    def _augmented(self, index: int, rng: np.random.Generator) -> VoxelScene:
        sample = self._sample(index)
        try:
            return self.transforms(sample, rng, voxel_size=self.voxel_size, reduce=self.reduce)
        except InputError as error:
            raise InputError(f"{self.folders[index]}: {error}") from None

    def _sample(self, index: int) -> Sample:
        return self._cache[index] if self._cache is not None else self._load(index)

    def _load(self, index: int, copy: bool = False) -> Sample:
        sample = read_sample(
            open_scene(self.folders[index]), self.label_set, self.annotation, hold_out=self.hold_out
        )
        if not copy:  # the arrays stay on disk until read
            return sample
        return replace(sample, points=np.array(sample.points), colors=np.array(sample.colors))

    def _pasting(self, root: str | os.PathLike, paste: Paste, cache: bool) -> Pasting:
        labels = load_labels(self.label_set)
        wanted = [_classes(self.label_set, split, "paste.count=0") for split in CLASSES[paste.classes]]
        objects = RareObjects(
            open_bank(root),
            {scene_name(folder): folder for folder in self.folders},
            np.setdiff1d(np.concatenate(wanted), self.hold_out),
            label_set=self.label_set,
            annotation=self.annotation,
            weights=paste.weights,
            cache=cache,
        )
        background = np.array(
            [k for k, name in enumerate(labels.names) if name in BACKGROUND], dtype=np.int64
        )
        return Pasting(objects, paste.count, paste.tries, self.voxel_size, background)


def _classes(label_set: str, split: str, otherwise: str) -> np.ndarray:
    """The class indices of a split; InputError, which names the key to set otherwise, if there are none."""
    classes = load_labels(label_set).splits.get(split)
    if classes is None:
        raise InputError(f"{label_set}: has no {split} classes; use data.label_set=scannet200 or {otherwise}")
    return classes
