"""Which classes were found in a scan, and how much of each."""

import os
from dataclasses import asdict, dataclass

import numpy as np

from lground.files import write_json
from lground.predict.segmentation import Segmentation
from lground.scans import Scan


@dataclass(frozen=True)
class FoundClass:
    """One class of a segmented scan."""

    index: int  # the vertex property `label`
    id: int  # as the label set counts
    name: str
    color: tuple[int, int, int]
    vertices: int
    share: float  # of the scan's surface, 0..1
    score: float  # mean over its vertices


def found_classes(scan: Scan, result: Segmentation) -> list[FoundClass]:
    """The classes with at least one vertex, the largest surface first."""
    count, classes = len(result.label_set), result.label_set
    known = result.classes >= 0  # of a list of words, a vertex may have none
    labels = result.classes[known]
    vertices = np.bincount(labels, minlength=count)
    scores = np.bincount(labels, weights=result.scores[known], minlength=count)
    scores = scores / np.maximum(vertices, 1)  # not in place: without any vertex these are integers
    shares = _surface_shares(scan, result)
    present = np.flatnonzero(vertices)
    return [
        FoundClass(
            int(k),
            int(classes.ids[k]),
            classes.names[k],
            tuple(classes.colors[k].tolist()),
            int(vertices[k]),
            float(shares[k]),
            float(scores[k]),
        )
        for k in present[np.argsort(-shares[present], kind="stable")]
    ]


def _surface_shares(scan: Scan, result: Segmentation) -> np.ndarray:
    """(C,) share of the surface with each label: by the area of faces, or by occupied voxels in a cloud."""
    inverse = result.voxels.inverse
    weights = 1 / np.bincount(inverse)[inverse]
    if scan.faces is not None and len(scan.faces):
        a, b, c = scan.points[scan.faces].transpose(1, 0, 2).astype(np.float64)
        third = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
        areas = np.bincount(scan.faces.ravel(), weights=np.repeat(third, 3), minlength=len(scan))
        weights = areas if areas.any() else weights
    known = result.classes >= 0
    shares = np.bincount(result.classes[known], weights=weights[known], minlength=len(result.label_set))
    return shares / weights.sum()


def write_classes(classes: list[FoundClass], path: str | os.PathLike) -> None:
    """Write the classes as a JSON list, so that the numbers in a PLY can be read without this package."""
    write_json(path, [asdict(entry) for entry in classes])
