"""A data set of made-up rooms in ScanNet's raw layout."""

import os
from collections import Counter
from functools import partial
from pathlib import Path

from lground.errors import InputError
from lground.files import atomic_dir
from lground.scannet.workers import run_jobs
from lground.synth.oversegment import K_THRESHOLD, min_vertices
from lground.synth.rooms import SIZES
from lground.synth.scannet_format import (
    write_aggregation,
    write_alignment,
    write_mesh,
    write_segments,
    write_table,
)
from lground.synth.scene import make_scene

FIRST_TEST_SCENE = 707  # as in ScanNet


def write_dataset(
    out: str | os.PathLike,
    train: int = 20,
    val: int = 5,
    test: int = 2,
    *,
    seed: int = 0,
    size: str = "normal",
    spacing: float = 0.02,
    workers: int | None = None,
) -> Counter:
    """Write made-up scans into the folder `out`, which must be empty or absent.

    Scene k depends on `seed`, `size`, `spacing` and k only; the same arguments give the same bytes whatever
    `workers` (processes; default: all cores) is. Returns the number of annotated objects per raw category.

    Raises:
        InputError: a count is negative or all are 0, `spacing` or `size` is not usable, `out` is not empty.
    """
    out = Path(out)
    _check(out, {"train": train, "val": val, "test": test}, seed, size, spacing)
    numbers = {"train": range(train), "val": range(train, train + val)}
    first = max(FIRST_TEST_SCENE, train + val)
    numbers["test"] = range(first, first + test)
    if out.is_dir():
        out.rmdir()
    counts: Counter = Counter()
    with atomic_dir(out) as folder:
        for split, indices in numbers.items():
            (folder / f"scannetv2_{split}.txt").write_text("".join(f"{scene_id(k)}\n" for k in indices))
        (folder / "scans").mkdir()
        (folder / "scans_test").mkdir()
        jobs = [(k, split != "test") for split, indices in numbers.items() for k in indices]
        write = partial(_write_scene, folder, seed, size, spacing)
        for _, found in run_jobs(write, jobs, workers, "writing rooms"):
            counts.update(found)
        write_table(folder / "scannetv2-labels.combined.tsv", counts)
    return counts


def scene_id(index: int) -> str:
    return f"scene{index:04d}_00"


def _check(out: Path, counts: dict[str, int], seed: int, size: str, spacing: float) -> None:
    for name, count in counts.items():
        if count < 0:
            raise InputError(f"--{name} {count}: the number of scenes cannot be negative")
    if not any(counts.values()):
        raise InputError("no scene asked for: give --train, --val or --test a number above 0")
    if seed < 0:
        raise InputError(f"--seed {seed}: give 0 or a positive number")
    if size not in SIZES:
        raise InputError(f"--size {size}: choose one of {', '.join(SIZES)}")
    if not 0.01 <= spacing <= 0.1:
        raise InputError(f"--spacing {spacing}: give the metres between vertices, from 0.01 to 0.1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not an empty folder; give a new folder or empty it first")


def _write_scene(folder: Path, seed: int, size: str, spacing: float, job: tuple[int, bool]) -> dict[str, int]:
    """Write one scene; returns how many objects were given each raw category."""
    index, annotated = job
    scene, name = make_scene(seed, index, size, spacing), scene_id(index)
    home = folder / ("scans" if annotated else "scans_test") / name
    home.mkdir()
    write_mesh(home / f"{name}_vh_clean_2.ply", scene.points, scene.colors, scene.faces)
    write_alignment(home / f"{name}.txt", scene.alignment, scene.kind)
    if not annotated:
        return {}
    segments = home / f"{name}_vh_clean_2.0.010000.segs.json"
    write_segments(segments, name, scene.segments, K_THRESHOLD, min_vertices(spacing))
    write_aggregation(home / f"{name}.aggregation.json", name, scene.groups)
    return Counter(label for label, _ in scene.groups)
