"""Count how right a model is, scene by scene: the one evaluator of training and of `lground evaluate`."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lground.data import Batch
from lground.instances import Grouping, Objects, find_on_vertices, panoptic
from lground.labels import LabelSet
from lground.metrics import (
    InstanceEvaluator,
    PanopticEvaluator,
    confusion_matrix,
    semantic_scores,
    sum_over_processes,
)
from lground.models import Model
from lground.scannet.benchmark import ground_truth_ids
from lground.sparse import SparseTensor


def sparse_input(batch: Batch) -> SparseTensor:
    """What the network takes of a batch."""
    return SparseTensor(batch.features, batch.coordinates)


class Confusion(NamedTuple):
    """Confusion matrices (C, C+1) int64 of the same predictions, counted in two ways."""

    vertex: Tensor  # per vertex of the scan, as ScanNet's benchmark counts
    voxel: Tensor  # per voxel, as the original system counts while training


class Truth(NamedTuple):
    """What is known of a scene of N vertices in M voxels."""

    labels: np.ndarray  # (N,) class index, -1 unlabelled
    instances: np.ndarray  # (N,) number of the object, -1 none
    voxel_labels: np.ndarray  # (M,) class index, -1 ignored


class Found(NamedTuple):
    """What a model says of it."""

    labels: np.ndarray  # (N,) class index
    voxel_labels: np.ndarray  # (M,) class index
    objects: Objects | None = None  # among the N vertices


class Evaluation:
    """How right a model's classes are: mean IoU decides which weights are the best.

    Scenes are counted, on every process its own; then `metrics`, called on every process, is over all of them.
    """

    def __init__(self, label_set: LabelSet) -> None:
        self.label_set = label_set
        shape = len(label_set), len(label_set) + 1
        self.confusion = Confusion(*(torch.zeros(shape, dtype=torch.int64) for _ in Confusion._fields))

    @torch.no_grad()
    def run(self, model: Model, batches: Iterable[list[Batch]], device: torch.device | str) -> None:
        """Count all scenes of `batches`, by `model` as it stands on `device`."""
        for micro_batches in batches:
            for batch in micro_batches:
                for scene, found in zip(batch.scenes, self.look(model, batch.to(device)), strict=True):
                    truth = Truth(scene.vertex_labels, scene.vertex_instances, scene.labels)
                    self.count(truth, found)

    def look(self, model: Model, batch: Batch) -> list[Found]:
        """What `model` finds in each scene of a batch."""
        logits, _ = model(sparse_input(batch))
        return _labels_found(batch, logits)

    def count(self, truth: Truth, found: Found) -> None:
        """Count one scene."""
        classes = len(self.label_set)
        for name, matrix in self.confusion._asdict().items():
            field = "labels" if name == "vertex" else "voxel_labels"
            matrix.add_(confusion_matrix(getattr(truth, field), getattr(found, field), classes))

    def metrics(self) -> dict:
        """What `metrics.json` holds."""
        confusion = Confusion(*map(sum_over_processes, self.confusion))
        return {
            name: semantic_scores(matrix, self.label_set).as_dict()
            for name, matrix in confusion._asdict().items()
        }

    def rank(self, metrics: dict) -> list[float] | None:
        """What the best weights have most of, the first number that differs decides; None: nothing was measured."""
        miou = metrics["vertex"]["means"]["all"]["mean_iou"]
        return None if miou is None else [miou]

    def text(self) -> str:
        """The scores per vertex of this process's scenes, as tables."""
        return semantic_scores(self.confusion.vertex, self.label_set).table()


class ObjectEvaluation(Evaluation):
    """How right a model's classes and objects are: AP50 decides, then mean IoU.

    Objects are compared on vertices, as ScanNet's benchmark does: as they are found, for average precision, and with
    each vertex in one of them or in stuff (`panoptic`), for panoptic quality.
    """

    def __init__(self, label_set: LabelSet) -> None:
        super().__init__(label_set)
        self.objects = InstanceEvaluator(label_set.ids[label_set.instance_class])
        self.panoptic = PanopticEvaluator(label_set)

    def look(self, model: Model, batch: Batch) -> list[Found]:
        """Objects are found by the grouping for voxels of the model's size (`Grouping.for_voxels`)."""
        offsets, logits, _ = model.with_offsets(sparse_input(batch))
        probabilities = logits.float().softmax(1)
        centers = (batch.coordinates[:, 1:] + 0.5) * model.voxel_size
        arrays = [values.float().cpu().numpy() for values in (centers, offsets, probabilities)]
        cuts = np.cumsum([len(scene) for scene in batch.scenes])[:-1]
        of_scenes = zip(*(np.split(array, cuts) for array in arrays), strict=True)
        grouping = Grouping.for_voxels(model.voxel_size)
        return [
            found._replace(
                objects=find_on_vertices(*of_scene, self.label_set.instance_class, grouping, scene.inverse)
            )
            for found, scene, of_scene in zip(
                _labels_found(batch, logits), batch.scenes, of_scenes, strict=True
            )
        ]

    def count(self, truth: Truth, found: Found) -> None:
        super().count(truth, found)
        objects, ids = found.objects, self.label_set.ids
        true_ids = ground_truth_ids(truth.labels, truth.instances, self.label_set)
        self.objects.add(true_ids, objects.masks, ids[objects.labels], objects.scores)
        each_once = panoptic(objects, found.labels, self.label_set.instance_class)
        self.panoptic.add(truth.labels, truth.instances, *each_once)

    def metrics(self) -> dict:
        objects, segments = self.objects.merged().scores(), self.panoptic.merged().scores()
        return super().metrics() | {
            "objects": objects.as_dict(self.label_set),
            "panoptic": segments.as_dict(),
        }

    def rank(self, metrics: dict) -> list[float] | None:
        ap50, miou = metrics["objects"]["means"]["all"]["ap50"], super().rank(metrics)
        if ap50 is None:
            return miou and [-1.0, *miou]
        return [ap50, *(miou or [-1.0])]

    def text(self) -> str:
        objects, segments = self.objects.scores(), self.panoptic.scores()
        return "\n\n".join([super().text(), objects.text(self.label_set), segments.text()])


def _labels_found(batch: Batch, logits: Tensor) -> list[Found]:
    """The class of the best logit (M, C) for each voxel, and for the vertices in it, scene by scene."""
    sizes = [len(scene) for scene in batch.scenes]
    of_scenes = logits.argmax(1).cpu().split(sizes)
    return [
        Found(labels[scene.inverse], labels)
        for scene, labels in zip(batch.scenes, map(Tensor.numpy, of_scenes), strict=True)
    ]
