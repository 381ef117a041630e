"""The data: made-up rooms with a long tail, and what there is of each class."""

import contextlib
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np

from lground.cli import main
from lground.errors import InputError
from lground.files import write_json
from lground.labels import load_labels
from lground.scannet import list_scenes, open_scene

COUNTED = "statistics.json"


def make_rooms(store: Path, settings: dict, cores: int) -> None:
    """Write the prepared store with its limited annotation; what is there already is kept."""
    workers = ("--workers", cores)
    if not (store / COUNTED).exists():
        raw = store.with_name(f"{store.name}-raw")
        for folder in (raw, store):  # of a call that was stopped
            shutil.rmtree(folder, ignore_errors=True)
        counts = ("--train", settings["train"], "--val", settings["val"], "--test", 0)
        lground("synth", raw, *counts, "--size", settings["size"], "--spacing", settings["spacing"], *workers)
        lground("prepare", raw, store, *workers)
        shutil.rmtree(raw)
        write_json(store / COUNTED, statistics(store))
    for annotation in settings["annotations"]:
        if annotation != "full":
            lground("prepare", store, "--limited", annotation, *workers)


def lground(*arguments: object) -> None:
    """A command, as a user runs it; what it prints is for the person and not part of the tables."""
    line = list(map(str, arguments))
    with contextlib.redirect_stdout(sys.stderr):
        if main(line):
            raise InputError(f"`lground {shlex.join(line)}` failed: see above")


def statistics(store: Path) -> dict:
    """How many scenes, labelled vertices and objects of each class there are."""
    label_set = load_labels("scannet200")
    found = {}
    for split in ("train", "val"):
        vertices, objects = np.zeros((2, len(label_set)), dtype=np.int64)
        folders = list_scenes(store, split)
        for folder in folders:
            scene = open_scene(folder)
            labels = np.asarray(scene.segment("scannet200")).astype(np.int64)
            known = labels >= 0
            vertices += np.bincount(labels[known], minlength=len(label_set))
            things = np.unique(np.stack([labels[known], scene.instance[known]]), axis=1)[0]
            objects += np.bincount(things, minlength=len(label_set))
        found[split] = {"scenes": len(folders), "vertices": vertices.tolist(), "objects": objects.tolist()}
    return found


def tail_lines(found: dict) -> list[str]:
    """The long tail in words, as Markdown."""
    label_set = load_labels("scannet200")
    vertices, objects = (np.array(found["train"][key]) for key in ("vertices", "objects"))
    rare = np.sort(objects[objects > 0])
    here = np.flatnonzero(np.array(found["val"]["vertices"]))
    tested = {name: np.intersect1d(index, here) for name, index in label_set.splits.items()}
    share = {name: vertices[index].sum() / vertices.sum() for name, index in label_set.splits.items()}
    order = np.sort(vertices)[::-1]
    return [
        f"{found['train']['scenes']} training rooms, {found['val']['scenes']} validation rooms, "
        f"{vertices.sum() / found['train']['scenes']:,.0f} labelled vertices a room.",
        f"Training: {len(rare)} classes; half of them have at most {int(np.median(rare))} objects, "
        f"{np.count_nonzero(rare < 5)} fewer than 5; the ten largest classes hold "
        f"{100 * order[:10].sum() / order.sum():.0f} % of all labelled vertices.",
        "Share of the labelled vertices: "
        + ", ".join(f"{n} {100 * s:.1f} %" for n, s in share.items())
        + ".",
        f"Validation: {len(here)} classes: " + ", ".join(f"{len(i)} {n}" for n, i in tested.items()) + "; "
        f"{np.count_nonzero(objects[here] == 0)} of them occur in no training room.",
    ]
