"""What commands check about the files they will write, before the long work."""

import os
from pathlib import Path

from lground.errors import InputError


def check_outputs(
    source: Path | None, *outputs: tuple[Path | None, tuple[str, ...]], what: str = "scan"
) -> None:
    """Raise InputError for an output (path, suffixes) that cannot be written or would be in place of another file.

    That is: a wrong suffix, a folder, the input (`what` it is, in words), another output, a place where nothing can be
    written.
    """
    taken = {} if source is None else {source.resolve(): f"would overwrite the {what} itself"}
    for path, suffixes in outputs:
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            raise InputError(f"{path}: is written as {' or '.join(suffixes)}; change the suffix")
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file to write")
        if path.resolve() in taken:
            raise InputError(f"{path}: {taken[path.resolve()]}; give another name")
        taken[path.resolve()] = "is to hold another output as well"
        check_place(path)


def check_folder(path: Path) -> None:
    """Raise InputError where a folder of results cannot be made."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; name a folder for the results")
    check_place(path)


def check_place(path: Path) -> None:
    """Raise InputError where nothing can be written at `path`."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise InputError(f"{path}: {there} is a file, not a folder; give another path")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{path}: nothing may be written in {there}; give another path")
