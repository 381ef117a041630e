"""The objects of a room, each in its colour and with its name."""

import os
from collections.abc import Sequence

import numpy as np

from lground.predict.colors import object_colors
from lground.report.panels import panels

Panel = tuple[str, np.ndarray, Sequence[str]]


def draw_objects(path: str | os.PathLike, points: np.ndarray, pictures: Sequence[Panel]) -> None:
    """Write one PNG of points (N, 3), metres, in panels (title, instances, names) side by side.

    instances: (N,) the object of each point, -1 for none. names: of object 0, 1, ...; large objects are named first,
    small ones where there is room.
    """
    painted = [(title, points, object_colors(len(names))[instances]) for title, instances, names in pictures]
    panels(path, painted, names=[_places(points, instances, names) for _, instances, names in pictures])


def _places(points: np.ndarray, instances: np.ndarray, names: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Names of the objects that have points, the largest first, and the middle of each."""
    sizes = np.bincount(instances[instances >= 0], minlength=len(names))
    order = [index for index in np.argsort(-sizes, kind="stable") if sizes[index]]
    return [(names[index], points[instances == index].mean(axis=0)) for index in order]
