"""Several runs at a time, and none that would not end in time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lground.progress import say

HERE = Path(__file__).parent
SPARE = 1.15  # of the time that such a run took before


@dataclass
class Turns:
    """Start the processes of runs, `at_once` of them side by side, until all are done or time is up.

    expected(job): seconds that the run will take, 0 when nobody knows. deadline: as `time.monotonic` counts.
    gpus: names of those that runs are dealt out to, as CUDA_VISIBLE_DEVICES takes them; empty: the CPU.
    """

    at_once: int
    deadline: float
    expected: Callable[[dict], float]
    gpus: list[str]
    running: dict[str, tuple[subprocess.Popen, dict, str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    warm: bool = False

    def run(self, jobs: Iterable[dict]) -> list[dict]:
        """Returns the jobs that were not started for lack of time."""
        waiting = list(jobs)
        total = len(waiting)
        try:
            while waiting or self.running:
                self._collect()
                while len(self.running) < self._room() and (job := self._next(waiting)):
                    waiting.remove(job)
                    self._start(job, total - len(waiting), total)
                if not self.running:
                    break
                time.sleep(0.2)
        finally:
            for process, *_ in self.running.values():
                process.kill()
                process.wait()
        return waiting

    def _room(self) -> int:
        """For how many runs: on GPUs one, until it has compiled the kernels for all."""
        if self.gpus and not self.warm:
            self.warm = any("loss" in _screen(job).read_text() for _, job, _ in self.running.values())
            return 1
        return self.at_once

    def _next(self, waiting: list[dict]) -> dict | None:
        left = self.deadline - time.monotonic()
        return next((job for job in waiting if 0 < left > SPARE * self.expected(job)), None)

    def _start(self, job: dict, number: int, total: int) -> None:
        say(f"run {number} of {total}: {job['name']}")
        file = Path(f"{job['folder']}.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(job))
        threads = str(max(1, (os.cpu_count() or 1) // self.at_once))
        gpu = self._free_gpu()
        with open(_screen(job), "w") as screen:
            process = subprocess.Popen(
                [sys.executable, HERE, "--run", file],
                stdin=subprocess.PIPE,  # closes when this process ends, and the run ends with it
                stdout=screen,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": threads, **os.environ, "CUDA_VISIBLE_DEVICES": gpu},
            )
        self.running[job["name"]] = process, job, gpu

    def _free_gpu(self) -> str:
        """The GPU with the fewest runs; without any, the name that hides all."""
        taken = [gpu for *_, gpu in self.running.values()]
        return min(self.gpus, key=taken.count, default="")

    def _collect(self) -> None:
        for name, (process, job, _) in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[name]
            if process.returncode == 0:
                say(f"  {name}: {_headline(json.loads(Path(job['result']).read_text()))}")
                continue
            self.failed.append(name)
            screen = _screen(job)
            say(f"  {name}: failed with code {process.returncode}; the end of {screen}:")
            say("    " + "\n    ".join(screen.read_text().splitlines()[-5:]))


def visible_gpus() -> list[str]:
    """Those that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else list(map(str, range(count)))


def _screen(job: dict) -> Path:
    """What the process of a run says."""
    return Path(f"{job['folder']}.log")


def _headline(result: dict) -> str:
    scores = result["scores"]["plain"]
    values = (f"{name} {100 * (mean['mean_iou'] or 0):.2f}" for name, mean in scores.items())
    return f"mIoU {', '.join(values)} ({sum(result['seconds'].values()):.0f} s)"
