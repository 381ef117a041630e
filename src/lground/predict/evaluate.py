"""Score a trained model on one split of a prepared store."""

import os
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from lground.data import SceneDataset, Transforms, VoxelScene, build_loader
from lground.errors import InputError
from lground.metrics import confusion_matrix
from lground.models import Model
from lground.predict.views import views_of
from lground.predict.votes import Votes, vertex_groups
from lground.progress import track
from lground.scannet import open_scene
from lground.training.score import Confusion, score, sparse_input


def evaluate(
    model: Model,
    data: str | os.PathLike,
    split: str = "val",
    device: torch.device | str = "cpu",
    workers: int = 0,
    *,
    views: int = 1,
    superpoints: bool = False,
) -> Confusion:
    """Confusion of `model` over the scenes of `<data>/<split>`, per vertex and per voxel.

    views: average the probabilities of each vertex over this many views of its scene (`views_of`). superpoints:
    the vertices of a superpoint take the class with the highest mean probability in it. A voxel then counts with
    the label of its first vertex.
    Raises InputError when the split is missing, or labelled with other classes than the model knows.
    """
    if model.label_set.name not in ("scannet200", "scannet20"):
        raise InputError(
            f"{data}: holds ScanNet labels, the model knows the classes of {model.label_set.name}"
        )
    model = model.to(device).eval()
    common = dict(label_set=model.label_set.name, voxel_size=model.voxel_size)
    if views == 1 and not superpoints:
        dataset = SceneDataset(data, split, **common)
        loader = build_loader(dataset, 1, workers=workers)
        confusion = score(model, track(loader, f"evaluate {split}", total=len(dataset)), device)
    else:
        seen = [
            SceneDataset(data, split, transforms=Transforms((view,)), **common)
            for view in reversed(views_of(views, model.voxel_size))  # the plain one last
        ]
        confusion = _score_votes(model, _InTurn(seen), superpoints, device, workers)
    if not confusion.vertex.any():
        raise InputError(
            f"{data}: its {split} scenes have no annotation to evaluate against; use --split val"
        )
    return confusion


class _InTurn(Dataset):
    """All views of the first scene, then all of the second and so on."""

    def __init__(self, views: list[SceneDataset]) -> None:
        self.views, self.folders = views, views[0].folders

    def __len__(self) -> int:
        return len(self.views) * len(self.folders)

    def __getitem__(self, address: tuple[int, int]) -> VoxelScene:
        epoch, index = address
        return self.views[index % len(self.views)][epoch, index // len(self.views)]


@torch.no_grad()
def _score_votes(
    model: Model, dataset: _InTurn, superpoints: bool, device: torch.device | str, workers: int
) -> Confusion:
    """`score`, with the votes of all views and, if asked for, of superpoints."""
    classes = len(model.label_set)
    vertex = torch.zeros(classes, classes + 1, dtype=torch.int64)
    voxel = torch.zeros_like(vertex)
    loader = iter(track(build_loader(dataset, 1, workers=workers), "evaluate", total=len(dataset)))
    for folder in dataset.folders:
        votes = Votes(_groups(folder, superpoints), classes)
        for (batch,) in islice(loader, len(dataset.views)):
            (scene,) = batch.scenes
            votes.add(model(sparse_input(batch.to(device)))[0], scene.inverse)
        labels, _ = votes.winners()
        vertex += _confusion(scene.vertex_labels, labels, classes)
        first = np.unique(scene.inverse, return_index=True)[1]  # vertex of each voxel, in the plain view
        voxel += _confusion(scene.labels, labels[first], classes)
    return Confusion(vertex, voxel)


def _groups(folder: Path, superpoints: bool) -> np.ndarray:
    scene = open_scene(folder)
    if not superpoints:
        return vertex_groups(len(scene), None)
    if (scene.superpoint < 0).all():
        raise InputError(f"{folder}: has no superpoints; prepare the raw scene, or leave out --superpoints")
    return vertex_groups(len(scene), scene.superpoint)


def _confusion(target: np.ndarray, prediction: np.ndarray, classes: int) -> torch.Tensor:
    return confusion_matrix(torch.from_numpy(target), torch.from_numpy(prediction), classes)
