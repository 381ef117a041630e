"""Predicted objects of one scene against the true ones, by ScanNet's rules.

A true object is the set of all vertices with one id, class * 1000 + number. Vertices of any other id are void.
IoUs are over full counts: void vertices of a prediction count in its union.
"""

from dataclasses import dataclass

import numpy as np

# In the order of ScanNet's tables. As decimals: an IoU that equals a threshold as a fraction also does as a float.
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.25)

# One point of a precision-recall curve to be: a score at a threshold (its place), right or wrong.
ROW = np.dtype([("class", np.int32), ("threshold", np.int8), ("score", np.float64), ("right", np.bool_)])


@dataclass(frozen=True)
class Overlaps:
    """K true objects, by increasing id, and P predictions of one scene; classes as indices."""

    object_class: np.ndarray  # (K,) int64
    object_size: np.ndarray  # (K,) int64 vertices
    label: np.ndarray  # (P,) int64
    score: np.ndarray  # (P,) float64
    size: np.ndarray  # (P,) int64 vertices, at least 1
    shared: np.ndarray  # (P, K) int64 vertices in both
    void: np.ndarray  # (P,) int64 void vertices


def true_objects(gt_ids: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class index of each true object, (K,) int64, by increasing id; object of each vertex, (N,) int64, K for void.

    gt_ids: (N,) int64. class_ids: (C,) raw ids.
    """
    ids, of_vertex = np.unique(gt_ids, return_inverse=True)
    classes = class_index(ids // 1000, class_ids)
    real = classes >= 0
    number = np.where(real, np.cumsum(real) - 1, real.sum())
    return classes[real], number[of_vertex]


def class_index(raw_ids: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Place of each raw id in `class_ids`, (n,) int64; -1 where it is not among them."""
    order = np.argsort(class_ids)
    place = np.searchsorted(class_ids, raw_ids, sorter=order).clip(max=len(class_ids) - 1)
    return np.where(class_ids[order[place]] == raw_ids, order[place], -1)


def match(overlaps: Overlaps, min_vertices: int) -> np.ndarray:
    """Rows of the curves of one scene, (R,) ROW. Objects of fewer vertices are neither found nor missed."""
    o = overlaps
    small = o.object_size < min_vertices
    same_class = o.label[:, None] == o.object_class
    iou = o.shared / (o.size[:, None] + o.object_size - o.shared)
    # By object, then in the order of the predictions, which decides who is first at 0.25.
    objects, predictions = np.nonzero((same_class & (iou > min(THRESHOLDS))).T)
    iou = iou[predictions, objects]
    ignorable = (o.void + (o.shared * (same_class & small)).sum(1)) / o.size

    rows: list[tuple[int, int, float, bool]] = []
    for place, threshold in enumerate(THRESHOLDS):
        hits = iou > threshold
        valid = hits & ~small[objects]
        found, surplus = _assign(objects[valid].tolist(), predictions[valid].tolist(), o.score.tolist())
        rows += [(o.object_class[k], place, score, True) for k, score in found.items()]
        rows += [(o.object_class[k], place, score, False) for k, score in surplus]
        wrong = ignorable <= threshold
        wrong[predictions[hits]] = False  # a small object, or one already found, absorbs what hits it
        rows += [(o.label[p], place, o.score[p], False) for p in np.flatnonzero(wrong)]
    return np.array(rows, dtype=ROW)


def _assign(
    objects: list[int], predictions: list[int], scores: list[float]
) -> tuple[dict[int, float], list[tuple[int, float]]]:
    """Score of each object found, and (object, score) of what is left over, from the pairs that hit.

    The first hit uses its prediction up. Further ones do not, even where their higher score is the one kept: at a
    threshold below 0.5 they may hit another object too.
    """
    found: dict[int, float] = {}
    surplus: list[tuple[int, float]] = []
    used: set[int] = set()
    for k, p in zip(objects, predictions, strict=True):
        if p in used:
            continue
        if k in found:
            surplus.append((k, min(found[k], scores[p])))
            found[k] = max(found[k], scores[p])
        else:
            found[k] = scores[p]
            used.add(p)
    return found, surplus
