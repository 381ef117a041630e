"""What was found in a room: its classes, or its objects, each in its colour and with its name."""

import os
from collections.abc import Sequence

import numpy as np

from lground.predict import Segmentation
from lground.predict.colors import object_colors
from lground.report.panels import UNPAINTED, label_legend, panels, plain_colors
from lground.scans import Scan

Panel = tuple[str, np.ndarray, Sequence[str]]


def draw_segmentation(path: str | os.PathLike, scan: Scan, result: Segmentation) -> None:
    """Write a PNG: the scan, its classes, and with objects these, named."""
    names, colors = result.label_set.names, result.label_set.colors
    known = result.labels[:, None] >= 0
    classes = np.where(known, colors[result.labels], UNPAINTED).astype(np.uint8)
    pictures, written = [("the scan", scan.points, plain_colors(scan)), ("classes", scan.points, classes)], []
    if result.objects is not None:
        title = f"{len(np.unique(result.instances[result.instances >= 0]))} objects"
        pictures.append((title, scan.points, object_colors(len(result.objects))[result.instances]))
        of_objects = [names[label] if label >= 0 else "object" for label in result.objects.labels]
        written = [None, None, (result.instances, of_objects)]
    panels(path, pictures, legend=label_legend(result.labels, names, colors), names=written)


def draw_objects(path: str | os.PathLike, points: np.ndarray, pictures: Sequence[Panel]) -> None:
    """Write one PNG of points (N, 3), metres, in panels (title, instances, names) side by side.

    instances: (N,) the object of each point, -1 for none. names: of object 0, 1, ....
    """
    painted = [(title, points, object_colors(len(names))[instances]) for title, instances, names in pictures]
    panels(path, painted, names=[(instances, names) for _, instances, names in pictures])
