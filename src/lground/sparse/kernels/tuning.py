"""Finds, on this device, the fastest shape of a program for each layer: `lground doctor --tune`.

Every shape that could be good is timed on made-up surfaces. The fastest one counts only if its numbers are right: as
close to the plain layer in float64 as those of the default, and the same bits whenever it runs.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from lground.sparse.kernels.configuration import key
from lground.sparse.kernels.problems import Clock, Layer, Problem, Scene, surfaces
from lground.sparse.kernels.shapes import Config

# Between them, their levels have every class of numbers of tiles that scans of 20k to 500k voxels have.
VOXELS = 133_000, 43_000, 360_000, 90_000, 20_000
TOLERANCE = {"float16": 1e-3, "bfloat16": 8e-3, "tf32": 3e-3, "float32": 1e-5}  # relative error of a layer
SLACK = 1.5, 3.0  # how much larger than the default's the error may be, and that of the worst number
GAIN = 0.97  # of the default's time: what is not faster than that is noise
REPEATS = 6


@dataclass(frozen=True)
class Tuned:
    """What was found for a layer: times in ms of the default and of the shape to use from now on."""

    layer: Layer
    kind: str
    tiles: int
    default: float
    best: float
    config: Config

    @property
    def key(self) -> str:
        volume = 27 if self.layer.kind == "same" else 8
        return key(volume, self.layer.in_channels, self.layer.out_channels, self.kind, self.tiles)


def graph_time(run: Callable[[], object]) -> float:
    """ms of the device, repeated in a CUDA graph so that the host does not count."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin()
        for _ in range(REPEATS):
            run()
        graph.capture_end()
        times = []
        for _ in range(4):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / REPEATS)
    return min(times[1:])


def fastest(
    problem: Problem,
    candidates: Iterable[Config],
    clock: Clock,
    workers: int = 1,
) -> Tuned:
    """The fastest of the candidates, the default first, whose numbers are right.

    Raises ArithmeticError if those of the default are wrong.
    """
    first, *others = candidates
    standard = problem.error(first)
    if not standard[0] <= TOLERANCE[problem.kind]:
        raise ArithmeticError(
            f"{problem.layer}, {problem.kind}: {first} has a relative error of {standard[0]:.1e}"
        )
    with ThreadPoolExecutor(workers) as pool:  # compiles what is new, as many at a time as there are cores
        runs = list(pool.map(lambda config: _runs(problem, config), others))
    times = {c: problem.timed(c, clock) for c, good in zip(others, runs, strict=True) if good}
    before = problem.timed(first, clock)
    best, after = first, before
    for config in sorted(times, key=times.__getitem__):
        if times[config] > GAIN * before:
            break
        errors = zip(problem.error(config), standard, SLACK, strict=True)
        if all(error <= slack * usual for error, usual, slack in errors):
            best, after = config, times[config]
            break
    return Tuned(problem.layer, problem.kind, problem.number, before, after, best)


def _runs(problem: Problem, config: Config) -> bool:
    try:
        problem(config)
    except Exception:
        return False
    return True


def tune(
    wanted: list[Layer], kinds: Iterable[str], device: torch.device, seconds: float, workers: int
) -> Iterator[Tuned]:
    """Find the best shapes, for scans of every size, until time is up."""
    end, done = time.monotonic() + seconds, set()
    for voxels in VOXELS:
        scene = Scene(surfaces(voxels).to(device))
        for kind in kinds:
            for layer in wanted:
                if time.monotonic() > end:
                    return
                problem = Problem(scene, layer, kind)
                k = key(problem.tiles.volume, layer.in_channels, layer.out_channels, kind, problem.number)
                if k in done:
                    continue
                done.add(k)
                try:
                    found = fastest(problem, problem.candidates(), graph_time, workers)
                except torch.OutOfMemoryError:  # the check in float64 needs more than the layer
                    continue
                yield found
