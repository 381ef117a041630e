"""Parts fused into one surface, as depth maps of a real room are: signed distances on a grid, then a mesh.

The mesh is extracted with surface nets: one vertex in each grid cell that the surface crosses (at the mean
of the crossings of the cell's edges), one quad around each grid edge that the surface crosses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lground.synth.parts import Part

BAND = 2.5  # how far from a part its distance is computed, in grid steps


@dataclass
class Mesh:
    """Triangles `faces` (F, 3) int32, `points` (N, 3) float32 metres, `part` (N,) int32 of each point."""

    points: np.ndarray
    faces: np.ndarray
    part: np.ndarray

    def normals(self) -> np.ndarray:
        """Unit normals (N, 3) float32, faces weighted by area; zero where a point has no face."""
        cross = self.face_normals()
        total = np.stack([_sum_at(self.faces, cross[:, i], len(self.points)) for i in range(3)], axis=1)
        return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def face_normals(self) -> np.ndarray:
        """Normals (F, 3) of the triangles, twice as long as their area."""
        a, b, c = (self.points[self.faces[:, i]] for i in range(3))
        return np.cross(b - a, c - a)

    def edges(self) -> np.ndarray:
        return edges_of(self.faces, len(self.points))

    def kept(self, keep: np.ndarray) -> tuple["Mesh", np.ndarray]:
        """The mesh of the points where `keep` (N,) is true and that still have a face; also their indices."""
        faces = self.faces[keep[self.faces].all(axis=1)]
        used = np.zeros(len(self.points), dtype=bool)
        used[faces] = True
        index = np.flatnonzero(used)
        place = np.zeros(len(self.points), dtype=np.int32)
        place[index] = np.arange(len(index))
        return Mesh(self.points[index], place[faces], self.part[index]), index


def edges_of(faces: np.ndarray, count: int) -> np.ndarray:
    """Distinct edges (E, 2) int64 of triangles over `count` points, lower index first, sorted."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    pairs.sort(axis=1)
    keys = np.sort(pairs[:, 0] * count + pairs[:, 1])
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return np.stack([keys // count, keys % count], axis=1)


def _sum_at(faces: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    return sum(np.bincount(faces[:, i], values, count) for i in range(3))


@dataclass
class Volume:
    """Signed distance `gap` (X, Y, Z) float32 at `origin + spacing * index`, and the nearest part (int32)."""

    gap: np.ndarray
    part: np.ndarray
    origin: np.ndarray
    spacing: float

    def index(self, points: np.ndarray) -> tuple[np.ndarray, ...]:
        """Nearest grid indices, three (n,) arrays, clipped to the grid."""
        steps = np.rint((points - self.origin) / self.spacing).astype(np.int64)
        return tuple(np.clip(steps, 0, np.array(self.gap.shape) - 1).T)


def fill(parts: Sequence[Part], low: np.ndarray, high: np.ndarray, spacing: float) -> Volume:
    """Union of `parts` on a grid that covers the box from `low` to `high` (metres)."""
    shape = np.ceil((high - low) / spacing).astype(int) + 1
    volume = Volume(np.full(shape, BAND * spacing, np.float32), np.full(shape, -1, np.int32), low, spacing)
    for number, part in enumerate(parts):
        _add(volume, part.thickened(0.6 * spacing), number)
    return volume


def _add(volume: Volume, part: Part, number: int) -> None:
    low, high = part.bounds()
    margin = BAND * volume.spacing
    first = np.maximum(np.floor((low - margin - volume.origin) / volume.spacing).astype(int), 0)
    last = np.minimum(
        np.ceil((high + margin - volume.origin) / volume.spacing).astype(int) + 1, volume.gap.shape
    )
    if (first >= last).any():
        return
    where = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    gap = part.shape.distance(*_local(volume, part, first, last)).astype(np.float32)
    nearer = gap < volume.gap[where]
    np.copyto(volume.gap[where], gap, where=nearer)
    volume.part[where][nearer] = number


def _local(volume: Volume, part: Part, first: np.ndarray, last: np.ndarray) -> list[np.ndarray]:
    """Coordinates of a block of the grid in the part's frame; terms with a zero coefficient are left out."""
    x, y, z = (
        (volume.origin[i] + volume.spacing * np.arange(first[i], last[i]) - part.centre[i]).astype(np.float32)
        for i in range(3)
    )
    axes = (x[:, None, None], y[None, :, None], z[None, None, :])
    turned = np.where(np.abs(part.rotation) < 1e-9, 0, part.rotation).astype(np.float32).T
    return [sum(c * a for c, a in zip(row, axes, strict=True) if c) for row in turned]


def extract(volume: Volume) -> Mesh:
    """The surface of a volume, triangles turned outwards."""
    gap, shape = volume.gap, volume.gap.shape
    solid = gap < 0
    stride = np.array([shape[1] * shape[2], shape[2], 1])
    crossings, lows, highs, axes = [], [], [], []
    for axis in range(3):
        before = tuple(slice(None, -1) if i == axis else slice(1, -1) for i in range(3))
        after = tuple(slice(1, None) if i == axis else slice(1, -1) for i in range(3))
        place = np.argwhere(solid[before] != solid[after]) + [0 if i == axis else 1 for i in range(3)]
        low = place @ stride
        lows.append(low)
        highs.append(low + stride[axis])
        axes.append(np.full(len(low), axis))
        a, b = gap.ravel()[low], gap.ravel()[low + stride[axis]]
        point = place.astype(np.float64)
        point[:, axis] += a / (a - b)
        crossings.append(point)
    low, high, axis, point = (np.concatenate(v) for v in (lows, highs, axes, crossings))
    cells = _cells_around(low, axis, stride)
    used = np.zeros(gap.size, dtype=bool)
    used[cells] = True
    index = np.flatnonzero(used)
    vertex = np.empty(gap.size, dtype=np.int32)
    vertex[index] = np.arange(len(index))
    corner = vertex[cells]
    points = _mean_at(corner, point, len(index))
    return Mesh(
        (volume.origin + volume.spacing * points).astype(np.float32),
        _triangles(corner, solid.ravel()[low], points),
        _shown(volume, low, high, corner, len(points)),
    )


def _cells_around(low: np.ndarray, axis: np.ndarray, stride: np.ndarray) -> np.ndarray:
    """The four cells (n, 4) around each grid edge, in turn about the axis."""
    u, v = stride[(axis + 1) % 3], stride[(axis + 2) % 3]
    return np.stack([low, low - u, low - u - v, low - v], axis=1)


def _mean_at(corner: np.ndarray, point: np.ndarray, count: int) -> np.ndarray:
    flat = corner.ravel()
    number = np.bincount(flat, minlength=count)
    return np.stack([np.bincount(flat, np.repeat(point[:, i], 4), count) / number for i in range(3)], axis=1)


def _triangles(corner: np.ndarray, solid_below: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Each quad split along its shorter diagonal; the solid side is behind."""
    quad = np.where(solid_below[:, None], corner, corner[:, ::-1])
    along = np.sum((points[quad[:, 0]] - points[quad[:, 2]]) ** 2, axis=1)
    across = np.sum((points[quad[:, 1]] - points[quad[:, 3]]) ** 2, axis=1)
    quad = np.where((along <= across)[:, None], quad, np.roll(quad, -1, axis=1))
    return np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]).astype(np.int32)


def _shown(volume: Volume, low: np.ndarray, high: np.ndarray, corner: np.ndarray, count: int) -> np.ndarray:
    """The part in front of each vertex: the nearest to the free corner that is closest to the surface."""
    gap, part = volume.gap.ravel(), volume.part.ravel()
    free = np.where(gap[low] >= 0, low, high)
    order = np.argsort(-gap[free], kind="stable")
    shown = np.full(count, -1, dtype=np.int32)
    rows = corner[order]
    shown[rows.ravel()] = np.repeat(part[free[order]], 4)
    return shown
