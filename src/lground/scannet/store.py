"""Prepared scenes, read as they lie on disk: this package's stores, Pointcept's, and the original's files."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.labels import load_labels
from lground.scannet.splits import SPLITS, read_scene_list, split_scenes

SEGMENT_FILES = {"scannet200": "segment200.npy", "scannet20": "segment20.npy"}
IGNORED = (-1, 255)  # what data sets in this layout write for "no label"; 255 is a class of neither label set


@dataclass(frozen=True, eq=False)
class PreparedScene:
    """The N vertices of one scene. Arrays are read-only views of the files where their types allow."""

    folder: Path  # the scene's folder, or the file of the original system
    name: str
    coord: np.ndarray  # (N, 3) float32, metres
    color: np.ndarray  # (N, 3) uint8
    instance: np.ndarray  # (N,) int32, -1 where no object
    superpoint: np.ndarray  # (N,) int32, -1 without over-segmentation
    segments: dict[str, np.ndarray] = field(repr=False)  # label set -> (N,) integers, as on disk

    def __len__(self) -> int:
        return len(self.coord)

    def segment(self, label_set: str = "scannet200", rows: np.ndarray | None = None) -> np.ndarray:
        """Class index of each vertex in "scannet200" or "scannet20", (N,) int16, -1 unlabelled.

        rows: (n,) vertices, if only those are wanted.
        """
        if label_set not in self.segments:
            has = ", ".join(self.segments) or "none"
            raise InputError(
                f"{self.folder}: has no labels of {label_set} (it has: {has}); prepare the raw scene"
            )
        values = self.segments[label_set] if rows is None else np.asarray(self.segments[label_set])[rows]
        return _class_indices(values, label_set, self.folder)

    def annotated(self, setting: str | None) -> np.ndarray | None:
        """(N,) bool: the vertices whose label may be used in a setting such as "object-0.05".

        None (all of them) for the setting None. InputError if the masks of the setting were not written.
        """
        if setting is None:
            return None
        path = self.folder / f"annotated.{setting}.npy"
        if not path.is_file():
            root = self.folder.parent.parent
            raise InputError(f"{path}: is missing; write it with: lground prepare {root} --limited {setting}")
        return _column(_open(path), path, len(self), np.dtype(bool))


def open_scene(path: str | os.PathLike) -> PreparedScene:
    """Open a prepared scene folder (this package's or Pointcept's) or an original .ply or .pth file.

    Arrays that are absent are -1 throughout: superpoint, instance, and the labels of a scene that has none.
    """
    path = Path(path)
    if path.suffix in (".ply", ".pth") and path.is_file():
        from lground.scannet.originals import open_original

        return open_original(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such scene; write it with `lground prepare`")
    coord = _required(path, "coord.npy")
    if coord.ndim != 2 or coord.shape[1] != 3 or coord.dtype.kind != "f" or not len(coord):
        raise InputError(f"{path / 'coord.npy'}: expected (N, 3) floats, found {coord.shape} {coord.dtype}")
    color = _required(path, "color.npy")
    if color.shape != coord.shape:
        raise InputError(f"{path / 'color.npy'}: expected {coord.shape} values 0 to 255, found {color.shape}")
    count = len(coord)
    files = {name: path / file for name, file in SEGMENT_FILES.items() if (path / file).is_file()}
    segments = {name: _column(_open(file), file, count) for name, file in files.items()}
    return PreparedScene(
        path,
        path.name,
        coord.astype(np.float32, copy=False),
        _bytes(color, path / "color.npy"),
        _optional(path, "instance.npy", count),
        _optional(path, "superpoint.npy", count),
        segments or {name: np.full(count, -1, np.int16) for name in SEGMENT_FILES},
    )


def list_scenes(root: str | os.PathLike, split: str, subset: str | None = None) -> list[Path]:
    """The scenes of a split, sorted, each to be opened with `open_scene`.

    root: a store (<root>/<split>/<scene>/), or a data root of the original system: .ply files named by
    <root>/<split>.txt or lying in <root>/train and <root>/test, or .pth files named by
    <root>/splits/scannetv2_<split>.txt; without a list, the official one. subset: "scenes-0.10" keeps the
    scenes of <root>/<split>.scenes-0.10.txt.
    """
    root = Path(root)
    if split not in SPLITS:
        raise InputError(f"{split}: not a split; choose one of {', '.join(SPLITS)}")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; write a store with `lground prepare`")
    scenes = sorted(file.parent for file in (root / split).glob("*/coord.npy") if file.parent.name[0] != ".")
    scenes = scenes or _original_files(root, split)
    if not scenes:
        raise InputError(f"{root}: holds no prepared scenes of {split}; write them with `lground prepare`")
    if subset is None:
        return scenes
    path = root / f"{split}.{subset}.txt"
    if not path.is_file():
        raise InputError(f"{path}: is missing; write it with: lground prepare {root} --limited {subset}")
    wanted = read_scene_list(path)
    by_name = {scene_name(scene): scene for scene in scenes}
    if absent := [name for name in wanted if name not in by_name]:
        raise InputError(
            f"{path}: lists {absent[0]}, which is not in {root}; remove the list and write it again"
        )
    return sorted(by_name[name] for name in wanted)


def scene_name(path: Path) -> str:
    """The name of the scene that lies in a folder, or in a file of the original system."""
    return path.stem if path.is_file() else path.name


def _original_files(root: Path, split: str) -> list[Path]:
    paths = [root / f"{split}.txt", root / "splits" / f"scannetv2_{split}.txt"]
    listed = next((read_scene_list(path) for path in paths if path.is_file()), None)
    wanted = set(split_scenes(split) if listed is None else listed)
    files = [file for pattern in ("*.pth", *(f"{s}/*.ply" for s in SPLITS)) for file in root.glob(pattern)]
    return sorted(file for file in files if file.stem in wanted)


def _required(folder: Path, name: str) -> np.ndarray:
    if not (folder / name).is_file():
        raise InputError(
            f"{folder / name}: is missing; this is not a prepared scene, write it with `lground prepare`"
        )
    return _open(folder / name)


def _optional(folder: Path, name: str, count: int) -> np.ndarray:
    path = folder / name
    if not path.is_file():
        return np.full(count, -1, dtype=np.int32)
    return _column(_open(path), path, count).astype(np.int32, copy=False)


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is damaged or not an array ({reason}); prepare the scene again") from None


def _column(array: np.ndarray, path: Path, count: int, dtype: np.dtype | None = None) -> np.ndarray:
    """(N,) integers (or `dtype`); some writers store them as (N, 1)."""
    fits = array.dtype == dtype if dtype is not None else array.dtype.kind in "iu"
    if array.shape not in ((count,), (count, 1)) or not fits:
        raise InputError(
            f"{path}: expected {dtype or 'integers'} for {count} vertices, found {array.shape} {array.dtype};"
            " prepare the scene again"
        )
    return array.reshape(-1)


def _bytes(color: np.ndarray, path: Path) -> np.ndarray:
    if color.dtype == np.uint8:
        return color
    if color.dtype.kind not in "iuf" or not (np.isfinite(color) & (color >= 0) & (color <= 255)).all():
        raise InputError(f"{path}: expected colours from 0 to 255; prepare the scene again")
    return np.rint(color).astype(np.uint8)


def _class_indices(values: np.ndarray, label_set: str, source: Path) -> np.ndarray:
    classes = len(load_labels(label_set))
    inside = (values >= 0) & (values < classes)
    strange = values[~(inside | np.isin(values, IGNORED))]
    if len(strange):
        raise InputError(
            f"{source}: its {label_set} labels hold {strange[0]}; expected class indices 0 to "
            f"{classes - 1} or -1"
        )
    if values.dtype == np.int16 and (inside | (values == -1)).all():
        return values
    return np.where(inside, values, np.int64(-1)).astype(np.int16)  # a bare -1 would wrap in unsigned values
