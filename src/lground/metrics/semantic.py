"""Semantic segmentation scores by ScanNet's definitions, all from one confusion matrix.

The matrices of scenes, batches and processes are added and scored once: an IoU of sums, not a mean of IoUs.
Points may be the vertices of a mesh (as the benchmark counts) or voxels (as training does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lground.metrics.told import or_none, percent

if TYPE_CHECKING:
    from lground.labels import LabelSet

Array = Tensor | np.ndarray | Sequence[int]


def confusion_matrix(target: Array, prediction: Array, num_classes: int) -> Tensor:
    """Count the points of every true class by what was predicted: (num_classes, num_classes + 1) int64.

    target, prediction: class indices (N,), any integer type, tensors or arrays. Row: true class; column:
    predicted class, the last one for predictions outside 0 ... num_classes - 1. Points whose target is
    outside (-1: not annotated) are skipped, whatever was predicted. On the device of `target`. Raises
    ValueError on unequal lengths and on floats.
    """
    target = _indices(target)
    prediction = _indices(prediction).to(target.device)
    if len(target) != len(prediction):
        raise ValueError(f"{len(prediction)} predictions for {len(target)} targets")
    counted = (target >= 0) & (target < num_classes)
    row, column = target[counted], prediction[counted]
    column = torch.where((column >= 0) & (column < num_classes), column, num_classes)
    shape = (num_classes, num_classes + 1)
    return torch.bincount(row * shape[1] + column, minlength=shape[0] * shape[1]).reshape(shape)


def _indices(values: Array) -> Tensor:
    values = (
        values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    )  # memory maps: copied
    if values.is_floating_point() and len(values):
        raise ValueError(f"class indices must be integers, not {values.dtype}")
    return values.reshape(-1).long()


def sum_over_processes(matrix: Tensor) -> Tensor:
    """The sum of this matrix over all processes of torch.distributed, on every one; unchanged when there is
    one.

    Every process must call it. Scenes that a sampler repeats to even out the processes are counted
    repeatedly: give evaluation a sampler that does not.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return matrix
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = matrix.to(device, copy=True)
    dist.all_reduce(total)
    return total.to(matrix.device)


@dataclass(frozen=True)
class SemanticScores:
    """Scores of one confusion matrix (C, C + 1); make them with `semantic_scores`.

    Scores are fractions in 0 ... 1 and NaN where undefined.
    """

    matrix: np.ndarray
    label_set: LabelSet

    @cached_property
    def points(self) -> np.ndarray:
        """True points of each class (C,) int64."""
        return self.matrix.sum(1)

    @cached_property
    def iou(self) -> np.ndarray:
        """TP / (TP + FP + FN) of each class (C,) float64; NaN for a class neither true nor predicted at any
        point.

        A prediction outside the classes is a miss of the true class (FN) and of no other.
        """
        hit = self.matrix.diagonal()
        return _ratio(hit, self.points + self.matrix[:, : len(hit)].sum(0) - hit)

    @cached_property
    def class_accuracy(self) -> np.ndarray:
        """TP / (TP + FN), the recall, of each class (C,) float64; NaN for a class without true points."""
        return _ratio(self.matrix.diagonal(), self.points)

    @property
    def accuracy(self) -> float:
        """Share of all true points that are right."""
        return float(_ratio(self.matrix.diagonal().sum(), self.points.sum()))

    @property
    def present(self) -> np.ndarray:
        """Classes with at least one true point (C,) bool."""
        return self.points > 0

    def mean_iou(self, split: str | None = None) -> float:
        """Mean IoU over the classes present, or those of a split ("head", "common", "tail") that are."""
        return _mean(self.iou[self._classes(split) & self.present])

    def mean_iou_all(self, split: str | None = None) -> float:
        """Mean IoU over all classes, an absent one counting 0, as the original's tables: at most 189/200 on
        val."""
        return _mean(np.nan_to_num(self.iou[self._classes(split)]))

    def mean_accuracy(self, split: str | None = None) -> float:
        """Mean class accuracy (mAcc) over the classes present."""
        return _mean(self.class_accuracy[self._classes(split) & self.present])

    def _classes(self, split: str | None) -> np.ndarray:
        chosen = np.full(len(self.matrix), split is None)
        if split is not None:
            chosen[self.label_set.splits[split]] = True
        return chosen

    def as_dict(self) -> dict[str, Any]:
        """Everything but the matrix, for JSON; undefined scores are None."""
        groups: dict[str | None, str] = {None: "all", **{s: s for s in self.label_set.splits}}
        return {
            "label_set": self.label_set.name,
            "points": int(self.points.sum()),
            "accuracy": or_none(self.accuracy),
            "means": {
                name: {
                    "classes": int(self._classes(split).sum()),
                    "classes_present": int((self._classes(split) & self.present).sum()),
                    "mean_iou": or_none(self.mean_iou(split)),
                    "mean_iou_all": or_none(self.mean_iou_all(split)),
                    "mean_accuracy": or_none(self.mean_accuracy(split)),
                }
                for split, name in groups.items()
            },
            "classes": [
                {"name": name, "points": int(n), "iou": or_none(iou), "accuracy": or_none(accuracy)}
                for name, n, iou, accuracy in zip(
                    self.label_set.names, self.points, self.iou, self.class_accuracy, strict=True
                )
            ],
        }

    def lines(self) -> list[str]:
        """The means in percent, one line per split, for a terminal or a log."""
        lines = [f"{'':<8}{'mIoU':>7}{'mIoU*':>7}{'mAcc':>7}   classes present"]
        for split in (None, *self.label_set.splits):
            chosen = self._classes(split)
            scores = (self.mean_iou(split), self.mean_iou_all(split), self.mean_accuracy(split))
            lines.append(
                f"{split or 'all':<8}"
                + "".join(percent(s) for s in scores)
                + f"   {(chosen & self.present).sum()} of {chosen.sum()}"
            )
        lines.append(f"accuracy {100 * self.accuracy:.2f} % of {self.points.sum()} points")
        lines.append("mIoU: over the classes present; mIoU*: over all classes, absent ones as 0")
        return lines

    def table(self) -> str:
        """IoU and accuracy in percent of every class that is true or predicted anywhere, then the means."""
        width = max(map(len, self.label_set.names))
        rows = [f"{'class':<{width}}{'IoU':>7}{'acc':>7}{'points':>12}"]
        rows += [
            f"{name:<{width}}{percent(iou)}{percent(accuracy)}{n:>12}"
            for name, iou, accuracy, n in zip(
                self.label_set.names, self.iou, self.class_accuracy, self.points, strict=True
            )
            if not np.isnan(iou)
        ]
        return "\n".join([*rows, "", *self.lines()])


def semantic_scores(matrix: Tensor | np.ndarray, label_set: LabelSet) -> SemanticScores:
    """Scores of a confusion matrix (C, C + 1) of the C classes of `label_set`, or of a sum of such
    matrices."""
    matrix = matrix.cpu().numpy() if isinstance(matrix, Tensor) else np.asarray(matrix)
    classes = len(label_set)
    if matrix.shape != (classes, classes + 1):
        raise ValueError(
            f"confusion matrix is {matrix.shape}, {label_set.name} needs {(classes, classes + 1)}"
        )
    return SemanticScores(matrix.astype(np.int64), label_set)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
