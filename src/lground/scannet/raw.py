"""One raw ScanNet scene folder: mesh, over-segmentation, annotation and axis alignment."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.labels import load_labels
from lground.progress import say
from lground.scannet.table import LabelTable
from lground.scans import read_scan

NOT_RIGID = 1e-3  # how far a rotation may be from orthonormal; the files carry six digits


@dataclass
class Annotation:
    """What people said about the N vertices, and how it was said."""

    raw_id: np.ndarray  # (N,) int64, 0 where nothing (known) was said
    nyu40_id: np.ndarray  # (N,) int64, likewise
    instance: np.ndarray  # (N,) int32, contiguous from 0, -1 where nothing was said
    superpoint: np.ndarray  # (N,) int32, contiguous from 0, -1 without over-segmentation
    kind: str | None  # "aggregation", "labels.ply" or None
    unknown: dict[str, int] = field(default_factory=dict)  # category not in the table -> number of objects


@dataclass
class RawScene:
    """A scene as it is written to a prepared folder."""

    coord: np.ndarray  # (N, 3) float32, metres, aligned
    color: np.ndarray  # (N, 3) uint8
    annotation: Annotation
    alignment: np.ndarray | None  # (4, 4) float64, None where the scene has none


def read_raw_scene(
    folder: Path, table: LabelTable, *, align: bool = True, annotated: bool = True
) -> RawScene:
    """Read the raw files of `folder` (named as the scene).

    align: move the vertices by the scene's axisAlignment. annotated: missing annotation is an error (test
    scenes have none). InputError names the file that is missing, damaged or does not fit the mesh.
    """
    folder = Path(folder)
    mesh = folder / f"{folder.name}_vh_clean_2.ply"
    if not mesh.is_file():
        raise InputError(f"{mesh}: is missing; download the scene again")
    scan = read_scan(mesh)
    if scan.colors is None:
        raise InputError(f"{mesh}: has no vertex colours (red, green, blue); is it ScanNet's own mesh?")
    info = folder / f"{folder.name}.txt"
    alignment = read_alignment(info)
    points = scan.points.astype(np.float64) + scan.offset
    if align and alignment is not None:
        points = points @ alignment[:3, :3].T + alignment[:3, 3]
    annotation = _read_annotation(folder, len(scan), table, annotated)
    if align and annotated and not info.is_file():
        say(f"{info}: is missing; the scene stays as it was scanned, not aligned")
    return RawScene(points.astype(np.float32), scan.colors, annotation, alignment)


def read_alignment(path: Path) -> np.ndarray | None:
    """The 4x4 axisAlignment of a scene's .txt file; None if the file or the line is absent."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    values = [line.partition("=")[2] for line in lines if line.partition("=")[0].strip() == "axisAlignment"]
    if not values:
        return None
    try:
        matrix = np.array(values[-1].split(), dtype=np.float64).reshape(4, 4)
    except ValueError:
        raise InputError(f"{path}: its axisAlignment is not 16 numbers; download the file again") from None
    rotation = matrix[:3, :3]
    rigid = (
        np.isfinite(matrix).all()
        and np.abs(rotation @ rotation.T - np.eye(3)).max() < NOT_RIGID
        and np.linalg.det(rotation) > 0
        and np.abs(matrix[3] - (0, 0, 0, 1)).max() < NOT_RIGID
    )
    if not rigid:
        raise InputError(f"{path}: its axisAlignment is not a rotation and a shift; download the file again")
    return matrix


def _read_annotation(folder: Path, count: int, table: LabelTable, required: bool) -> Annotation:
    segments = folder / f"{folder.name}_vh_clean_2.0.010000.segs.json"
    groups = folder / f"{folder.name}.aggregation.json"
    painted = folder / f"{folder.name}_vh_clean_2.labels.ply"
    present = [path for path in (segments, groups) if path.is_file()]
    if len(present) == 2:
        return _from_groups(segments, groups, count, table)
    if not present and painted.is_file():
        return _from_painted(painted, count)
    if present or required:
        missing = segments if groups in present else groups
        raise InputError(f"{missing}: is missing; download the scene's annotation again")
    nothing, none = np.zeros(count, dtype=np.int64), np.full(count, -1, dtype=np.int32)
    return Annotation(nothing, nothing, none, none, kind=None)


def _from_groups(segments: Path, groups: Path, count: int, table: LabelTable) -> Annotation:
    indices = read_segments(segments, count)
    ids, superpoint = np.unique(indices, return_inverse=True)
    superpoint = superpoint.reshape(-1).astype(np.int32)
    raw_id, nyu40_id = np.zeros((2, len(ids)), dtype=np.int64)
    owner = np.full(len(ids), -1, dtype=np.int64)
    unknown: Counter[str] = Counter()
    for number, (category, members) in enumerate(_read_groups(groups)):
        places = np.searchsorted(ids, members).clip(max=len(ids) - 1)
        strange = ids[places] != members
        if strange.any():
            raise InputError(
                f"{groups}: object {number} ({category}) names segment {members[strange][0]}, "
                "which is not in "
                f"{segments.name}; download both files again"
            )
        owner[places] = number  # a later object takes what an earlier one claimed
        raw_id[places] = table.raw_id.get(category, 0)
        nyu40_id[places] = table.nyu40_id.get(category, 0)
        unknown[category] += category not in table.raw_id
    _, renumbered = np.unique(owner, return_inverse=True)
    instance = renumbered.reshape(-1) - (1 if (owner < 0).any() else 0)
    return Annotation(
        raw_id[superpoint],
        nyu40_id[superpoint],
        instance.astype(np.int32)[superpoint],
        superpoint,
        "aggregation",
        {category: times for category, times in sorted(unknown.items()) if times},
    )


def read_segments(path: Path, count: int) -> np.ndarray:
    """Segment of each of `count` vertices (N,) int64, from a .segs.json; the ids are not contiguous."""
    data = _read_json(path)
    indices = _integers(data.get("segIndices"))
    if indices is None:
        raise InputError(f"{path}: has no list of whole numbers `segIndices`; download the file again")
    if len(indices) != count:
        raise InputError(
            f"{path}: has {len(indices)} segment indices for {count} vertices; they belong to "
            "different meshes"
        )
    return indices


def _read_groups(path: Path) -> list[tuple[str, np.ndarray]]:
    groups = _read_json(path).get("segGroups")
    if not isinstance(groups, list):
        raise InputError(f"{path}: has no list `segGroups`; download the file again")
    result = []
    for number, group in enumerate(groups):
        members = _integers(group.get("segments")) if isinstance(group, dict) else None
        if members is None or not isinstance(group.get("label"), str):
            raise InputError(
                f"{path}: object {number} has no label or no list of segments; download it again"
            )
        result.append((group["label"], members))
    return result


def _integers(values: object) -> np.ndarray | None:
    """(n,) int64 of a JSON list of whole numbers that fit, else None."""
    try:
        array = np.array(values)
    except ValueError:  # a list of lists of different lengths
        return None
    whole = isinstance(values, list) and array.ndim == 1 and (array.dtype.kind == "i" or not array.size)
    return array.astype(np.int64) if whole else None


def _read_json(path: Path) -> dict:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is truncated or not JSON ({error}); download the file again") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: is not a JSON object; download the file again")
    return data


def _from_painted(path: Path, count: int) -> Annotation:
    """Labels from the visualisation mesh: NYU40 ids per vertex, no objects.

    Some scenes hold ids that do not exist (50 in scene0270_00 and _02, 149 in scene0384_00): they are counted
    as unknown and left unlabelled.
    """
    nyu40_id = read_scan(path).extras.get("label")
    if nyu40_id is None or nyu40_id.dtype.kind not in "iu":
        raise InputError(f"{path}: has no whole-number vertex property `label`; download the file again")
    if len(nyu40_id) != count:
        raise InputError(
            f"{path}: has {len(nyu40_id)} vertices, the scene's mesh {count}; download both again"
        )
    nyu40_id = nyu40_id.astype(np.int64)
    bad = (nyu40_id != 0) & (load_labels("nyu40").index_of(nyu40_id) < 0)
    values, times = np.unique(nyu40_id[bad], return_counts=True)
    unknown = {f"NYU40 id {value}": int(n) for value, n in zip(values.tolist(), times, strict=True)}
    none = np.full(count, -1, dtype=np.int32)
    return Annotation(
        np.zeros(count, dtype=np.int64), np.where(bad, 0, nyu40_id), none, none, "labels.ply", unknown
    )
