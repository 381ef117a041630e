"""The files that the original system's own preprocessing wrote, opened as they are."""

from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.labels import load_labels
from lground.scannet.store import PreparedScene
from lground.scans import read_scan


def open_original(path: Path) -> PreparedScene:
    """Open the original's `<scene>.ply` (semantic segmentation) or `<scene>.pth` (instance segmentation).

    Both hold raw ScanNet ids, so only ScanNet200 labels can be had from them; there are no superpoints.
    """
    points, colors, raw_id, instance = _read_ply(path) if path.suffix == ".ply" else _read_pth(path)
    none = np.full(len(points), -1, dtype=np.int32)
    segments = {"scannet200": load_labels("scannet200").index_of(raw_id)}
    return PreparedScene(path, path.stem, points, colors, instance, none, segments)


def _read_ply(path: Path) -> tuple[np.ndarray, ...]:
    """Vertices x y z red green blue label instance_id; instance 0 is the first object and also "none"."""
    scan = read_scan(path)
    raw_id, instance = scan.extras.get("label"), scan.extras.get("instance_id")
    if scan.colors is None or raw_id is None or instance is None:
        raise InputError(
            f"{path}: has no vertex colours, label and instance_id; not the original's prepared scene"
        )
    raw_id = raw_id.astype(np.int64)
    return scan.points, scan.colors, raw_id, _renumber(instance, raw_id != 0)


def _read_pth(path: Path) -> tuple[np.ndarray, ...]:
    """A tuple of float64 arrays: points, colours, raw ids, and objects counted from 1 (0 is none)."""
    values = _load_arrays(path)
    good = (
        isinstance(values, tuple | list)
        and len(values) == 4
        and all(isinstance(value, np.ndarray) and value.dtype.kind in "iuf" for value in values)
        and [value.ndim for value in values] == [2, 2, 1, 1]
        and values[0].shape[1] == values[1].shape[1] == 3
        and len({len(value) for value in values}) == 1
        and len(values[0]) > 0
    )
    if not good:
        raise InputError(f"{path}: expected the four arrays points, colours, labels, instances of one scene")
    if not all(np.isfinite(value).all() for value in values):
        raise InputError(f"{path}: holds NaN or infinite values; write it again")
    points, colors, raw_id, instance = values
    return (
        points.astype(np.float32),
        np.rint(colors).clip(0, 255).astype(np.uint8),
        raw_id.astype(np.int64),
        _renumber(instance, instance > 0),
    )


def _load_arrays(path: Path) -> object:
    import pickle

    import torch

    # What numpy arrays need, under the names that numpy 1 and 2 pickle them by; nothing else is unpickled.
    rebuild = np.zeros(0).__reduce__()[0]
    allowed = [
        *((rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        np.ndarray,
        np.dtype,
        *{type(np.dtype(kind)) for kind in "fdbhilqBHILQ"},
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: cannot be read as a prepared scene ({reason})") from None


def _renumber(instance: np.ndarray, is_object: np.ndarray) -> np.ndarray:
    """Objects counted from 0 without gaps, -1 elsewhere."""
    result = np.full(len(instance), -1, dtype=np.int32)
    result[is_object] = np.unique(instance[is_object], return_inverse=True)[1].reshape(-1)
    return result
