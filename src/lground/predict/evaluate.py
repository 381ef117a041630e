"""Score a trained model on one split of a prepared store."""

import os

import torch

from lground.data import SceneDataset, build_loader
from lground.errors import InputError
from lground.models import Model
from lground.progress import track
from lground.training.score import Confusion, score


def evaluate(
    model: Model,
    data: str | os.PathLike,
    split: str = "val",
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Confusion:
    """Confusion of `model` over the scenes of `<data>/<split>`, per vertex and per voxel.

    Raises InputError when the split is missing, or labelled with other classes than the model knows.
    """
    if model.label_set.name not in ("scannet200", "scannet20"):
        raise InputError(
            f"{data}: holds ScanNet labels, the model knows the classes of {model.label_set.name}"
        )
    model = model.to(device).eval()
    dataset = SceneDataset(data, split, label_set=model.label_set.name, voxel_size=model.voxel_size)
    loader = build_loader(dataset, 1, workers=workers)
    batches = track(loader, f"evaluate {split}", total=len(dataset))
    confusion = score(model, batches, device)
    if not confusion.vertex.any():
        raise InputError(
            f"{data}: its {split} scenes have no annotation to evaluate against; use --split val"
        )
    return confusion
