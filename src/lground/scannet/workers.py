"""The same work on many scenes, on several processes, with progress."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from lground.errors import InputError
from lground.progress import track

Job = TypeVar("Job")
Result = TypeVar("Result")


def default_workers() -> int:
    """As many processes as this one may use processors."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int | None, description: str
) -> Iterator[tuple[Job, Result]]:
    """Yield (job, work(job)) as they are done, in any order; `work` is a function of a module."""
    workers = min(default_workers() if workers is None else workers, len(jobs))
    if workers <= 1:
        yield from ((job, work(job)) for job in track(jobs, description))
        return
    # Forking is safe here: the work is numpy and files, no threads, no GPU.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, context, initializer=_follow, initargs=(os.getpid(),)) as pool:
        try:
            futures = {pool.submit(work, job): job for job in jobs}
            for future in track(as_completed(futures), description, total=len(futures)):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed, most likely for memory; run the command again "
                "with fewer --workers"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _follow(parent: int) -> None:
    """Leave interrupts to the parent, and end when it ends, even when it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
