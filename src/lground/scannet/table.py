"""The data set's label table, scannetv2-labels.combined.tsv: raw category to raw id and NYU40 id."""

import csv
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from lground.errors import InputError

TABLE_NAME = "scannetv2-labels.combined.tsv"
_COLUMNS = ("id", "raw_category", "nyu40id")


@dataclass(frozen=True)
class LabelTable:
    """What each raw category (the words of an annotation) means."""

    raw_id: dict[str, int]  # column `id`: the ids of ScanNet200
    nyu40_id: dict[str, int]  # column `nyu40id`: the ids of ScanNet20; 0 where the cell is empty
    sha256: str


def read_label_table(path: str | os.PathLike) -> LabelTable:
    """Read the user's copy of the table by its column names.

    InputError: not a tsv, columns missing, a cell that is no number, a category with two meanings.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); it comes with ScanNet's download, name "
            "it with --labels"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; expected ScanNet's {TABLE_NAME}") from None
    try:
        rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    except csv.Error as error:
        raise InputError(f"{path}: is not a tab-separated table ({error}); expected {TABLE_NAME}") from None
    missing = [name for name in _COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise InputError(f"{path}: has no column {' or '.join(missing)}; expected ScanNet's {TABLE_NAME}")
    raw_id: dict[str, int] = {}
    nyu40_id: dict[str, int] = {}
    for line, row in enumerate(rows, 2):
        category = row["raw_category"]
        if not category:
            raise InputError(f"{path}: line {line} has no raw_category; download the table again")
        meaning = _number(row, "id", line, path), _number(row, "nyu40id", line, path, empty=0)
        known = raw_id.get(category), nyu40_id.get(category)
        if category in raw_id and known != meaning:
            raise InputError(
                f"{path}: line {line} gives {category!r} the ids {meaning}, an earlier line "
                f"{known}; keep one of them"
            )
        raw_id[category], nyu40_id[category] = meaning
    return LabelTable(raw_id, nyu40_id, hashlib.sha256(data).hexdigest())


def _number(row: dict[str, str], column: str, line: int, path: Path, empty: int | None = None) -> int:
    cell = (row[column] or "").strip()
    if not cell and empty is not None:
        return empty
    if not cell.isdecimal() or len(cell) > 9:
        raise InputError(
            f"{path}: line {line} has {cell!r} in column {column}, expected a number; wrong file?"
        )
    return int(cell)
