"""Superpoints of a scan: small connected patches whose vertices are of one thing."""

from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.scannet.raw import read_segments
from lground.scans import Scan

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
