"""Score a trained model on one split of a prepared store."""

import os

import numpy as np
import torch

from lground.errors import InputError
from lground.instances import Grouping
from lground.models import Model
from lground.predict.stores import segment_scenes
from lground.training.score import Evaluation, Found, ObjectEvaluation, Truth


def evaluate(
    model: Model,
    data: str | os.PathLike,
    split: str = "val",
    device: torch.device | str = "cpu",
    workers: int = 0,
    *,
    views: int = 1,
    superpoints: bool = False,
    instances: bool = False,
    grouping: Grouping | None = None,
) -> Evaluation:
    """What `segment` says of the scenes of `<data>/<split>`, counted per vertex and per voxel.

    views, superpoints, grouping: as `segment` takes them; superpoints are those of the store. A voxel counts with
    the labels of its first vertex. instances: count the objects, too; then an `ObjectEvaluation` is returned.
    Raises InputError when the split is missing, or labelled with other classes than the model knows, and for
    objects from a model that was not trained to tell them apart.
    """
    evaluation = (ObjectEvaluation if instances else Evaluation)(model.label_set)
    for scene, result in segment_scenes(
        model,
        data,
        split,
        device,
        workers,
        views=views,
        superpoints=superpoints,
        instances=instances,
        grouping=grouping,
    ):
        labels = np.asarray(scene.segment(model.label_set.name)).astype(np.int64)
        first = result.voxels.index
        evaluation.count(
            Truth(labels, np.asarray(scene.instance), labels[first]),
            Found(result.labels, result.labels[first], result.objects),
        )
    if not evaluation.confusion.vertex.any():
        raise InputError(
            f"{data}: its {split} scenes have no annotation to evaluate against; use --split val"
        )
    return evaluation
