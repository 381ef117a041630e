"""Run a model over labelled scenes and count: the one evaluator of training and of `lground evaluate`."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lground.data import Batch
from lground.instances import Grouping, find_objects
from lground.labels import LabelSet
from lground.metrics import InstanceEvaluator, confusion_matrix, semantic_scores, sum_over_processes
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


class Evaluation:
    """How right a model's classes are: mean IoU decides which weights are the best.

    `run` counts, on every process its own scenes; then `metrics`, called on every process, is over all of them.
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
                self.add(model, batch.to(device))

    def add(self, model: Model, batch: Batch) -> None:
        logits, _ = model(sparse_input(batch))
        self._count(batch, logits)

    def _count(self, batch: Batch, logits: Tensor) -> None:
        classes, prediction = len(self.label_set), logits.argmax(1).cpu()
        self.confusion.voxel.add_(confusion_matrix(batch.labels.cpu(), prediction, classes))
        sizes = [len(scene) for scene in batch.scenes]
        for scene, of_scene in zip(batch.scenes, prediction.split(sizes), strict=True):
            labels, inverse = torch.from_numpy(scene.vertex_labels), torch.from_numpy(scene.inverse)
            self.confusion.vertex.add_(confusion_matrix(labels, of_scene[inverse], classes))

    def metrics(self) -> dict:
        """What `metrics.json` holds."""
        return summarize(Confusion(*map(sum_over_processes, self.confusion)), self.label_set)

    def rank(self, metrics: dict) -> list[float] | None:
        """What the best weights have most of, the first number that differs decides; None: nothing was measured."""
        miou = metrics["vertex"]["means"]["all"]["mean_iou"]
        return None if miou is None else [miou]


class ObjectEvaluation(Evaluation):
    """How right a model's classes and objects are: AP50 decides, then mean IoU.

    Objects are found among the voxels of each scene by `grouping`, and compared on its vertices, as ScanNet's
    benchmark does.
    """

    def __init__(self, label_set: LabelSet, grouping: Grouping) -> None:
        super().__init__(label_set)
        self.grouping = grouping
        self.objects = InstanceEvaluator(label_set.ids[label_set.instance_class])

    def add(self, model: Model, batch: Batch) -> None:
        offsets, logits, _ = model.with_offsets(sparse_input(batch))
        self._count(batch, logits)
        probabilities = logits.float().softmax(1)
        points = (batch.coordinates[:, 1:] + 0.5) * model.voxel_size
        arrays = [values.float().cpu().numpy() for values in (points, offsets, probabilities)]
        cuts = np.cumsum([len(scene) for scene in batch.scenes])[:-1]
        for scene, *of_scene in zip(batch.scenes, *(np.split(array, cuts) for array in arrays), strict=True):
            found = find_objects(*of_scene, self.label_set.instance_class, self.grouping)
            found = found.on_vertices(scene.inverse)
            truth = ground_truth_ids(scene.vertex_labels, scene.vertex_instances, self.label_set)
            self.objects.add(truth, found.masks, self.label_set.ids[found.labels], found.scores)

    def metrics(self) -> dict:
        scores = self.objects.merged().scores()
        return super().metrics() | {"objects": scores.as_dict(self.label_set)}

    def rank(self, metrics: dict) -> list[float] | None:
        ap50, miou = metrics["objects"]["means"]["all"]["ap50"], super().rank(metrics)
        if ap50 is None:
            return miou and [-1.0, *miou]
        return [ap50, *(miou or [-1.0])]


def score(model: Model, batches: Iterable[list[Batch]], device: torch.device | str) -> Confusion:
    """Sum the confusion of `model`, as it stands on `device`, over all scenes of `batches`."""
    evaluation = Evaluation(model.label_set)
    evaluation.run(model, batches, device)
    return evaluation.confusion


def score_objects(
    model: Model, batches: Iterable[list[Batch]], device: torch.device | str, grouping: Grouping | None = None
) -> InstanceEvaluator:
    """Compare the objects that `model` finds with the true ones, on the vertices of all scenes of `batches`.

    grouping: by default that for voxels of the model's size. Raises InputError for a model without offsets.
    """
    evaluation = ObjectEvaluation(model.label_set, grouping or Grouping.for_voxels(model.voxel_size))
    evaluation.run(model, batches, device)
    return evaluation.objects


def summarize(confusion: Confusion, label_set: LabelSet) -> dict:
    """Both ways of counting, as written to `metrics.json`."""
    return {
        name: semantic_scores(matrix, label_set).as_dict() for name, matrix in confusion._asdict().items()
    }
