"""Colours as a camera records them: material, shading, a colour cast, bleeding between neighbours, noise."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.sparse import coo_matrix

from lground.synth.fusion import Mesh, Volume
from lground.synth.parts import Part


def paint(mesh: Mesh, parts: Sequence[Part]) -> np.ndarray:
    """Colours (N, 3) in 0..1 of the parts' materials at the points of the mesh."""
    colours = np.empty((len(mesh.points), 3))
    order = np.argsort(mesh.part, kind="stable")
    numbers, starts = np.unique(mesh.part[order], return_index=True)
    for number, rows in zip(numbers, np.split(order, starts[1:]), strict=True):
        part = parts[number]
        colours[rows] = part.material.paint((mesh.points[rows] - part.centre) @ part.rotation)
    return colours


def shading(
    rng: np.random.Generator, mesh: Mesh, volume: Volume, size: tuple[float, float, float]
) -> np.ndarray:
    """Brightness (N, 1): one to three soft lamps, darker in corners (ambient occlusion on the grid)."""
    normals = mesh.normals()
    lamps = rng.uniform((0.2, 0.2, 0.75), (0.8, 0.8, 0.98), (rng.integers(1, 4), 3)) * size
    strength = rng.uniform(0.4, 1.0, len(lamps))
    lit = np.zeros(len(normals))
    for lamp, power in zip(lamps, strength / strength.sum(), strict=True):
        ray = lamp - mesh.points
        distance = np.linalg.norm(ray, axis=1)
        facing = np.einsum("ij,ij->i", normals, ray) / distance
        lit += power * (0.6 + 0.4 * facing) / (0.6 + (distance / max(size[:2])) ** 2)
    reach = 2 * max(1, round(0.12 / volume.spacing)) + 1
    crowd = uniform_filter((volume.gap < 0).astype(np.float32), reach, mode="nearest")
    corner = crowd[volume.index(mesh.points + normals * volume.spacing)]
    return (lit * np.clip(1.45 - 1.3 * corner, 0.4, 1.2))[:, None]


def record(rng: np.random.Generator, mesh: Mesh, colours: np.ndarray) -> np.ndarray:
    """Colours (N, 3) uint8 after exposure, white balance, bleeding over the mesh and camera noise."""
    cast = np.array([1 + rng.normal(0, 0.05), 1.0, 1 + rng.normal(0, 0.07)]) * rng.uniform(0.8, 1.15)
    colours = _bled(mesh, colours * cast)
    colours = np.clip(colours, 0, 1) ** rng.uniform(0.8, 1.1) + rng.normal(0, 0.015, colours.shape)
    return np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8)


def _bled(mesh: Mesh, colours: np.ndarray) -> np.ndarray:
    edges, count = mesh.edges(), len(mesh.points)
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count)).tocsr()
    graph = graph + graph.T
    around = graph @ colours / np.maximum(np.asarray(graph.sum(axis=1)), 1)
    return 0.6 * colours + 0.4 * around
