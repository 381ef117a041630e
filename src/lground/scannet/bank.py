"""The rare objects of a store's training scenes: where they are, so that they can be set into other scenes.

An index and no copies: the points stay in the scenes' arrays. It holds the objects of the common and tail classes
of ScanNet200, for the instance sampling of the language-grounded paper (section 4.2).
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.files import write_json
from lground.labels import load_labels
from lground.scannet.store import list_scenes, open_scene, scene_name
from lground.scannet.workers import run_jobs
from lground.scannet.writer import only_one_writer, remove_stale_parts

FILE = "bank.json"
FORMAT = 1
LABEL_SET = "scannet200"
SPLITS = ("common", "tail")
ARRAYS = ("coord.npy", "instance.npy", "segment200.npy")  # what the index depends on


@dataclass(frozen=True, eq=False)
class Bank:
    """K objects of the training scenes of a store."""

    path: Path
    scenes: tuple[str, ...]  # all that were looked through, sorted
    scene: np.ndarray  # (K,) int64, position in `scenes`
    instance: np.ndarray  # (K,) int64, as in the scene's instance.npy
    label: np.ndarray  # (K,) int64, class index in ScanNet200
    vertices: np.ndarray  # (K,) int64, how many the object has
    box: np.ndarray  # (K, 2, 3) float32, lowest and highest coordinates in metres

    def __len__(self) -> int:
        return len(self.scene)


def build_bank(root: str | os.PathLike, *, workers: int | None = None) -> str:
    """Write <root>/bank.json for the training scenes of the prepared store `root`; returns a line about it.

    Scenes that did not change since the last time are not read again. InputError if a scene is damaged or has no
    ScanNet200 labels; a bank that is there then stays as it is.
    """
    root = Path(root)
    scenes = list_scenes(root, "train")
    with only_one_writer(root):
        remove_stale_parts(root)
        known = _unchanged(root / FILE, scenes)
        todo = [scene for scene in scenes if scene_name(scene) not in known]
        looked = run_jobs(_look, todo, workers, "Indexing objects")
        found = known | {scene_name(scene): entry for scene, entry in looked}
        entries = {name: found[name] for name in map(scene_name, scenes)}
        if todo or entries.keys() != _read(root / FILE).keys():
            write_json(root / FILE, {"format": FORMAT, "label_set": LABEL_SET, "scenes": entries})
    objects = [row for entry in entries.values() for row in entry["objects"]]
    classes = {row["class"] for row in objects}
    return (
        f"bank of rare objects: {len(objects)} objects of {len(classes)} classes in {len(entries)} training scenes, "
        f"{len(todo)} looked through now"
    )


def open_bank(root: str | os.PathLike) -> Bank:
    """Read the bank of a prepared store; InputError, which says how to write it, if it is missing or damaged."""
    path = Path(root) / FILE
    if not path.is_file():
        raise InputError(f"{path}: is missing; write it with: lground prepare {root} --bank")
    try:
        entries = _read(path)
        rows = [(k, row) for k, entry in enumerate(entries.values()) for row in entry["objects"]]
        return Bank(
            path,
            tuple(entries),
            scene=np.array([k for k, _ in rows], dtype=np.int64),
            instance=np.array([row["instance"] for _, row in rows], dtype=np.int64),
            label=np.array([row["class"] for _, row in rows], dtype=np.int64),
            vertices=np.array([row["vertices"] for _, row in rows], dtype=np.int64),
            box=np.array([row["box"] for _, row in rows], dtype=np.float32).reshape(-1, 2, 3),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise InputError(f"{path}: is damaged; remove it and write it with: lground prepare {root} --bank")


def _read(path: Path) -> dict[str, dict]:
    """Scene name -> its entry; nothing if there is no bank of this format."""
    try:
        data = json.loads(path.read_bytes())
        return data["scenes"] if data["format"] == FORMAT and data["label_set"] == LABEL_SET else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _unchanged(path: Path, scenes: list[Path]) -> dict[str, dict]:
    """The entries of the bank `path` that still hold: none of the scene's arrays is newer than the bank."""
    entries = _read(path)
    written = path.stat().st_mtime_ns if entries else 0
    old = {scene_name(scene) for scene in scenes if _changed_at(scene) < written}
    return {name: entry for name, entry in entries.items() if name in old}


def _changed_at(scene: Path) -> int:
    files = [scene / name for name in ARRAYS] if scene.is_dir() else [scene]
    return max(file.stat().st_mtime_ns for file in files if file.exists())


def _look(path: Path) -> dict:
    """The entry of one scene: its vertices and its objects of the classes of `SPLITS`."""
    scene = open_scene(path)
    labels = load_labels(LABEL_SET)
    rare = np.concatenate([labels.splits[split] for split in SPLITS])
    segment = scene.segment(LABEL_SET)
    instance, label, where = _objects(scene.instance, segment, len(labels))
    objects = [
        {
            "instance": number,
            "class": kind,
            "vertices": len(rows),
            "box": _box(scene.coord[rows]),
        }
        for number, kind, rows in zip(instance, label, where, strict=True)
        if kind in rare
    ]
    return {"vertices": len(scene), "objects": objects}


def _box(points: np.ndarray) -> list[list[float]]:
    """Lowest and highest coordinates, to a tenth of a millimetre."""
    corners = np.stack([points.min(axis=0), points.max(axis=0)]).astype(np.float64)
    return corners.round(4).tolist()


def _objects(
    instance: np.ndarray, segment: np.ndarray, classes: int
) -> tuple[list[int], list[int], list[np.ndarray]]:
    """Instances, the most frequent label of each (-1 without any), and the vertices (n,) of each in file order."""
    order = np.argsort(instance, kind="stable")
    order = order[np.searchsorted(instance[order], 0) :]
    numbers, starts = np.unique(instance[order], return_index=True)
    rows = np.split(order, starts[1:]) if len(numbers) else []
    votes = [np.bincount(segment[at] + 1, minlength=classes + 1)[1:] for at in rows]
    return numbers.tolist(), [int(v.argmax()) if v.any() else -1 for v in votes], rows
