"""Superpoints of a scan: small connected patches whose vertices are of one thing."""

from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.scannet.raw import read_segments
from lground.scans import Scan

NEIGHBOURS = 16  # of a point of a cloud, itself among them, that make its plane
LINKED = 8  # of those, the nearest, that it may share a superpoint with
ADVICE = "give one whole number per vertex (.npy), or ScanNet's .segs.json"


def read_superpoints(path: Path, count: int) -> np.ndarray:
    """(N,) integers of `count` vertices from .npy (-1: none) or ScanNet's .segs.json."""
    path = Path(path)
    if path.suffix not in (".npy", ".json"):
        raise InputError(f"{path}: superpoints are read from .npy and .json; {ADVICE}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; {ADVICE}")
    if path.suffix == ".json":
        return read_segments(path, count)
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: is damaged or not an array ({' '.join(str(error).split())})") from None
    if values.shape not in ((count,), (count, 1)) or values.dtype.kind not in "iu":
        raise InputError(
            f"{path}: holds {values.shape} {values.dtype} for {count} vertices; {ADVICE} of this scan"
        )
    return values.reshape(-1)


def surface_patches(scan: Scan) -> np.ndarray:
    """(N,) int64: `mesh_superpoints`, or of a cloud `cloud_superpoints`."""
    return (
        cloud_superpoints(scan.points)
        if scan.faces is None or not len(scan.faces)
        else mesh_superpoints(scan)
    )


def mesh_superpoints(scan: Scan) -> np.ndarray:
    """(N,) int64: the mesh of `scan` cut where it bends (`lground.synth.oversegment`, as ScanNet's are).

    The least size of a patch follows from the length of the edges. Raises InputError for a cloud.
    """
    from lground.synth.fusion import Mesh
    from lground.synth.oversegment import min_vertices, oversegment

    if scan.faces is None or not len(scan.faces):
        raise InputError(f"--superpoints auto: needs a mesh, the scan has no faces; {ADVICE}")
    mesh = Mesh(scan.points, scan.faces, np.zeros(len(scan), np.int32))
    a, b = scan.points[mesh.edges()].transpose(1, 0, 2)
    spacing = max(float(np.median(np.linalg.norm(b - a, axis=1))), 1e-3)
    return oversegment(scan.points, scan.faces, mesh.normals(), min_vertices=min_vertices(spacing))


def cloud_superpoints(points: np.ndarray) -> np.ndarray:
    """(N,) int64: a cloud cut where its surface bends, as `mesh_superpoints` cuts a mesh.

    Neighbours take the place of edges, and of each point the plane through its neighbours that of a normal.
    points: (N, 3) metres.
    """
    from scipy.spatial import cKDTree

    from lground.synth.oversegment import K_THRESHOLD, cut_edges, min_vertices

    spacing = point_spacing(points)
    near = min(NEIGHBOURS, len(points))
    distances, found = cKDTree(points).query(points, near)
    distances, found = distances.reshape(-1, near), found.reshape(-1, near)
    normals = np.empty((len(points), 3))
    for start in range(0, len(points), 2**16):  # which bounds the memory
        group = points[found[start : start + 2**16]].astype(np.float64)
        group -= group.mean(axis=1, keepdims=True)
        normals[start : start + 2**16] = np.linalg.eigh(group.transpose(0, 2, 1) @ group)[1][:, :, 0]
    close = distances <= 3 * spacing
    close[:, LINKED:] = False
    a, b = np.nonzero(close)[0], found[close]
    edges = np.unique(np.sort(np.stack([a, b], axis=1)[a != b], axis=1), axis=0)
    bend = 1 - np.abs(np.einsum("ij,ij->i", normals[edges[:, 0]], normals[edges[:, 1]]))  # they have no sides
    return cut_edges(edges, np.maximum(bend, 0), len(points), K_THRESHOLD, min_vertices(spacing))


def point_spacing(points: np.ndarray) -> float:
    """Median distance (metres) from a point to the nearest other one, at least 1 mm."""
    from scipy.spatial import cKDTree

    if len(points) < 2:
        return 1e-3
    return max(float(np.median(cKDTree(points).query(points, 2)[0][:, 1])), 1e-3)
