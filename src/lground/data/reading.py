"""Prepared scenes as samples, with the labels that a training run may see."""

import difflib
from collections.abc import Sequence

import numpy as np

from lground.data.scenes import Sample
from lground.errors import InputError
from lground.labels import load_labels
from lground.scannet import PreparedScene


def read_sample(
    scene: PreparedScene,
    label_set: str,
    annotation: str | None,
    rows: np.ndarray | None = None,
    hold_out: Sequence[int] = (),
) -> Sample:
    """The vertices of a scene, or those of `rows` (n,); points and colours stay on disk until read, without `rows`.

    annotation: a setting such as "object-0.05"; vertices whose label may not be seen get label and instance -1.
    hold_out: class indices of which no label may be seen (`held_out`).
    """
    part = slice(None) if rows is None else rows
    # np.asarray: slices of np.memmap are slow, and its subclass would stay with whatever is made of it.
    points, colors = np.asarray(scene.coord)[part], np.asarray(scene.color)[part]
    labels = np.array(scene.segment(label_set, rows), dtype=np.int16)
    instances = np.array(np.asarray(scene.instance)[part], dtype=np.int32)
    annotated = scene.annotated(annotation)
    if annotated is not None:
        hidden = ~np.asarray(annotated)[part]
        labels[hidden] = -1
        instances[hidden] = -1
    if len(hold_out):
        hidden = np.isin(labels, hold_out)
        labels[hidden] = -1
        instances[hidden] = -1
    return Sample(scene.name, points, colors, labels, instances)


def held_out(label_set: str, names: Sequence[str]) -> tuple[int, ...]:
    """The class indices of `names`; InputError where one is no class of the set, or comes twice."""
    known = load_labels(label_set).names
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"data.hold_out: {name} is no class of {label_set}{hint}")
        if names.count(name) > 1:
            raise InputError(f"data.hold_out: names {name} twice")
    return tuple(known.index(name) for name in names)
