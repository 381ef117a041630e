"""The objects of a scan, described: class, size and place, as people who build on a scan want them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from lground.files import write_json
from lground.predict.segmentation import Segmentation
from lground.scans import Scan


@dataclass(frozen=True)
class OrientedBox:
    """A box turned about z only: center (3,) and size (3,) in metres; yaw: radians from x to the axis of size[0].

    size[0] >= size[1], both horizontal, and -pi/2 <= yaw < pi/2.
    """

    center: np.ndarray
    size: np.ndarray
    yaw: float


@dataclass(frozen=True)
class FoundObject:
    """One object of a segmented scan, in metres and in the coordinates of the scan's file, +Z up."""

    id: int  # the vertex property `instance`
    label: int  # class index, as the vertex property `label`; -1 without a class
    class_id: int  # as the label set counts; -1 without a class
    name: str
    score: float
    vertices: int
    centroid: np.ndarray  # (3,) mean of its vertices
    low: np.ndarray  # (3,) of the axis-aligned box
    high: np.ndarray  # (3,)
    oriented_box: OrientedBox
    superpoints: list[int] | None  # those of which most vertices are the object's; None where there are none

    def as_dict(self) -> dict[str, Any]:
        """The entry of the JSON list."""
        box = self.oriented_box
        entry = {
            "id": self.id,
            "class": self.name,
            "class_index": self.label,
            "class_id": self.class_id,
            "score": _rounded(self.score),
            "vertices": self.vertices,
            "centroid": _rounded(self.centroid),
            "box": {"min": _rounded(self.low), "max": _rounded(self.high)},
            "oriented_box": {
                "center": _rounded(box.center),
                "size": _rounded(box.size),
                "yaw": _rounded(box.yaw),
            },
        }
        return entry if self.superpoints is None else entry | {"superpoints": self.superpoints}


def _rounded(values: np.ndarray | float) -> Any:
    return np.round(values, 6).tolist()  # micrometres


def found_objects(
    scan: Scan, result: Segmentation, superpoints: np.ndarray | None = None
) -> list[FoundObject]:
    """The objects with at least one vertex in `result.instances`, highest score first; `id` is their number there.

    superpoints: (N,) integers, -1 for none, to list those of each object.
    """
    instances, count = result.instances, len(result.objects)
    order = np.argsort(instances, kind="stable")
    starts = np.searchsorted(instances[order], np.arange(count))
    patches = [None] * count if superpoints is None else _mostly_held(instances, count, superpoints)
    return [
        _describe(scan, result, index, vertices, held)
        for index, (vertices, held) in enumerate(zip(np.split(order, starts)[1:], patches, strict=True))
        if len(vertices)
    ]


def _mostly_held(instances: np.ndarray, count: int, superpoints: np.ndarray) -> list[list[int]]:
    """For each of `count` objects, the superpoints of which it has more than half of the vertices."""
    ids, patch, totals = np.unique(superpoints, return_inverse=True, return_counts=True)
    chosen = (instances >= 0) & (superpoints >= 0)
    pairs, held = np.unique(instances[chosen] * len(ids) + patch[chosen], return_counts=True)
    owner, patch = np.divmod(pairs, len(ids))
    most = 2 * held > totals[patch]
    starts = np.searchsorted(owner[most], np.arange(count))
    return [part.tolist() for part in np.split(ids[patch[most]], starts)[1:]]


def _describe(
    scan: Scan, result: Segmentation, index: int, vertices: np.ndarray, superpoints: list[int] | None
) -> FoundObject:
    label = int(result.objects.labels[index])
    points = scan.points[vertices].astype(np.float64)
    box = oriented_box(points)
    return FoundObject(
        id=index,
        label=label,
        class_id=int(result.label_set.ids[label]) if label >= 0 else -1,
        name=result.label_set.names[label] if label >= 0 else "object",
        score=float(result.objects.scores[index]),
        vertices=len(vertices),
        centroid=points.mean(axis=0) + scan.offset,
        low=points.min(axis=0) + scan.offset,
        high=points.max(axis=0) + scan.offset,
        oriented_box=replace(box, center=box.center + scan.offset),
        superpoints=superpoints,
    )


def oriented_box(points: np.ndarray) -> OrientedBox:
    """The smallest upright box around points (n, 3) float64, n >= 1: its base is the rectangle of least area.

    A side of that rectangle lies along an edge of the convex hull (Freeman and Shapira, 1975).
    """
    middle = points.mean(axis=0)
    plane = points[:, :2] - middle[:2]
    corners = _hull(plane)
    edges = np.diff(corners, axis=0, append=corners[:1])
    # The axes themselves too: rounding then never makes the box larger than the axis-aligned one.
    angles = np.concatenate([[0.0], np.arctan2(edges[:, 1], edges[:, 0])])
    along = np.stack([np.cos(angles), np.sin(angles)])  # (2, a)
    across = np.stack([-along[1], along[0]])
    low, high = (
        np.stack([pick(corners @ along, axis=0), pick(corners @ across, axis=0)], axis=1)
        for pick in (np.min, np.max)
    )  # (a, 2)
    best = np.argmin(np.prod(high - low, axis=1))
    size, center, yaw = (high - low)[best], (low + high)[best] / 2, angles[best]
    center = center @ np.stack([along[:, best], across[:, best]])
    if size[0] < size[1]:
        size, yaw = size[::-1], yaw + np.pi / 2
    bottom, top = points[:, 2].min(), points[:, 2].max()
    return OrientedBox(
        np.array([*(center + middle[:2]), (bottom + top) / 2]),
        np.array([*size, top - bottom]),
        float((yaw + np.pi / 2) % np.pi - np.pi / 2),
    )


def _hull(plane: np.ndarray) -> np.ndarray:
    """Corners (h, 2) of the convex hull of points (n, 2), in order; the two ends where they lie on a line."""
    try:
        return plane[ConvexHull(plane).vertices]
    except (QhullError, ValueError):  # fewer than three points, or all on a line
        far = plane[np.argmax(np.square(plane - plane[0]).sum(axis=1))]
        other = plane[np.argmax(np.square(plane - far).sum(axis=1))]
        return np.stack([far, other])


def write_objects(objects: Sequence[FoundObject], path: str | os.PathLike) -> None:
    """Write the objects as a JSON list, metres and radians."""
    write_json(path, [entry.as_dict() for entry in objects])
