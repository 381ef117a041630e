"""Run a model over labelled scenes and count: the one evaluator of training and of `lground evaluate`."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from lground.data import Batch
from lground.labels import LabelSet
from lground.metrics import confusion_matrix, semantic_scores
from lground.models import Model
from lground.sparse import SparseTensor


def sparse_input(batch: Batch) -> SparseTensor:
    """What the network takes of a batch."""
    return SparseTensor(batch.features, batch.coordinates)


class Confusion(NamedTuple):
    """Confusion matrices (C, C+1) int64 of the same predictions, counted in two ways."""

    vertex: Tensor  # per vertex of the scan, as ScanNet's benchmark counts
    voxel: Tensor  # per voxel, as the original system counts while training


@torch.no_grad()
def score(model: Model, batches: Iterable[list[Batch]], device: torch.device | str) -> Confusion:
    """Sum the confusion of `model`, as it stands on `device`, over all scenes of `batches`."""
    num_classes = len(model.label_set)
    vertex = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
    voxel = torch.zeros_like(vertex)
    for micro_batches in batches:
        for batch in micro_batches:
            logits, _ = model(sparse_input(batch.to(device)))
            prediction = logits.argmax(1).cpu()
            voxel += confusion_matrix(batch.labels, prediction, num_classes)
            for scene, of_scene in zip(
                batch.scenes, prediction.split([len(s) for s in batch.scenes]), strict=True
            ):
                labels = torch.from_numpy(scene.vertex_labels)
                vertex += confusion_matrix(labels, of_scene[torch.from_numpy(scene.inverse)], num_classes)
    return Confusion(vertex, voxel)


def summarize(confusion: Confusion, label_set: LabelSet) -> dict:
    """Both ways of counting, as written to `metrics.json`."""
    return {
        name: semantic_scores(matrix, label_set).as_dict() for name, matrix in confusion._asdict().items()
    }
