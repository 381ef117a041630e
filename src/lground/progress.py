"""Progress of long work: a bar with an estimate on a terminal, a line now and then without one."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
LINE_EVERY = 15.0  # seconds between lines when there is no terminal


def speaks() -> bool:
    """Whether this process talks to the person: of several (torchrun, SLURM) only the first does."""
    return os.environ.get("RANK", "0") == "0"


def say(message: str) -> None:
    """One line about the work for the person who started it (stderr, so that stdout stays for results)."""
    if speaks():
        print(message, file=sys.stderr, flush=True)


class Progress:
    """Shows how far `total` units of work are: `with Progress("train", 100) as bar: bar.advance("loss 0.3")`."""

    def __init__(self, description: str, total: int, done: int = 0) -> None:
        self.description, self.total, self.done = description, total, done
        self._start = self._last = time.monotonic()
        self._start_done = done
        self._bar = _terminal_bar() if speaks() and sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total, completed=self.done, note="")
        return self

    def __exit__(self, *_) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, note: str = "") -> None:
        self.done += 1
        if self._bar:
            self._bar.update(self._task, advance=1, note=note)
            return
        now = time.monotonic()
        if now - self._last >= LINE_EVERY and self.done < self.total:
            self._last = now
            left = (now - self._start) / (self.done - self._start_done) * (self.total - self.done)
            note = f", {note}" if note else ""
            say(f"{self.description}: {self.done}/{self.total}{note}, about {left:.0f} s left")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` while showing how far the work is and how long it will take."""
    with Progress(description, total if total is not None else len(items)) as bar:  # type: ignore[arg-type]
        for item in items:
            yield item
            bar.advance()


def _terminal_bar():
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return RichProgress(*columns, console=Console(stderr=True), transient=True)
