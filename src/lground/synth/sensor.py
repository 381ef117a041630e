"""What a hand-held depth sensor leaves of a surface: only what it saw, uneven and noisy.

Visibility is a depth map test: from each place of a camera path, points are sorted into the cells of a
panorama, and a point is seen when nothing in its cell is clearly nearer and its surface faces the camera.
"""

import numpy as np
from scipy.ndimage import minimum_filter, uniform_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lground.synth.fusion import Mesh, Volume
from lground.synth.materials import waves

FACING = 0.1  # least cosine between surface normal and line of sight
REACH = (3.5, 6.0)  # metres: depth is sure up to the first, gone after the second


def camera_path(
    rng: np.random.Generator, volume: Volume, size: tuple[float, float], count: int
) -> np.ndarray:
    """`count` camera places (n, 3) at tablet height in the free space of a room of `size` metres."""
    height = rng.uniform(1.3, 1.7)
    low, high = (round((z - volume.origin[2]) / volume.spacing) for z in (0.3, height))
    crowded = (volume.gap[:, :, low : high + 1] < 0).any(axis=2)
    reach = max(1, int(0.3 / volume.spacing))
    free = uniform_filter(crowded.astype(np.float32), 2 * reach + 1, mode="constant", cval=1.0) < 0.02
    places = np.argwhere(free) * volume.spacing + volume.origin[:2]
    inside = ((places > 0.25) & (places < np.array(size) - 0.25)).all(axis=1)
    places = places[inside] if inside.any() else np.array(size)[None] / 2
    chosen = places[rng.integers(len(places), size=count)]
    return np.column_stack([chosen, height + rng.uniform(-0.3, 0.1, count)])


def look(
    rng: np.random.Generator, mesh: Mesh, cameras: np.ndarray, spacing: float, up: float
) -> tuple[np.ndarray, np.ndarray]:
    """How often each point was seen (N,) int and from how near (N,) metres (inf: never).

    `up` is the highest elevation (radians) that the camera was pointed at.
    """
    normals = mesh.normals()
    cell = 0.6 * spacing  # radians: points of the surface are no further apart than this beyond 1.7 m
    seen = np.zeros(len(mesh.points), dtype=np.int32)
    nearest = np.full(len(mesh.points), np.inf)
    for camera in cameras:
        ray = mesh.points - camera
        distance = np.linalg.norm(ray, axis=1)
        facing = -np.einsum("ij,ij->i", normals, ray) / distance
        elevation = np.arcsin(np.clip(ray[:, 2] / distance, -1, 1))
        front = _depth_map(ray, elevation, distance, cell)
        slack = 1.5 * spacing + cell * distance / np.maximum(facing, FACING)
        fades = distance < rng.uniform(*REACH)
        hit = (facing > FACING) & (distance < front + slack) & (elevation < up) & (elevation > -1.4) & fades
        seen += hit
        nearest = np.where(hit & (distance < nearest), distance, nearest)
    return seen, nearest


def _depth_map(ray: np.ndarray, elevation: np.ndarray, distance: np.ndarray, cell: float) -> np.ndarray:
    """Distance (N,) of the nearest surface in the direction of each point."""
    rows, columns = int(np.pi / cell) + 1, int(2 * np.pi / cell) + 1
    row = ((elevation + np.pi / 2) / cell).astype(np.int64)
    column = ((np.arctan2(ray[:, 1], ray[:, 0]) + np.pi) / cell).astype(np.int64)
    index = row * columns + column
    depth = np.full(rows * columns, np.inf)
    np.minimum.at(depth, index, distance)
    depth = depth.reshape(rows, columns)
    near = np.where(depth < 1.7, depth, np.inf)  # near surfaces are sparser than the cells: close the gaps
    closed = minimum_filter(near, 3, mode=("nearest", "wrap"))
    very_near = np.where(depth < 0.7, depth, np.inf)
    closed = np.minimum(closed, minimum_filter(very_near, 7, mode=("nearest", "wrap")))
    return np.minimum(depth, closed).ravel()[index]


def lost(rng: np.random.Generator, points: np.ndarray, seen: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """True (N,) where a hole is left: never seen, seldom seen, or a shiny surface (`clear` (N,) in 0..1)."""
    patch = 0.5 + 0.5 * waves(points / rng.uniform(0.4, 0.7) + rng.uniform(0, 100, 3))
    return (seen == 0) | ((seen == 1) & (patch < 0.3)) | ((patch < clear) & (clear > 0))


def large_pieces(mesh: Mesh, least: int) -> np.ndarray:
    """True (N,) for the points of connected pieces of at least `least` points."""
    edges = mesh.edges()
    count = len(mesh.points)
    graph = coo_matrix((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, piece = connected_components(graph, directed=False)
    return np.bincount(piece)[piece] >= least


def thin_out(
    rng: np.random.Generator, mesh: Mesh, nearest: np.ndarray, spacing: float
) -> tuple[Mesh, np.ndarray]:
    """Uneven density: far patches merge on a grid twice as coarse. Also the old indices."""
    patch = waves(mesh.points / rng.uniform(0.8, 1.5) + rng.uniform(0, 100, 3))
    coarse = patch + 0.5 * (nearest - 2.0) > 0.7
    cell = np.floor(mesh.points / (2 * spacing)).astype(np.int64)
    cell -= cell.min(axis=0)
    normals = mesh.normals()
    side = np.argmax(np.abs(normals), axis=1)
    side = 2 * side + (normals[np.arange(len(side)), side] > 0)
    key = ((cell[:, 0] * 4096 + cell[:, 1]) * 4096 + cell[:, 2]) * 6 + side
    key = np.where(coarse, key, -1 - np.arange(len(key)))
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    order = np.argsort(first)  # keep the order of the points
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    group, first = rank[group], first[order]
    number = np.bincount(group)
    points = np.stack([np.bincount(group, mesh.points[:, i]) / number for i in range(3)], axis=1)
    thin = Mesh(points.astype(np.float32), group[mesh.faces], mesh.part[first])
    same_side = np.einsum("ij,ij->i", thin.face_normals(), mesh.face_normals()) > 0
    thin.faces = _distinct(thin.faces[same_side])
    return thin, first


def _distinct(faces: np.ndarray) -> np.ndarray:
    """Faces (F, 3) int32 without doubles, each starting with its lowest corner; the turn of each is kept."""
    lead = np.argmin(faces, axis=1)
    faces = np.stack([faces[np.arange(len(faces)), (lead + i) % 3] for i in range(3)], axis=1)
    order = np.lexsort(faces.T[::-1])
    faces = faces[order]
    new = np.ones(len(faces), dtype=bool)
    new[1:] = (faces[1:] != faces[:-1]).any(axis=1)
    return faces[new].astype(np.int32)


def jitter(rng: np.random.Generator, mesh: Mesh, nearest: np.ndarray, spacing: float) -> np.ndarray:
    """Points (N, 3) with noise: along the normal it grows with the square of the distance; along the surface
    it is a share of the spacing, so that the fusion grid does not show."""
    normals = mesh.normals()
    far = np.where(np.isfinite(nearest), nearest, 2.0)[:, None]
    fine = rng.normal(0, 1, (len(normals), 1)) * (0.0006 + 0.00025 * far**2)
    slow = waves(mesh.points / 0.12 + rng.uniform(0, 100, 3))[:, None] * (0.001 + 0.0004 * far**2)
    slower = waves(mesh.points / 0.6 + rng.uniform(0, 100, 3))[:, None] * 0.003
    along = rng.normal(0, 0.15 * spacing, normals.shape)
    along -= normals * np.sum(along * normals, axis=1, keepdims=True)
    return (mesh.points + normals * (fine + slow + slower) + along).astype(np.float32)
