"""Tables of text vectors as files: safetensors, NumPy's formats, pickles by a loader that runs nothing."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lground.errors import InputError
from lground.text.pickled import read_pickled_table

SUFFIXES = (".safetensors", ".npz", ".npy", ".pkl", ".pickle", ".pt", ".pth")


@dataclass(frozen=True, eq=False)
class Table:
    """One table as a file holds it."""

    vectors: Tensor  # (C, d) or (C, 9, d) float32
    names: tuple[str, ...] | None = None
    encoder: str = ""
    prompt: str = ""


def read_table(path: Path) -> Table:
    """Read a table by its suffix; raises InputError for a missing, broken or wrong file."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: not a table of anchors; give one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with 'lground anchors'")
    read = {".safetensors": _read_safetensors, ".npz": _read_npz, ".npy": _read_npy}.get(
        path.suffix, _read_pickle
    )
    try:
        table = read(path)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: cannot be read ({reason}); copy or make it again") from error
    shape = tuple(table.vectors.shape)
    if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[1] != 9):
        raise InputError(
            f"{path}: its table is {shape}; (classes, channels) or (classes, 9, channels) is needed"
        )
    if table.names is not None and len(table.names) != len(table.vectors):
        raise InputError(f"{path}: has {len(table.names)} names for {shape[0]} anchors; make it again")
    return table


def _read_safetensors(path: Path) -> Table:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors, metadata = set(file.keys()), file.metadata() or {}
            vectors = file.get_tensor("anchors") if "anchors" in tensors else None
    except SafetensorError as error:
        raise ValueError(error) from error
    if vectors is None:
        raise InputError(f"{path}: has no tensor 'anchors'; make it with 'lground anchors'")
    names = json.loads(metadata.get("names", "null"))
    if names is not None and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        raise InputError(f"{path}: its names are not a list of strings; make it again with 'lground anchors'")
    names = tuple(names) if names is not None else None
    return Table(_float32(vectors, path), names, metadata.get("encoder", ""), metadata.get("prompt", ""))


def _read_npy(path: Path) -> Table:
    # A memory map compares the size in the header with the file before any memory is asked for.
    return Table(_float32(np.load(path, allow_pickle=False, mmap_mode="r"), path))


def _read_npz(path: Path) -> Table:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    tables = {key: a for key, a in arrays.items() if a.dtype.kind == "f" and a.ndim in (2, 3)}
    if "anchors" in tables:
        tables = {"anchors": tables["anchors"]}
    if len(tables) != 1:
        found = ", ".join(tables) or "none"
        raise InputError(f"{path}: keep one table, or name one 'anchors' (its tables: {found})")
    names = arrays.get("names", np.empty(0))
    known = names.dtype.kind == "U" and names.ndim == 1
    return Table(_float32(*tables.values(), path), tuple(names.tolist()) if known else None)


def _read_pickle(path: Path) -> Table:
    return Table(_float32(read_pickled_table(path), path))


def _float32(values: Tensor | np.ndarray, path: Path) -> Tensor:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        return torch.from_numpy(np.array(values, dtype=np.float32))
    if isinstance(values, Tensor) and not values.is_complex() and values.dtype != torch.bool:
        return values.detach().cpu().float()
    raise InputError(f"{path}: holds {values.dtype}, not numbers; give a table of floats")
