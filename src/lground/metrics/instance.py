"""Average precision of objects by ScanNet's definition, from the vertices of all scenes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Union

import numpy as np
from torch import Tensor

from lground.metrics.arrays import finite_numbers, whole_numbers
from lground.metrics.instance_scores import InstanceScores
from lground.metrics.matching import ROW, THRESHOLDS, Overlaps, class_index, match, true_objects
from lground.metrics.processes import gather

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

Numbers = Tensor | np.ndarray
Masks = Union[Numbers, "sparray", "spmatrix"]


class InstanceEvaluator:
    """Scenes go in one after another; of each, only the points of its precision-recall curves are kept.

    class_ids: (C,) raw ids of the classes whose objects count, of ScanNet200: `labels.ids[labels.instance_class]`.
    All others, wall and floor among them, are void. min_vertices: smaller predictions are dropped, smaller true
    objects neither found nor missed. ScanNet counts per vertex from 100.
    """

    def __init__(self, class_ids: Numbers, min_vertices: int = 100) -> None:
        self.class_ids = whole_numbers(class_ids, "class_ids")
        if len(np.unique(self.class_ids)) != len(class_ids) or self.class_ids.min(initial=1) < 1:
            raise ValueError("class_ids must differ and be positive")
        if not len(self.class_ids) or min_vertices < 1:
            raise ValueError("there must be a class, and min_vertices of at least 1")
        self.min_vertices = min_vertices
        self._objects = np.zeros(len(self.class_ids), dtype=np.int64)
        self._rows: list[np.ndarray] = []

    def add(self, gt_ids: Numbers, masks: Masks, labels: Numbers, scores: Numbers) -> None:
        """Count one scene of N vertices and P predictions.

        gt_ids: (N,) true class * 1000 + number of the object; any id whose class is not in `class_ids` is void.
        masks: (P, N) bool or integers, where all but 0 belongs to the object; dense or scipy.sparse. labels: (P,)
        raw class ids; predictions of other classes are dropped. scores: (P,) finite. The order of the predictions
        matters at the threshold of 0.25 alone. Raises ValueError where shapes disagree, for ids that are floats
        and for scores that are not finite.
        """
        gt_ids = whole_numbers(gt_ids, "gt_ids")
        masks = _readable(masks, len(gt_ids))
        labels = whole_numbers(labels, "labels of the masks", masks.shape[0])
        scores = finite_numbers(scores, "scores of the masks", masks.shape[0])

        object_class, owner = true_objects(gt_ids, self.class_ids)
        sizes = np.bincount(owner, minlength=len(object_class) + 1)[:-1]
        label = class_index(labels, self.class_ids)
        shared = _shared(masks, owner, len(object_class) + 1)
        kept = (label >= 0) & (shared.sum(1) >= self.min_vertices)
        label, scores, shared = label[kept], scores[kept], shared[kept]
        overlaps = Overlaps(
            object_class, sizes, label, scores, shared.sum(1), shared=shared[:, :-1], void=shared[:, -1]
        )
        self._rows.append(match(overlaps, self.min_vertices))
        valid = object_class[sizes >= self.min_vertices]
        self._objects += np.bincount(valid, minlength=len(self.class_ids))

    def merged(self) -> "InstanceEvaluator":
        """An evaluator of the scenes of all processes of torch.distributed, the same on each; all must call it.

        A scene that a sampler repeats to even out the processes is counted repeatedly.
        """
        whole = InstanceEvaluator(self.class_ids, self.min_vertices)
        for objects, rows in gather((self._objects, self._joined())):
            whole._objects += objects
            whole._rows.append(rows)
        return whole

    def scores(self) -> InstanceScores:
        """Scores of the scenes so far; they depend neither on the order of the scenes nor on who counted them."""
        rows = self._joined()
        rows = rows[np.lexsort((-rows["score"], rows["threshold"], rows["class"]))]
        curve = rows["class"].astype(np.int64) * len(THRESHOLDS) + rows["threshold"]
        curves, starts = np.unique(curve, return_index=True)
        ends = np.append(starts, len(rows))[1:]
        table = np.zeros((len(self.class_ids), len(THRESHOLDS)))  # 0 where there is no row
        for place, start, end in zip(curves, starts, ends, strict=True):
            class_, threshold = divmod(place, len(THRESHOLDS))
            if self._objects[class_]:
                part = rows[start:end]
                table[class_, threshold] = _area(part["score"], part["right"], self._objects[class_])
        table[self._objects == 0] = np.nan
        return InstanceScores(self.class_ids, table, self._objects.copy())

    def _joined(self) -> np.ndarray:
        return np.concatenate([np.empty(0, dtype=ROW), *self._rows])


def instance_ap(
    scenes: Iterable[tuple[Numbers, Masks, Numbers, Numbers]],
    class_ids: Numbers,
    *,
    min_vertices: int = 100,
) -> InstanceScores:
    """ScanNet's average precision over scenes of (gt_ids (N,), masks (P, N), labels (P,), scores (P,)).

    See `InstanceEvaluator` for what these and `class_ids` hold.
    """
    evaluator = InstanceEvaluator(class_ids, min_vertices)
    for scene in scenes:
        evaluator.add(*scene)
    return evaluator.scores()


def _readable(masks: Masks, vertices: int) -> Masks:
    if hasattr(masks, "tocsr"):
        kind = masks.dtype
        masks = masks.astype(bool).tocsr()  # a copy, so that its entries may be put in order
        masks.sum_duplicates()
        masks.eliminate_zeros()
    else:
        masks = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
        kind = masks.dtype
    if masks.ndim != 2 or masks.shape[1] != vertices:
        raise ValueError(f"masks have the shape {tuple(masks.shape)}, not (P, {vertices}) as the scene")
    if kind.kind not in "biu" and masks.shape[0]:
        raise ValueError(f"masks must be bool or whole numbers, not {kind}")
    return masks


def _shared(masks: Masks, owner: np.ndarray, owners: int) -> np.ndarray:
    """Vertices that each mask has of each owner, (P, owners) int64; owner: (N,) of each vertex."""
    shared = np.zeros((masks.shape[0], owners), dtype=np.int64)
    for index in range(len(shared)):
        if isinstance(masks, np.ndarray):
            members = np.flatnonzero(masks[index])
        else:
            members = masks.indices[masks.indptr[index] : masks.indptr[index + 1]]
        shared[index] = np.bincount(owner[members], minlength=owners)
    return shared


def _area(scores: np.ndarray, right: np.ndarray, objects: int) -> float:
    """Area below the precision-recall curve of rows by decreasing score, by trapezoids from recall 0, precision 1.

    One point per distinct score. The curve ends at its last point and is not made monotone.
    """
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    hits = np.cumsum(right)[last]
    recall = np.concatenate([[0], hits / objects])
    precision = np.concatenate([[1], hits / (last + 1)])
    return float((np.diff(recall) * (precision[1:] + precision[:-1]) / 2).sum())
