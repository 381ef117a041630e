"""One writer to a store at a time, and nothing left of those that were killed."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lground.errors import InputError

PATIENCE = 5.0  # seconds to wait for another writer; the workers of a killed run end within one


@contextmanager
def only_one_writer(root: Path) -> Iterator[None]:
    """Hold the store `root` for this process; InputError if another one is writing to it.

    The workers of a killed run share its lock until they notice, so wait a little for them.
    """
    import fcntl

    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{root}: cannot be written to ({error.strerror}); choose another folder") from None
    give_up = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise InputError(
                        f"{root}: another lground is writing to it; wait for it to end"
                    ) from None
                time.sleep(0.1)
            except OSError:  # some network file systems have no locks
                break
        yield
    finally:
        os.close(handle)


def remove_stale_parts(root: Path) -> None:
    """Remove what a killed run left half-written."""
    for folder in ("", "*/", "*/*/"):
        for part in (*root.glob(f"{folder}.*.part"), *root.glob(f"{folder}.*.part.*")):
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
