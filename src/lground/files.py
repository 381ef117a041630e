"""Files that are either whole or absent: write beside the target, then rename."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def _beside(path: Path, make: Callable[..., T], suffix: str) -> T:
    """What `make` of tempfile makes beside `path`; an OSError names `path`, not what would have been beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return make(prefix=f".{path.name}.", suffix=suffix, dir=path.parent)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path (same suffix) that replaces `path` when the block ends well and vanishes otherwise."""
    path = Path(path)
    handle, name = _beside(path, tempfile.mkstemp, ".part" + path.suffix)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)  # mkstemp makes files private; a result should read like any other file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Write `data` as JSON, whole or not at all."""
    with atomic_file(path) as part:
        part.write_text(json.dumps(data, indent=1) + "\n")


@contextmanager
def atomic_dir(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` (which must not exist) when the block ends well."""
    path = Path(path)
    part = Path(_beside(path, tempfile.mkdtemp, ".part"))
    try:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o777 & ~umask)
        os.rename(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
