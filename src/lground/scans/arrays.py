"""NumPy files: .npz with named arrays, .npy with a table. Never unpickled."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from lground.errors import InputError
from lground.progress import say
from lground.scans.raw import RawScan, ensure_memory, one_line

NAMES = {
    "points": ("points", "coord", "coords", "xyz", "positions"),
    "colors": ("colors", "color", "rgb"),
    "faces": ("faces", "face", "triangles"),
    "normals": ("normals", "normal"),
}
ADVICE = "thin the cloud out or cut out a part"


def read_npz(path: Path) -> RawScan:
    """Arrays points/coord/xyz, colors/color/rgb, faces, normals; others of length N become extras."""
    arrays = _load(path)
    named = {kind: next((arrays.pop(n) for n in names if n in arrays), None) for kind, names in NAMES.items()}
    points = named["points"]
    if points is None:
        raise InputError(
            f"{path}: no array named {' or '.join(NAMES['points'])} (found {', '.join(arrays) or 'none'})"
        )
    _numbers(points, path, 3)
    faces = named["faces"]
    if faces is not None and (faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu"):
        raise InputError(
            f"{path}: faces have shape {faces.shape} and type {faces.dtype}, expected (F, 3) integers"
        )
    extras = {} if named["normals"] is None else {"normals": named["normals"].astype(np.float32)}
    for name, values in arrays.items():
        if values.ndim >= 1 and len(values) == len(points) and values.dtype.kind in "biuf":
            extras[name] = values
        else:
            say(f"{path}: array '{name}' {values.shape} is not per point; left out")
    return RawScan(points, named["colors"], faces, extras)


def read_npy(path: Path) -> RawScan:
    """A table (N, 3) of coordinates or (N, 6 or more) of coordinates and colours."""
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy evaluates the header as Python text, with Python's errors
        raise InputError(f"{path}: is not a plain NumPy file or is damaged ({one_line(error)})") from None
    _numbers(table, path, 3, exact=False)
    ensure_memory(3 * table.nbytes, str(path), ADVICE)
    width = table.shape[1]
    if width not in (3, 6):
        say(
            f"{path}: {width} columns; columns 0-2 are taken as x y z"
            + (", 3-5 as colours" if width > 6 else "")
        )
    return RawScan(np.array(table[:, :3]), np.array(table[:, 3:6]) if width >= 6 else None)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            ensure_memory(3 * sum(_bytes(archive, info) for info in archive.infolist()), str(path), ADVICE)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except InputError:
        raise
    except Exception as error:  # zip, deflate and header errors are many; each means a damaged file
        raise InputError(f"{path}: is not a plain .npz file or is damaged ({one_line(error)})") from None


def _bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """The array's size by its header, which must agree with the size of the archive's member."""
    with archive.open(info) as member:
        version = npy.read_magic(member)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(member)
    size = int(np.prod([int(side) for side in shape], dtype=object)) * dtype.itemsize
    if size > info.file_size:
        raise ValueError(f"{info.filename} promises {size} bytes and holds {info.file_size}")
    return size


def _numbers(array: np.ndarray, path: Path, columns: int, exact: bool = True) -> None:
    wide = array.ndim == 2 and (array.shape[1] == columns if exact else array.shape[1] >= columns)
    if not wide or array.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: points have shape {array.shape} and type {array.dtype}, expected (N, 3) numbers"
        )
