"""One way out: `write_scan` picks the format by suffix; a file is whole or absent."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.files import atomic_file
from lground.scans.scan import Scan

WRITERS = (".ply", ".npz")


def write_scan(scan: Scan, path: str | os.PathLike) -> None:
    """Write a scan as binary little-endian PLY (.ply) or as named arrays (.npz), in metres.

    PLY: x y z (float32; float64 when the scan has an offset), red green blue, nx ny nz, then every other
    extra by its name (an extra with k columns as name_0 .. name_{k-1}), and the faces.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"{path}: unknown suffix '{path.suffix}'; scans are written to {', '.join(WRITERS)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file to write")
    try:
        with atomic_file(path) as part:
            (_write_npz if path.suffix.lower() == ".npz" else _write_ply)(scan, part)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def _write_ply(scan: Scan, path: Path) -> None:
    from plyfile import PlyData, PlyElement

    columns = dict(_columns(scan))
    table = np.empty(len(scan), dtype=[(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        table[name] = values
    elements = [PlyElement.describe(table, "vertex")]
    if scan.faces is not None:
        faces = np.empty(len(scan.faces), dtype=[("vertex_indices", "i4", (3,))])
        faces["vertex_indices"] = scan.faces
        elements.append(PlyElement.describe(faces, "face"))
    PlyData(elements, byte_order="<").write(str(path))


def _positions(scan: Scan) -> np.ndarray:
    return scan.points + scan.offset if scan.offset.any() else scan.points


def _columns(scan: Scan) -> Iterator[tuple[str, np.ndarray]]:
    yield from zip("xyz", _positions(scan).T, strict=True)
    if scan.colors is not None:
        yield from zip(("red", "green", "blue"), scan.colors.T, strict=True)
    for name, values in scan.extras.items():
        if name == "normals":
            yield from zip(("nx", "ny", "nz"), _ply_type(values).T, strict=True)
            continue
        name = "_".join(name.split())  # PLY separates words by spaces
        flat = _ply_type(values).reshape(len(scan), -1)
        names = [name] if values.ndim == 1 else [f"{name}_{k}" for k in range(flat.shape[1])]
        yield from zip(names, flat.T, strict=True)


def _ply_type(values: np.ndarray) -> np.ndarray:
    """The nearest type PLY has: at most 32 bits for integers, float32 or float64 for the rest."""
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        small = -(2**31) <= values.min(initial=0) and values.max(initial=0) < 2**31
        return values.astype(np.int32 if small else np.float64)
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values


def _write_npz(scan: Scan, path: Path) -> None:
    arrays = {"points": _positions(scan), "colors": scan.colors, "faces": scan.faces, **scan.extras}
    with open(path, "wb") as file:  # a name would get a second suffix
        np.savez_compressed(file, **{name: values for name, values in arrays.items() if values is not None})
