"""Instance sampling: rare objects set into training scenes (section 4.2 of the language-grounded paper).

Everything happens in metres, in the scene as it was scanned: before elastic distortion, so that the boxes and
heights are those of the points, and before the scene's rotation and its only voxelisation. The pasted objects are
bent, turned and coloured with the scene.
"""

from dataclasses import dataclass, replace

import numpy as np

from lground.data.objects import CLASSES, WEIGHTS, RareObjects
from lground.data.scenes import Sample
from lground.data.voxels import bounds, stable_order
from lground.errors import InputError

SCALE = (0.9, 1.1)
FINEST = 0.02  # metres; vertices lie about so far apart, smaller cells would be full of holes
LEVEL = 0.05  # metres below an object's lowest point within which the ground still carries it
CARRIED = 0.75  # share of the footprint that must be carried
HIGHEST = 2.0  # metres above the floor; what is higher, such as ceilings, carries nothing but must not be met
BACKGROUND = ("wall", "floor", "ceiling")  # whose boxes hold the room
MAX_CELLS = 2**24  # of a height map: at 2 cm 80 m by 80 m
AT_ONCE = 8  # places looked at together; most things find theirs among the first


@dataclass(frozen=True)
class Paste:
    """What to paste: `count` objects per scene, each tried at `tries` places and then given up.

    classes: "tail" or "common_tail" of the label set. weights: see `RareObjects`.
    """

    count: int = 0
    tries: int = 50
    classes: str = "tail"
    weights: str = "inverse"

    def __post_init__(self) -> None:
        if self.count < 0 or self.tries < 1:
            raise InputError(
                f"paste.count={self.count}, paste.tries={self.tries}: give 0 or more objects, and 1 or more tries"
            )
        for name, choices in (("classes", CLASSES), ("weights", WEIGHTS)):
            if getattr(self, name) not in choices:
                raise InputError(f"paste.{name}={getattr(self, name)}: choose one of {', '.join(choices)}")


@dataclass(frozen=True, eq=False)
class Pasting:
    """Append objects to a scene, standing on what is there and meeting no box of an object.

    Each is turned about z and scaled by 0.9 to 1.1, then tried at random places within the scene's extent. It
    stands on the highest ground below its box, ceilings and whatever else is above 2 m left out: of the cells (2 cm,
    or a voxel if that is larger) that have a part of it above them at least three quarters must be ground no more than
    5 cm lower, so nothing hangs over the edge of a table by more, or stands on a chair's back, and what the scanner did
    not see carries nothing. Gaps of up to two cells are no holes, unless something higher is beside them (`closed`).
    Boxes may touch. A place is refused where the object's box would reach into the box of an object of the scene (as
    far as instances are known; walls, floors and ceilings are no objects) or of one pasted before; an object without a
    place is left out.

    The original takes the height at one point, pastes at the last place if all tries fail, lets pasted objects
    overlap, and pastes voxels that it then rotates and floors again.
    """

    objects: RareObjects
    count: int
    tries: int
    voxel_size: float  # metres
    background: np.ndarray  # class indices of BACKGROUND

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        ground = Ground.of(sample.points, max(self.voxel_size, FINEST))
        boxes = object_boxes(sample, self.background)
        number = sample.instances.max() + 1
        parts = [sample]
        for thing in self.objects.draw(self.count, rng):
            points, size = turned(thing.points, rng.uniform(-np.pi, np.pi), rng.uniform(*SCALE))
            corner = ground.find_place(points, size, boxes, self.tries, rng)
            if corner is None:
                continue
            points += corner
            boxes = np.concatenate([boxes, np.stack([corner, corner + size])[None]])
            instances = np.where(thing.instances >= 0, number, -1)
            parts.append(replace(thing, points=points, instances=instances))
            number += 1
        return joined(parts)


def turned(points: np.ndarray, angle: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """`points` (n, 3) float32 turned about z by `angle` radians, scaled, and moved so that their lowest corner is 0.

    Also their highest corner, (3,) float32.
    """
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    matrix = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, scale]], dtype=np.float32)
    result = np.einsum("na,ab->nb", points, matrix)  # without BLAS, whose bits differ from machine to machine
    low, high = bounds(result)
    result -= low
    return result, high - low


def object_boxes(sample: Sample, background: np.ndarray) -> np.ndarray:
    """Lowest and highest coordinates (B, 2, 3) float32 of the objects, without vertices of background classes."""
    of_objects = sample.instances >= 0
    for label in background.tolist():
        of_objects &= sample.labels != label
    rows = np.flatnonzero(of_objects)
    numbers = sample.instances[rows]
    order = stable_order(numbers, int(numbers.max(initial=0)) + 1)
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    if not len(starts):
        return np.empty((0, 2, 3), dtype=np.float32)
    axes = np.take(sample.points, rows[order], axis=0).T
    ends = [[ufunc.reduceat(axis, starts) for axis in axes] for ufunc in (np.minimum, np.maximum)]
    return np.array(ends, dtype=np.float32).transpose(2, 0, 1)


@dataclass(frozen=True, eq=False)
class Ground:
    """What each column of a scene has to stand on, and what is above that."""

    origin: np.ndarray  # (2,) float32, the lowest x and y
    cell: np.float32  # metres
    # (X, Y) float32, all cells with a vertex:
    heights: np.ndarray  # the highest z up to `top`, -inf where there is nothing
    overhead: np.ndarray  # the lowest z above `top`, inf where there is nothing
    top: float  # HIGHEST above the floor, which is the height that 1 % of the vertices do not reach

    @classmethod
    def of(cls, points: np.ndarray, cell: float) -> "Ground":
        x, y, z = points.T.copy()
        origin = np.array([x.min(), y.min()], dtype=np.float32)
        extent = np.array([x.max(), y.max()], dtype=np.float32) - origin
        if not np.prod(extent.astype(np.float64) / cell + 1) <= MAX_CELLS:  # so written, NaN is refused too
            raise InputError(
                f"the scene spans {extent[0]:.4g} x {extent[1]:.4g} m, too much for pasting: check the units, "
                "remove far outliers or set paste.count=0"
            )
        cell = np.float32(cell)
        for values, low in zip((x, y), origin, strict=True):
            values -= low
            values /= cell
        shape = int(x.max()) + 1, int(y.max()) + 1
        column = x.astype(np.int32)
        column *= shape[1]
        column += y.astype(np.int32)
        some = z[::8]  # as good as all
        top = np.partition(some, len(some) // 100)[len(some) // 100] + np.float32(HIGHEST)
        above = np.flatnonzero(z > top)
        overhead = np.full(shape[0] * shape[1], np.inf, dtype=np.float32)
        np.minimum.at(overhead, column[above], z[above])
        z[above] = -np.inf
        heights = np.full_like(overhead, -np.inf)
        np.maximum.at(heights, column, z)
        return cls(origin, cell, closed(heights.reshape(shape)), overhead.reshape(shape), float(top))

    def find_place(
        self, points: np.ndarray, size: np.ndarray, boxes: np.ndarray, tries: int, rng: np.random.Generator
    ) -> np.ndarray | None:
        """The lowest corner (3,) float32 of the first place that is free for a thing, else None.

        points: (n, 3) float32 of the thing, from 0 to `size`. boxes: (B, 2, 3) that it may touch but not enter.
        Corners lie on cells, so that the thing is above the same cells wherever it stands. Where a box ends less than
        a cell above the ground, as tops of tables that are not quite even do, the thing stands on the box.
        """
        cells = (size[:2] / self.cell).astype(np.int64) + 1
        room = np.array(self.heights.shape) - cells + 1
        if (room < 1).any():
            return None
        box = (self.heights.shape[1] * np.arange(cells[0])[:, None] + np.arange(cells[1])).ravel()
        x, y = (points[:, :2].T / self.cell).astype(np.int64)
        footprint = np.zeros(len(box), dtype=bool)
        footprint[x * cells[1] + y] = True
        footprint = np.flatnonzero(footprint)
        first = (rng.random((tries, 2)) * room).astype(np.int64)  # rng.integers takes four times as long
        for start in range(0, tries, AT_ONCE):
            corners = self._free(first[start : start + AT_ONCE], box, footprint, size, boxes)
            if len(corners):
                return corners[0]
        return None

    def _free(
        self, first: np.ndarray, box: np.ndarray, footprint: np.ndarray, size: np.ndarray, boxes: np.ndarray
    ) -> np.ndarray:
        """The corners (F, 3) float32 of those of the places `first` (T, 2), in cells, that are free.

        box: (K,) from a corner to the cells of the thing's box, in the flat map. footprint: those of them that have a
        part of it above them.
        """
        cells = (first @ (self.heights.shape[1], 1))[:, None] + box
        below = self.heights.take(cells)  # (T, K)
        base = below.max(axis=1)
        carried = below.take(footprint, axis=1) >= (base - np.float32(LEVEL))[:, None]
        good = (base > -np.inf) & (np.count_nonzero(carried, axis=1) >= CARRIED * len(footprint))
        good &= base < self.top - LEVEL  # a wall goes on above `top`
        first, base, cells = first[good], base[good], cells[good]

        low = self.origin + first.astype(np.float32) * self.cell
        within = (low[:, None] < boxes[:, 1, :2]) & ((low + size[:2])[:, None] > boxes[:, 0, :2])
        within = within.all(axis=2)  # (T, B): above, in or below the box
        bottoms, tops = boxes[:, 0, 2], boxes[:, 1, 2]
        top = np.where(within & (tops > base[:, None]), tops, -np.inf)
        nearly = np.where(top <= (base + self.cell)[:, None], top, -np.inf).max(axis=1, initial=-np.inf)
        base = np.maximum(base, nearly)
        meets = within & (tops > base[:, None]) & (bottoms < (base + size[2])[:, None])
        good = ~meets.any(axis=1)
        good &= base + size[2] <= self.overhead.take(cells).min(axis=1)
        return np.column_stack([low, base])[good]


def closed(heights: np.ndarray) -> np.ndarray:
    """`heights` (X, Y) with gaps of up to two cells filled, where what lies about them is no higher than their edge.

    It is the grey closing over 3 x 3 cells, but for gaps beside something higher: those between a box and a wall, or a
    table, stay as they are, as they carry nothing.
    """
    highest = _over_neighbours(np.maximum, np.pad(heights, 2, constant_values=-np.inf))
    result = _over_neighbours(np.minimum, highest)
    even = _over_neighbours(np.maximum, highest) <= result + np.float32(LEVEL)  # within 5 x 5 cells
    return np.where(even, result, heights)


def _over_neighbours(ufunc: np.ufunc, values: np.ndarray) -> np.ndarray:
    """Of 3 x 3 cells; four times as fast as scipy's. (X, Y) become (X - 2, Y - 2)."""
    values = ufunc(ufunc(values[:-2], values[1:-1]), values[2:])
    return ufunc(ufunc(values[:, :-2], values[:, 1:-1]), values[:, 2:])


def joined(parts: list[Sample]) -> Sample:
    """All vertices of the parts, in order, under the name and matrix of the first."""
    if len(parts) == 1:
        return parts[0]
    names = ("points", "colors", "labels", "instances", "attributes")
    return replace(parts[0], **{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})
