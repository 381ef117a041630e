"""What commands check about the files they will write, before the long work."""

from collections.abc import Mapping
from pathlib import Path

from lground.errors import InputError


def check_outputs(source: Path, outputs: Mapping[Path | None, tuple[str, ...]]) -> None:
    """Raise InputError for an output of a wrong suffix, in place of a folder, or in place of the input."""
    for path, suffixes in outputs.items():
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            raise InputError(f"{path}: is written as {' or '.join(suffixes)}; change the suffix")
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file to write")
        if path.resolve() == source.resolve():
            raise InputError(f"{path}: would overwrite the scan itself; give another name")
