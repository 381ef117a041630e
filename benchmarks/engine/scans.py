"""Made-up indoor scans as voxels of 2 cm: furnished rooms, sampled with the noise and the holes of a depth sensor.

They are thick where real ones are: a voxel has about 9 of the 27 neighbours of a 3^3 kernel, itself included.
"""

import os

import numpy as np

VOXEL = 0.02  # metres
DENSITY = 4400.0  # samples per square metre of surface
NOISE = 0.0015  # metres, along the normal
FURNITURE = 0.6  # pieces per square metre of floor


def scan(voxels: int, seed: int) -> np.ndarray:
    """(voxels, 3) int32, distinct and not negative: as much of a made-up room as the number of voxels allows.

    Rows come as fused meshes list them: blocks of 8^3 in random order, in random order inside.
    """
    area = max(1.0, voxels / 9000)
    while len(cells := _voxelise(_room(np.random.default_rng(seed), area))) < voxels:
        area *= max(1.05, 1.02 * voxels / len(cells))
    cells = cells[np.argsort(cells[:, 0], kind="stable")[:voxels]]  # the walk through the room ends here
    cells = np.random.default_rng([seed, 1]).permutation(cells)
    blocks = (cells >> 3) @ np.array([73856093, 19349663, 83492791])
    return np.ascontiguousarray(cells[np.argsort(blocks * 2654435761 % (1 << 32), kind="stable")])


def save_scan(task: tuple[str | os.PathLike, int, int]) -> None:
    """Write the scan of (path, voxels, seed) as .npy."""
    path, voxels, seed = task
    np.save(path, scan(voxels, seed))


def rescans(cells: np.ndarray, count: int) -> list[np.ndarray]:
    """The scan as `count` later ones would find it: turned or mirrored, moved, up to 2 % of its voxels lost."""
    rng, found = np.random.default_rng(len(cells)), []
    for i in range(count):
        again = cells[rng.random(len(cells)) >= rng.uniform(0, 0.02)].copy()
        if i & 1:
            again[:, :2] = again[:, 1::-1]
        for axis in (0, 1):
            if i >> axis & 2:
                again[:, axis] = again[:, axis].max() - again[:, axis]
        again[:, :2] += rng.integers(0, 16, 2, dtype=np.int32)
        found.append(again)
    return found


def _voxelise(points: np.ndarray) -> np.ndarray:
    cells = np.floor((points - points.min(0)) / VOXEL).astype(np.int64)
    keys = np.unique(cells @ np.array([1 << 40, 1 << 20, 1]))
    return np.stack([keys >> 40, keys >> 20 & 0xFFFFF, keys & 0xFFFFF], axis=1).astype(np.int32)


def _room(rng: np.random.Generator, area: float) -> np.ndarray:
    """(M, 3) points, metres, of a room with a floor of `area` square metres, turned by any angle."""
    ratio, height = rng.uniform(1.0, 1.6), rng.uniform(2.4, 2.8)
    length, width = np.sqrt(area * ratio), np.sqrt(area / ratio)
    x, y, z = np.diag([length, width, height])
    parts = [_rectangle(rng, 0 * x, x, y)]
    parts += [_wall(rng, *wall, z) for wall in ((0 * x, x), (y, x), (0 * x, y), (x, y))]
    for _ in range(int(2 + FURNITURE * area)):
        place = np.array([rng.uniform(0.3, length - 0.3), rng.uniform(0.3, width - 0.3), 0.0])
        parts.append(_piece(rng) + place)
    points = np.concatenate(parts)
    seen = np.ones(len(points), dtype=bool)
    for centre in points[rng.integers(len(points), size=max(3, int(1.2 * area)))]:
        near = np.flatnonzero(np.abs(points[:, 0] - centre[0]) < 0.35)
        seen[near[np.square(points[near] - centre).sum(1) < rng.uniform(0.08, 0.35) ** 2]] = False
    points = points[seen]
    return _turn(points, rng.uniform(0, np.pi))


def _wall(rng: np.random.Generator, corner: np.ndarray, side: np.ndarray, up: np.ndarray) -> np.ndarray:
    """A wall with a door or a window in it, scanned up to some height."""
    points = _rectangle(rng, corner, side, up)
    along, start, sill = (points - corner) @ side / (side @ side), rng.uniform(0.1, 0.7), rng.uniform(0, 0.9)
    opening = (along > start) & (along < start + 0.2) & (points[:, 2] > sill) & (points[:, 2] < 2.1)
    return points[~opening & (points[:, 2] < rng.uniform(1.7, up[2]))]


def _piece(rng: np.random.Generator) -> np.ndarray:
    """A piece of furniture around the origin."""
    kind = rng.integers(6)
    if kind == 0:  # cupboard, bed, sofa
        points = _box(rng, rng.uniform((0.4, 0.4, 0.4), (1.6, 0.9, 1.6)))
    elif kind == 1:  # table
        size = rng.uniform((0.6, 0.5, 0.5), (1.4, 0.8, 0.8))
        points = np.concatenate(
            [_moved(_box(rng, (*size[:2], 0.03)), 0, 0, size[2]), *_legs(rng, size, 0.02)]
        )
    elif kind == 2:  # chair
        back = _moved(_box(rng, (0.04, 0.4, 0.45)), 0.2, 0, 0.45)
        legs = _legs(rng, (0.42, 0.42, 0.42), 0.015)
        points = np.concatenate([_moved(_box(rng, (0.42, 0.42, 0.05)), 0, 0, 0.42), back, *legs])
    elif kind == 3:  # bin, pillar
        points = _cylinder(rng, rng.uniform(0.1, 0.3), rng.uniform(0.3, 1.2))
    elif kind == 4:  # ball, lamp
        radius = rng.uniform(0.1, 0.3)
        points = _moved(_sphere(rng, radius), 0, 0, rng.uniform(radius, 1.0))
    else:  # clutter
        places = np.column_stack([rng.normal(0, 0.2, (6, 2)), rng.uniform(0, 1, 6)])
        boxes = (_turn(_box(rng, rng.uniform(0.05, 0.3, 3)), rng.uniform(0, np.pi)) for _ in places)
        points = np.concatenate([_moved(box, *place) for box, place in zip(boxes, places, strict=True)])
    return _turn(points, rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)]))


def _rectangle(rng: np.random.Generator, corner, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Samples of a parallelogram, with low bumps and the sensor's noise along its normal."""
    normal = np.cross(u, v)
    size = np.linalg.norm(normal)
    s, t = rng.random((2, int(size * DENSITY)))
    a, b, phase = s * np.linalg.norm(u), t * np.linalg.norm(v), rng.uniform(0, 2 * np.pi, 3)
    bumps = 0.006 * (np.sin(5 * a + phase[0]) + np.sin(4 * b + phase[1]))
    bumps += 0.003 * np.sin(23 * a + 17 * b + phase[2]) + rng.normal(0, NOISE, len(s))
    return corner + s[:, None] * u + t[:, None] * v + bumps[:, None] * (normal / size)


def _box(rng: np.random.Generator, size) -> np.ndarray:
    """All six faces of a box that stands on the origin."""
    x, y, z = np.diag(size)
    low = -(x + y) / 2
    faces = ((low, x, y), (low + z, x, y), (low, x, z), (low + y, x, z), (low, y, z), (low + x, y, z))
    return np.concatenate([_rectangle(rng, *face) for face in faces])


def _cylinder(rng: np.random.Generator, radius: float, height: float) -> np.ndarray:
    angle, up = rng.uniform(0, (2 * np.pi, height), (int(2 * np.pi * radius * height * DENSITY), 2)).T
    distance = radius + rng.normal(0, NOISE, len(angle))
    return np.column_stack([distance * np.cos(angle), distance * np.sin(angle), up])


def _sphere(rng: np.random.Generator, radius: float) -> np.ndarray:
    points = rng.normal(size=(int(4 * np.pi * radius**2 * DENSITY), 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points * (radius + rng.normal(0, NOISE, (len(points), 1)))


def _legs(rng: np.random.Generator, size, radius: float) -> list[np.ndarray]:
    """Four legs under a top of this size."""
    x, y = size[0] / 2 - 0.04, size[1] / 2 - 0.04
    return [_moved(_cylinder(rng, radius, size[2]), a, b, 0) for a in (-x, x) for b in (-y, y)]


def _moved(points: np.ndarray, *by: float) -> np.ndarray:
    return points + np.array(by)


def _turn(points: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
