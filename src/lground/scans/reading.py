"""One way in: `read_scan` picks the reader by suffix and turns what it reads into metres, float32, uint8."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.progress import say
from lground.scans.raw import RawScan
from lground.scans.scan import FAR, Scan, check_faces, check_points

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "ft": 0.3048, "in": 0.0254}  # metres per unit

# Suffix -> module and function that reads it; imported on first use.
READERS = {
    ".ply": ("ply", "read_ply"),
    ".obj": ("obj", "read_obj"),
    ".pcd": ("pcd", "read_pcd"),
    ".las": ("las", "read_las"),
    ".laz": ("las", "read_las"),
    ".npz": ("arrays", "read_npz"),
    ".npy": ("arrays", "read_npy"),
}


def read_scan(path: str | os.PathLike, units: str = "m") -> Scan:
    """Read a scan: PLY, OBJ, PCD, LAS/LAZ, NPZ or NPY, chosen by the file's suffix.

    units: what the file's coordinates are in (m, cm, mm, ft, in); the scan is in metres.
    Vertices keep the file's order and count. Polygons become triangles (a fan each). Coordinates more than
    1 km from the origin are moved by whole metres (`Scan.offset`) so that float32 holds them.
    InputError: no such file, unknown suffix, damaged file, fewer than two points, NaN coordinates, face
    indices out of range, a size no room has (see `units`).
    """
    path = Path(path)
    if units not in UNITS:
        raise InputError(f"--units {units}: unknown; choose from {', '.join(UNITS)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a scan file ({', '.join(READERS)})")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    raw = _reader(path)(path)
    return _to_scan(raw, units, str(path))


def _reader(path: Path) -> Callable[[Path], RawScan]:
    try:
        module, name = READERS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(READERS)
        raise InputError(f"{path}: unknown suffix '{path.suffix}'; scans are read from {known}") from None
    return getattr(import_module(f"lground.scans.{module}"), name)


def _to_scan(raw: RawScan, units: str, source: str) -> Scan:
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused just below
        points = np.asarray(raw.points, dtype=np.float64) * UNITS[units]
    check_points(points, source, units)
    check_faces(raw.faces, len(points), source)
    offset = np.zeros(3)
    if np.abs(points).max() > FAR:
        offset = np.floor(points.min(axis=0))  # whole metres: the voxel grid stays where it was
        x, y, z = offset
        say(f"{source}: far from the origin; working {x:.0f}, {y:.0f}, {z:.0f} m away and back when written")
        _warn_if_coarse(raw.points, UNITS[units], source)
    try:
        return Scan(points - offset, raw.colors, raw.faces, raw.extras, offset)
    except InputError as error:
        raise InputError(f"{source}: {str(error).removeprefix('scan: ')}") from None


def _warn_if_coarse(stored: np.ndarray, scale: float, source: str) -> None:
    """Far coordinates stored in float32 have already lost their last digits: nothing can bring them back."""
    if stored.dtype == np.float32:
        step = float(np.spacing(np.abs(stored).max())) * scale
        if step > 0.002:
            say(f"{source}: warning: its 32-bit coordinates are exact to {step:.2g} m only; export as 64-bit")
