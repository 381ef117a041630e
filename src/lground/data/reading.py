"""Prepared scenes as samples, with the labels that a training run may see."""

import numpy as np

from lground.data.scenes import Sample
from lground.scannet import PreparedScene


def read_sample(
    scene: PreparedScene, label_set: str, annotation: str | None, rows: np.ndarray | None = None
) -> Sample:
    """The vertices of a scene, or those of `rows` (n,); points and colours stay on disk until read, without `rows`.

    annotation: a setting such as "object-0.05"; vertices whose label may not be seen get label and instance -1.
    """
    part = slice(None) if rows is None else rows
    # np.asarray: slices of np.memmap are slow, and its subclass would stay with whatever is made of it.
    points, colors = np.asarray(scene.coord)[part], np.asarray(scene.color)[part]
    labels = np.asarray(scene.segment(label_set, rows)).astype(np.int64)
    instances = np.asarray(scene.instance)[part].astype(np.int64)
    annotated = scene.annotated(annotation)
    if annotated is not None:
        hidden = ~np.asarray(annotated)[part]
        labels[hidden] = -1
        instances[hidden] = -1
    return Sample(scene.name, points, colors, labels, instances)
