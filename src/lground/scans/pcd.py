"""PCD, the Point Cloud Library's format: ascii, binary and binary_compressed."""

from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.scans.raw import RawScan, ensure_memory, from_table, one_line

LONGEST_HEADER = 1 << 16
PACKED = {"red": 16, "green": 8, "blue": 0}  # where each colour's byte starts in `rgb`
KINDS = {"F": "f", "I": "i", "U": "u"}


def read_pcd(path: Path) -> RawScan:
    """Points, colours (packed `rgb`/`rgba` or r, g, b), normals; other single-valued fields become extras."""
    header, start = _read_header(path)
    try:
        dtype, count = _layout(header)
        table = _read_table(path, header["DATA"][0].lower(), dtype, count, start)
    except InputError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: its PCD header or data is damaged ({one_line(error)})") from None
    single = [name for name in table.dtype.names if not table.dtype[name].shape and not name.startswith("_")]
    columns = {name: table[name] for name in single}
    for name in ("rgb", "rgba"):
        if name in columns and columns[name].dtype.itemsize == 4:
            packed = np.ascontiguousarray(columns.pop(name)).view(np.uint32)
            columns |= {
                c: (packed >> s & 255).astype(np.uint8) for c, s in (("red", 16), ("green", 8), ("blue", 0))
            }
    return from_table(columns, path)


def _read_header(path: Path) -> tuple[dict[str, list[str]], int]:
    with open(path, "rb") as file:
        text = file.read(LONGEST_HEADER)
    header: dict[str, list[str]] = {}
    position = 0
    while "DATA" not in header:
        end = text.find(b"\n", position)
        if end < 0:
            raise InputError(f"{path}: is not a PCD file (no DATA line in its header)")
        key, *values = text[position:end].split(b"#")[0].decode("ascii", "replace").split() or [""]
        header[key] = values
        position = end + 1
    return header, position


def _layout(header: dict[str, list[str]]) -> tuple[np.dtype, int]:
    names = header["FIELDS"]
    counts = header.get("COUNT", ["1"] * len(names))
    fields = []
    for k, (name, size, kind, count) in enumerate(
        zip(names, header["SIZE"], header["TYPE"], counts, strict=True)
    ):
        name = f"_{k}" if name == "_" else name  # "_" is padding
        base = np.dtype(f"<{KINDS[kind]}{int(size)}")
        fields.append((name, base) if int(count) == 1 else (name, base, (int(count),)))
    points = header["POINTS"][0] if "POINTS" in header else int(header["WIDTH"][0]) * int(header["HEIGHT"][0])
    if int(points) < 0:
        raise ValueError(f"{points} points")
    return np.dtype(fields), int(points)


def _read_table(path: Path, encoding: str, dtype: np.dtype, count: int, start: int) -> np.ndarray:
    room = path.stat().st_size - start
    # An ascii value takes two bytes at least; LZF packs at most 264 bytes into 3.
    values = sum(int(np.prod(dtype[name].shape)) for name in dtype.names)
    least = {"ascii": count * values * 2 - 1, "binary": count * dtype.itemsize}
    if encoding not in (*least, "binary_compressed"):
        raise InputError(
            f"{path}: unknown PCD encoding '{encoding}'; ascii, binary and binary_compressed are read"
        )
    if least.get(encoding, count * dtype.itemsize // 88) > room:
        raise InputError(f"{path}: is truncated: its header promises {count} points, {room} bytes follow it")
    ensure_memory(count * (3 * dtype.itemsize + 64), str(path), "thin the cloud out or cut out a part")
    if encoding == "binary":
        return np.fromfile(path, dtype, count, offset=start)
    with open(path, "rb") as file:
        file.seek(start)
        if encoding == "ascii":
            return _parse_text(file, dtype, count)
        packed, size = np.frombuffer(file.read(8), "<u4").tolist()
        if size != count * dtype.itemsize:
            raise ValueError(f"{size} bytes unpacked for {count} points of {dtype.itemsize}")
        return _columns_to_rows(lzf_decompress(file.read(packed), size), dtype, count)


def _parse_text(file, dtype: np.dtype, count: int) -> np.ndarray:
    table = np.loadtxt(file, dtype=np.float64, ndmin=2, max_rows=count, comments=None)
    if len(table) != count:
        raise ValueError(f"{len(table)} of {count} points")
    rows, column = np.zeros(count, dtype), 0
    for name in dtype.names:
        width = int(np.prod(dtype[name].shape))
        block = table[:, column : column + width].reshape(rows[name].shape)
        if name in ("rgb", "rgba") and dtype[name].kind == "f" and (block >= 1).all():
            rows[name] = block.astype(np.uint32).view(np.float32)  # some writers print the packed integer
        else:
            rows[name] = block
        column += width
    return rows


def _columns_to_rows(data: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    """binary_compressed stores field after field instead of point after point."""
    rows, position = np.zeros(count, dtype), 0
    for name in dtype.names:
        base, shape = dtype[name].base, dtype[name].shape
        values = count * int(np.prod(shape))
        rows[name] = np.frombuffer(data, base, values, position).reshape(count, *shape)
        position += values * base.itemsize
    return rows


def lzf_decompress(data: bytes, size: int) -> bytes:
    """Unpack LZF: runs of literal bytes, and references (length, distance) to what was unpacked before."""
    out, i = bytearray(), 0
    while i < len(data) and len(out) <= size:
        control = data[i]
        i += 1
        if control < 32:
            out += data[i : i + control + 1]
            i += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[i]
            i += 1
        length += 2
        begin = len(out) - ((control & 31) << 8) - data[i] - 1
        i += 1
        if begin < 0:
            raise ValueError("a reference before the start")
        piece = out[begin : begin + length]
        while len(piece) < length:  # the reference overlaps its own result: the piece repeats
            piece += piece[: length - len(piece)]
        out += piece
    if len(out) != size:
        raise ValueError(f"{len(out)} of {size} bytes unpacked")
    return bytes(out)
