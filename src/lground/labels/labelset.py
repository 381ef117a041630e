"""One reader for every label set: the ones shipped as data and the lists that users bring."""

import colorsys
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lground.errors import InputError

BUILT_IN = ("scannet200", "scannet20", "nyu40")
_DATA = Path(__file__).parent / "data"
_MAX_CLASSES = np.iinfo(np.int16).max  # class indices are stored as int16
_KEYS = {"id", "name", "color", "split", "in_val", "instance_class"}


@dataclass(frozen=True, eq=False)
class LabelSet:
    """C classes in a fixed order; a class index is a position in that order.

    ScanNet200 counts in raw ScanNet ids (column `id` of the label table), ScanNet20 and NYU40 in NYU40 ids:
    the same number means different things in the two (3 is floor in the first, cabinet in the second).
    """

    name: str
    ids: np.ndarray  # (C,) int64, ids as the data set writes them; 0 is never one of them
    names: tuple[str, ...]
    colors: np.ndarray  # (C, 3) uint8
    splits: dict[str, np.ndarray]  # split name -> (n,) int64 class indices; {} when the set has none
    in_val: np.ndarray  # (C,) bool, whether the class occurs in the validation scenes
    instance_class: np.ndarray  # (C,) bool, whether objects of the class are counted (wall and floor are not)

    def __len__(self) -> int:
        return len(self.names)

    def rows(self) -> list[dict]:
        """The entries that `from_rows` makes this set of."""
        split_of = {index: name for name, indices in self.splits.items() for index in indices.tolist()}
        return [
            {
                "id": int(id_),
                "name": name,
                "color": color.tolist(),
                "in_val": bool(in_val),
                "instance_class": bool(inst),
            }
            | ({"split": split_of[index]} if index in split_of else {})
            for index, (id_, name, color, in_val, inst) in enumerate(
                zip(self.ids, self.names, self.colors, self.in_val, self.instance_class, strict=True)
            )
        ]

    def index_of(self, raw_ids: np.ndarray) -> np.ndarray:
        """Class index of each raw id, any shape; int16, -1 where the id is not in the set."""
        raw_ids = np.asarray(raw_ids)
        order = np.argsort(self.ids)
        place = np.searchsorted(self.ids, raw_ids, sorter=order).clip(max=len(self) - 1)
        index = order[place]
        return np.where(self.ids[index] == raw_ids, index, -1).astype(np.int16)


def load_labels(name_or_path: str | os.PathLike = "scannet200") -> LabelSet:
    """Load a label set: "scannet200", "scannet20", "nyu40", or a user's .txt or .json file.

    A .txt file holds one class name per line. A .json file holds a list of names or of objects with `name`
    and, as wanted, `id`, `color` ([r, g, b], 0 to 255), `split`, `in_val` and `instance_class`. What is left
    out gets a default: ids count from 1, colours are spread over the colour circle, every class occurs in
    validation and is an instance class. Raises InputError for a file that is missing, empty or holds
    duplicate names or ids.
    """
    if isinstance(name_or_path, str) and name_or_path in BUILT_IN:
        return _built_in(name_or_path)
    path = Path(name_or_path)
    if path.suffix.lower() not in (".txt", ".json"):
        raise InputError(
            f"{path}: not a label set; give one of {', '.join(BUILT_IN)}, or a .txt or .json "
            "file of class names"
        )
    return from_rows(path.stem, _read_rows(path), path)


@lru_cache
def _built_in(name: str) -> LabelSet:
    path = _DATA / f"{name}.json"
    return from_rows(name, _read_rows(path), path)


def _read_rows(path: Path) -> list[dict]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check the path of the label list"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not text (UTF-8); a label list holds one class name per line"
        ) from error
    if path.suffix.lower() == ".txt":
        return [{"name": line} for line in text.splitlines() if line.strip()]
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error}); write a list of class names") from error
    if not isinstance(rows, list):
        raise InputError(
            f"{path}: holds a JSON {type(rows).__name__}; write a list of class names or of objects"
        )
    return [{"name": row} if isinstance(row, str) else row for row in rows]


def from_rows(name: str, rows: list[dict], path: str | os.PathLike) -> LabelSet:
    """A label set from the entries of a .json list (see `load_labels`); errors name `path`."""
    if not rows:
        raise InputError(f"{path}: holds no class names; write at least one")
    if len(rows) > _MAX_CLASSES:
        raise InputError(f"{path}: holds {len(rows)} classes; at most {_MAX_CLASSES} fit")
    for place, row in enumerate(rows, 1):
        _check_row(row, place, path)
    names = tuple(row["name"].strip() for row in rows)
    ids = np.array([row.get("id", place) for place, row in enumerate(rows, 1)], dtype=np.int64)
    _reject_duplicates([name.casefold() for name in names], "name", path)  # text encoders ignore case
    _reject_duplicates(ids.tolist(), "id", path)
    colors = [row.get("color", default) for row, default in zip(rows, _palette(len(rows)), strict=True)]
    splits: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if "split" in row:
            splits.setdefault(row["split"], []).append(index)
    arrays = {
        "ids": ids,
        "colors": np.array(colors, dtype=np.uint8),
        "in_val": np.array([row.get("in_val", True) for row in rows], dtype=bool),
        "instance_class": np.array([row.get("instance_class", True) for row in rows], dtype=bool),
    }
    split_arrays = {key: np.array(index, dtype=np.int64) for key, index in splits.items()}
    for array in (*arrays.values(), *split_arrays.values()):
        array.setflags(write=False)  # built-in sets are shared between all callers
    return LabelSet(name=name, names=names, splits=split_arrays, **arrays)


def _check_row(row: object, place: int, path: Path) -> None:
    where = f"{path}: entry {place}"
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not row["name"].strip():
        raise InputError(f"{where} has no name; write a string or an object with a `name`")
    unknown = sorted(set(row) - _KEYS)
    if unknown:
        raise InputError(
            f"{where} has the unknown key {unknown[0]!r}; the keys are {', '.join(sorted(_KEYS))}"
        )
    if "id" in row and (type(row["id"]) is not int or not 0 < row["id"] < 2**31):
        raise InputError(
            f"{where} has the id {row['id']!r}; an id is a positive whole number (0 means unlabelled)"
        )
    if "color" in row and not _is_color(row["color"]):
        raise InputError(f"{where} has the color {row['color']!r}; write [r, g, b], each 0 to 255")
    if not isinstance(row.get("split", ""), str):
        raise InputError(f"{where} has the split {row['split']!r}; write a name such as head, common or tail")
    for key in ("in_val", "instance_class"):
        if not isinstance(row.get(key, True), bool):
            raise InputError(f"{where} has {key} = {row[key]!r}; write true or false")


def _is_color(value: object) -> bool:
    return (
        isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)
    )


def _reject_duplicates(values: list, what: str, path: Path) -> None:
    seen: set = set()
    for value in values:
        if value in seen:
            raise InputError(
                f"{path}: the {what} {value!r} occurs more than once; remove or rename one of them"
            )
        seen.add(value)


def _palette(count: int) -> np.ndarray:
    """`count` colours (count, 3) uint8: hues by the golden ratio, so that neighbours look different."""
    hues = np.arange(count) * 0.618033988749895 % 1.0
    values = np.where(np.arange(count) % 2, 0.75, 0.95)
    colors = [colorsys.hsv_to_rgb(h, 0.6, v) for h, v in zip(hues, values, strict=True)]
    return np.rint(np.array(colors) * 255).astype(np.uint8)
