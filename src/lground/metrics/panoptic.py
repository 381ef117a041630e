"""Panoptic quality: every vertex in one object or one class of stuff, and how well these are found.

Kirillov, He, Girshick, Rother, Dollár, Panoptic Segmentation, CVPR 2019, section 4: matching, treatment of void,
equation 1 (PQ) and its factors SQ and RQ.
"""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lground.metrics.arrays import whole_numbers
from lground.metrics.panoptic_scores import PanopticScores
from lground.metrics.processes import gather

if TYPE_CHECKING:
    from lground.labels import LabelSet

Numbers = Tensor | np.ndarray

# A predicted segment that matches a true one of its class, and their IoU.
HIT = np.dtype([("class", np.int64), ("iou", np.float64)])


class PanopticEvaluator:
    """Scenes go in one after another; of each, only the IoUs of matches and the counts of errors are kept.

    The classes of `label_set` with objects (`instance_class`) are things, the others stuff.
    """

    def __init__(self, label_set: "LabelSet") -> None:
        self.label_set = label_set
        self._surplus = np.zeros(len(label_set), dtype=np.int64)
        self._missed = np.zeros(len(label_set), dtype=np.int64)
        self._hits: list[np.ndarray] = []

    def add(
        self, target_labels: Numbers, target_instances: Numbers, labels: Numbers, instances: Numbers
    ) -> None:
        """Count one scene of N vertices.

        target_labels, labels: (N,) class index, true and predicted, -1 for void. target_instances, instances: (N,)
        number of the object, -1 for none, any numbers otherwise. A segment is the vertices of things with the same
        class and number, or all vertices of one class of stuff, whatever their numbers. A vertex of things without
        a number is void. Raises ValueError for unequal lengths, floats, and class indices that do not exist.
        """
        target_labels = whole_numbers(target_labels, "target_labels")
        count = len(target_labels)
        target_class, target = self._segments(
            target_labels, whole_numbers(target_instances, "target_instances", count)
        )
        found_class, found = self._segments(
            whole_numbers(labels, "labels", count), whole_numbers(instances, "instances", count)
        )
        shape = len(target_class) + 1, len(found_class) + 1  # the last of each: void
        table = np.bincount(target * shape[1] + found, minlength=shape[0] * shape[1]).reshape(shape)
        shared, void = table[:-1, :-1], table[-1, :-1]
        size = table[:-1].sum(1, keepdims=True)
        union = size + shared.sum(0) - shared  # without the true void
        same_class = target_class[:, None] == found_class
        # Segments do not overlap, so that each has at most one partner above a half.
        hit_target, hit_found = np.nonzero(same_class & (2 * shared > union))
        iou = shared[hit_target, hit_found] / union[hit_target, hit_found]
        missed, surplus = np.ones(len(target_class), dtype=bool), 2 * void <= table[:, :-1].sum(0)
        missed[hit_target], surplus[hit_found] = False, False

        hits = np.empty(len(iou), dtype=HIT)
        hits["class"], hits["iou"] = target_class[hit_target], iou
        self._hits.append(hits)
        self._missed += np.bincount(target_class[missed], minlength=len(self.label_set))
        self._surplus += np.bincount(found_class[surplus], minlength=len(self.label_set))

    def merged(self) -> "PanopticEvaluator":
        """An evaluator of the scenes of all processes of torch.distributed, the same on each; all must call it.

        A scene that a sampler repeats to even out the processes is counted repeatedly.
        """
        whole = PanopticEvaluator(self.label_set)
        for surplus, missed, hits in gather((self._surplus, self._missed, self._joined())):
            whole._surplus += surplus
            whole._missed += missed
            whole._hits.append(hits)
        return whole

    def scores(self) -> PanopticScores:
        """Scores of the scenes so far; they depend neither on the order of the scenes nor on who counted them."""
        hits = np.sort(self._joined(), order=["class", "iou"])  # sums of floats depend on their order
        classes = len(self.label_set)
        return PanopticScores(
            self.label_set,
            hits=np.bincount(hits["class"], minlength=classes),
            iou_sum=np.bincount(hits["class"], hits["iou"], minlength=classes).astype(np.float64),
            surplus=self._surplus.copy(),
            missed=self._missed.copy(),
        )

    def _joined(self) -> np.ndarray:
        return np.concatenate([np.empty(0, dtype=HIT), *self._hits])

    def _segments(self, labels: np.ndarray, instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class of each segment, (S,) int64, and segment of each vertex, (N,) int64, S for void."""
        classes = len(self.label_set)
        if labels.max(initial=-1) >= classes:
            raise ValueError(
                f"class index {labels.max()}: {self.label_set.name} has {classes} classes, 0 ... {classes - 1}"
            )
        thing = self.label_set.instance_class[labels]  # of void: not looked at
        real = (labels >= 0) & ~(thing & (instances < 0))
        numbers, number = np.unique(np.where(thing, instances, 0)[real], return_inverse=True)
        keys, segment = np.unique(labels[real] * len(numbers) + number, return_inverse=True)
        of_vertex = np.full(len(labels), len(keys))
        of_vertex[real] = segment
        return keys // max(len(numbers), 1), of_vertex
