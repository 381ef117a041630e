"""Processes that a launcher started end together: the first error of any is raised there alone, and ends all.

The others would wait for that process, with NCCL for many minutes, or fail in turn, each with a traceback.
"""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

from lground.training.launch import take_from_slurm

FAILED, SAID, GONE = "lground/failed", "lground/said", "lground/gone"  # keys of the store that all share
LOOK_EVERY = 1.0  # seconds
WAIT = timedelta(seconds=10)  # at most, for one another


@contextmanager
def ending_together() -> Iterator[None]:
    """Within the block an error ends all processes of a launcher; those where it was not first say nothing."""
    take_from_slurm()
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    store, rank, size = next(dist.rendezvous("env://"))
    over = threading.Event()
    looking = threading.Thread(target=_end_with_others, args=(store, rank, size, over), daemon=True)
    looking.start()
    try:
        yield
    except Exception:
        with suppress(dist.DistError):  # the store has gone with the main process
            if int(store.compare_set(FAILED, "", str(rank))) != rank:
                _end(store, rank, size)
            atexit.register(_end_others, store, rank, size)  # when the error has been said
        raise
    finally:
        over.set()
        looking.join(WAIT.total_seconds())  # Python must not end while a thread is within torch


def _end_others(store: dist.Store, rank: int, size: int) -> None:
    with suppress(dist.DistError):
        store.set(SAID, "")
        store.wait([f"{GONE}/{other}" for other in range(size) if other != rank], WAIT)
        store.set(f"{GONE}/{rank}", "")


def _end_with_others(store: dist.Store, rank: int, size: int, over: threading.Event) -> None:
    with suppress(dist.DistError):
        while not over.wait(LOOK_EVERY):
            if store.check([SAID]):
                _end(store, rank, size)


def _end(store: dist.Store, rank: int, size: int) -> None:
    """End this process, wherever its main thread is; not before the error is said: a launcher may end all at once."""
    try:
        store.wait([SAID], WAIT)
        store.set(f"{GONE}/{rank}", "")
        if rank == 0:  # it may hold the store, through which the others hear
            store.wait([f"{GONE}/{other}" for other in range(size)], WAIT)
    finally:
        os._exit(2)
