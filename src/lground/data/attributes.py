"""Objects that look otherwise and are named so: "a red chair" (the language-grounded paper's supplement)."""

from dataclasses import dataclass, replace

import numpy as np

from lground.data.scenes import Sample
from lground.data.voxels import bounds
from lground.errors import InputError

NAMES = ("plain", "red", "green", "blue", "yellow", "dark", "bright", "big", "small")  # by attribute
HUES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=np.float32)  # of attributes 1 to 4
DARK, BRIGHT, BIG, SMALL = range(5, 9)
# Of what is given a hue; a grey or black thing would stay so otherwise:
LEAST_SATURATION = 0.5
LEAST_VALUE = 64
UP, DOWN = (1.0, 1.5), (0.5, 1.0)


@dataclass(frozen=True)
class Attributes:
    """How often an object's colour is changed, and how often the size of one that kept its colour."""

    color_probability: float = 0.5
    scale_probability: float = 0.2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"attributes.{name}={value}: give a probability, 0 to 1")


@dataclass(frozen=True, eq=False)
class ChangeAttributes:
    """Change the colour or else the size of objects of some classes, and note it in `Sample.attributes`.

    An object is the vertices of one instance and class, as far as they are labelled. Its colour becomes red,
    green, blue, yellow, dark or bright, all alike (`recolored`). Its size is changed about the middle of its box
    in x and y and its lowest point: up by as much as 1.5, as far as the scene's extent has room (without room it
    stays plain), or down to half.
    """

    probabilities: Attributes
    classes: np.ndarray  # class indices

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        wanted = np.zeros(max(sample.labels.max(), self.classes.max(initial=0)) + 2, dtype=bool)
        wanted[self.classes] = True
        rows = np.flatnonzero(wanted[sample.labels] & (sample.instances >= 0))
        if not len(rows):
            return sample
        points = np.array(sample.points, dtype=np.float32)
        colors = np.array(sample.colors, dtype=np.float32)
        attributes = sample.attributes.copy()
        low, high = bounds(points)
        for at in _objects(sample, rows):
            if rng.random() < self.probabilities.color_probability:
                attributes[at] = attribute = int(rng.integers(1, BIG))
                colors[at] = recolored(colors[at], attribute)
            elif rng.random() < self.probabilities.scale_probability:
                points[at], attributes[at] = resized(points[at], low, high, rng)
        return replace(sample, points=points, colors=colors, attributes=attributes)


def _objects(sample: Sample, rows: np.ndarray) -> list[np.ndarray]:
    """`rows` (n,) object by object, by class and instance."""
    kinds = sample.labels[rows].astype(np.int64) * (sample.instances.max() + 1) + sample.instances[rows]
    order = np.argsort(kinds, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(kinds[order])) + 1)


def recolored(colors: np.ndarray, attribute: int) -> np.ndarray:
    """`colors` (n, 3) float32, 0..255, under one of the attributes 1 to 6.

    A hue keeps each colour's value (the largest channel) and its saturation, raised to a quarter and a half where
    they are less.
    Dark halves the channels, bright halves what they lack of 255. (The original cuts the hue's colours to 0 or
    255 by a cast.)
    """
    if attribute == DARK:
        return colors * np.float32(0.5)
    if attribute == BRIGHT:
        return 255 - (255 - colors) / 2
    value = colors.max(axis=1, keepdims=True)
    saturation = 1 - colors.min(axis=1, keepdims=True) / np.maximum(value, 1e-6)
    return np.maximum(value, LEAST_VALUE) * (
        1 - np.maximum(saturation, LEAST_SATURATION) * (1 - HUES[attribute - 1])
    )


def resized(
    points: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """`points` (n, 3) larger or smaller by chance, within `low` to `high` (3,), and the attribute that fits."""
    bottom, top = bounds(points)
    anchor = np.array([*(bottom + top)[:2] / 2, bottom[2]], dtype=np.float32)
    if rng.random() < 0.5:
        return anchor + (points - anchor) * np.float32(rng.uniform(*DOWN)), SMALL
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.concatenate([(high - anchor) / (top - anchor), ((low - anchor) / (bottom - anchor))[:2]])
    most = min(UP[1], np.nanmin(room, initial=np.inf))
    if most <= UP[0]:
        return points, 0
    return anchor + (points - anchor) * np.float32(rng.uniform(UP[0], most)), BIG
