"""Progress of long work: a bar with an estimate on a terminal, a line now and then without one."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
LINE_EVERY = 15.0  # seconds between lines when there is no terminal


def say(message: str) -> None:
    """One line about the work for the person who started it (stderr, so that stdout stays for results)."""
    print(message, file=sys.stderr, flush=True)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` while showing how far the work is and how long it will take."""
    total = total if total is not None else len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, description, total=total, console=Console(stderr=True), transient=True)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_EVERY and done < total:
            last = now
            left = (now - start) / done * (total - done)
            say(f"{description}: {done}/{total}, about {left:.0f} s left")
