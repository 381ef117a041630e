"""PLY, ascii and binary, through plyfile. It trusts headers, so they are checked against the file first."""

import io
import re
from pathlib import Path

import numpy as np
import plyfile

from lground.errors import InputError
from lground.progress import say
from lground.scans.raw import RawScan, ensure_memory, from_table, one_line

LONGEST_HEADER = 1 << 20  # bytes
FACE_LISTS = ("vertex_indices", "vertex_index")
_COUNT = re.compile(rb"(?<=[\r\n])([ \t]*element[ \t]+\S+[ \t]+)(\S+)")


def read_ply(path: Path) -> RawScan:
    """Read the vertices and faces of a PLY file; other per-vertex scalars become extras."""
    _check_header(path)
    elements = {element.name: element.data for element in _parse(path)}
    if "vertex" not in elements:
        raise InputError(f"{path}: has no vertices, only {', '.join(elements) or 'a header'}; not a scan")
    vertex = elements["vertex"]
    columns = {name: vertex[name] for name in vertex.dtype.names or () if vertex.dtype[name].kind != "O"}
    if "tristrips" in elements:
        say(f"{path}: warning: triangle strips are not read; the scan is taken as a cloud")
    return from_table(columns, path, _faces(elements.get("face"), path))


def _check_header(path: Path) -> None:
    """Refuse what is not a PLY and counts that the file's size cannot hold, before anything is allocated."""
    with open(path, "rb") as file:
        start = file.read(LONGEST_HEADER)
        size = file.seek(0, io.SEEK_END)
    end = start.find(b"end_header")
    if start[:3] != b"ply" or start[3:4] not in (b"\r", b"\n") or end < 0:
        raise InputError(f"{path}: is not a PLY file (no 'ply' ... 'end_header' at its start)")
    header = start[: end + len(b"end_header")] + (b"\r\n" if start[3:5] == b"\r\n" else start[3:4])
    # The same header with all counts zero: plyfile then parses it without reading or allocating rows.
    empty = _guarded(
        path, lambda: plyfile.PlyData.read(io.BytesIO(_COUNT.sub(rb"\g<1>0", header)), mmap=False)
    )
    counts = [_whole(count, path) for _, count in _COUNT.findall(header)]
    least = rows = 0
    for element, count in zip(empty.elements, counts, strict=True):
        row = sum(_least_bytes(p, empty.text) for p in element.properties)
        if count and not row:
            raise InputError(f"{path}: its header names {count} rows of '{element.name}' without properties")
        if count > size or least + count * row > size - len(header) + 1:  # the last line may lack its newline
            fits = max(0, size - len(header) - least) // row
            raise InputError(
                f"{path}: is truncated or damaged: its header promises {count} rows of '{element.name}', "
                f"the file has room for {fits}; copy or export it again"
            )
        least += count * row
        rows += count
    ensure_memory(2 * size + 64 * rows, str(path), "thin the cloud out or cut out a part")


def _least_bytes(prop: plyfile.PlyProperty, text: bool) -> int:
    if text:
        return 2  # a digit and what separates it
    kind = prop.len_dtype if isinstance(prop, plyfile.PlyListProperty) else prop.val_dtype
    return np.dtype(kind).itemsize


def _whole(count: bytes, path: Path) -> int:
    if not count.isdigit() or len(count) > 18:
        raise InputError(
            f"{path}: its header holds the count '{count[:40].decode('ascii', 'replace')}'; damaged"
        )
    return int(count)


def _parse(path: Path) -> plyfile.PlyData:
    triangles = {"face": {name: 3 for name in FACE_LISTS}}
    try:  # one read when all faces are triangles, a hundred times faster than face by face
        return plyfile.PlyData.read(str(path), known_list_len=triangles)
    except Exception:  # other polygons, or damage, which the plain read puts into words
        return _guarded(path, lambda: plyfile.PlyData.read(str(path), mmap=False))


def _guarded(path: Path, read):
    try:
        return read()
    except UnicodeDecodeError:
        raise InputError(f"{path}: holds bytes that are not ASCII where PLY wants text; damaged?") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # whatever a damaged file makes the parser stumble over
        raise InputError(f"{path}: is truncated or damaged ({one_line(error)}); export it again") from error


def _faces(face: np.ndarray | None, path: Path) -> np.ndarray | None:
    name = next((n for n in FACE_LISTS if face is not None and n in (face.dtype.names or ())), None)
    if name is None or not len(face):
        return None
    lists = face[name]
    if lists.dtype == object:
        return fan(lists)
    if lists.ndim != 2:
        raise InputError(f"{path}: '{name}' of its faces is not a list; damaged")
    return _indices(lists)


def fan(polygons: np.ndarray) -> np.ndarray:
    """(F, 3) int64 triangles of polygons, an object array of index lists; under three corners give none."""
    sizes = np.array([len(polygon) for polygon in polygons])
    corners = _indices(np.concatenate(polygons))
    starts = np.cumsum(sizes) - sizes
    triangles = np.maximum(sizes - 2, 0)
    first = np.repeat(starts, triangles)
    step = np.arange(triangles.sum()) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    return corners[np.stack([first, first + step + 1, first + step + 2], axis=1)]


def _indices(values: np.ndarray) -> np.ndarray:
    """int64; indices stored as floats that are not numbers become -1, which the range check reports."""
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values) & (np.abs(values) < 2**53), values, -1)
    return values.astype(np.int64)
