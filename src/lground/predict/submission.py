"""Predictions for every scene of a split as ScanNet's benchmark takes them."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from lground.errors import InputError
from lground.files import atomic_file
from lground.labels import LabelSet
from lground.models import Model
from lground.predict.segmentation import Segmentation
from lground.predict.stores import segment_scenes
from lground.progress import say
from lground.scannet.benchmark import TASKS, check_submission, ids_text, instance_texts


class Submitted(NamedTuple):
    """What a zip holds."""

    scenes: int
    vertices: int
    objects: int  # 0 of the semantic task
    bytes: int  # of the file


def submit(
    model: Model,
    data: str | os.PathLike,
    out: str | os.PathLike,
    task: str = "semantic",
    split: str = "test",
    device: torch.device | str = "cpu",
    workers: int = 0,
    *,
    views: int = 1,
    superpoints: bool = False,
) -> Submitted:
    """Segment the scenes of `<data>/<split>` and write `out`, a .zip in the format of `lground.scannet.benchmark`.

    task: "semantic" or "instance". views, superpoints: as `evaluate` takes them. The zip is read again and checked
    before it takes its place; where anything goes wrong there is none.
    Raises InputError for a task or suffix that is none, and as `evaluate` does.
    """
    out = Path(out)
    if task not in TASKS:
        raise InputError(f"--task {task}: choose one of {', '.join(TASKS)}")
    if out.suffix != ".zip" or out.is_dir():
        raise InputError(f"{out}: the benchmark takes one .zip file; name one to write")
    segmented = segment_scenes(
        model,
        data,
        split,
        device,
        workers,
        views=views,
        superpoints=superpoints,
        instances=task == "instance",
    )
    vertices, objects = {}, 0
    with atomic_file(out) as part:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for scene, result in segmented:
                for name, text in _texts(scene.name, result, model.label_set):
                    archive.writestr(name, text)
                vertices[scene.name] = len(scene)
                objects += 0 if result.objects is None else len(result.objects)
        say(f"checking {out}")
        check_submission(part, task, vertices, model.label_set)
        size = part.stat().st_size
    return Submitted(len(vertices), sum(vertices.values()), objects, size)


def _texts(scene: str, result: Segmentation, label_set: LabelSet) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files of one scene."""
    if result.objects is None:
        yield f"{scene}.txt", ids_text(label_set.ids[result.labels])
    else:
        objects = result.objects
        yield from instance_texts(scene, objects.masks, label_set.ids[objects.labels], objects.scores)
