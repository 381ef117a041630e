"""Labels for every vertex of a scan, and the objects that they make up."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lground.data import Voxels
from lground.files import atomic_file
from lground.instances import Grouping, Objects, find_on_vertices, panoptic
from lground.labels import LabelSet
from lground.models import Model
from lground.predict.colors import object_colors
from lground.predict.running import check, run_voxels, softmax
from lground.predict.views import View, views_of, voxel_centers
from lground.predict.votes import Votes, bytes_of_votes, vertex_groups
from lground.scans import Scan
from lground.scans.raw import ensure_memory


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The classes of N vertices in M voxels.

    labels: (N,) int64 class index, -1 for none (`segment_words`). scores: (N,) float32, the (mean) soft-max
    probability of that class.
    voxels: what the network saw in the plain view; `voxels.inverse` (N,) leads from vertices to rows of
    `voxel_features`, (M, d) float32, or None if they were not asked for. objects: among the N vertices, highest score
    first, or None if they were not asked for.
    """

    labels: np.ndarray
    scores: np.ndarray
    label_set: LabelSet
    voxels: Voxels
    voxel_features: np.ndarray | None = None
    objects: Objects | None = None

    @cached_property
    def panoptic(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int64 each: the class of each vertex, and its one object or -1 (`lground.instances.panoptic`).

        The class is -1 for a vertex of no object where `labels` has a class that is made of objects.
        """
        return panoptic(self.objects, self.labels, self.label_set.instance_class)

    @property
    def instances(self) -> np.ndarray:
        """(N,) int64, the one object that each vertex is of, -1 for none."""
        return self.panoptic[1]

    @property
    def classes(self) -> np.ndarray:
        """(N,) int64, class index of the object that the vertex is of, of the vertex itself where there is none."""
        return (
            self.labels
            if self.objects is None
            else np.where(self.instances >= 0, self.panoptic[0], self.labels)
        )

    @property
    def features(self) -> np.ndarray | None:
        """(N, d) float32 per vertex, or None if they were not asked for."""
        return None if self.voxel_features is None else self.voxel_features[self.voxels.inverse]

    def save_features(self, path: str | os.PathLike) -> None:
        """Write .npz: features (M, d) float32 of the voxels; voxel (N,) int64, each vertex's row in them."""
        with atomic_file(path) as part, open(part, "wb") as file:
            np.savez(file, features=self.voxel_features, voxel=self.voxels.inverse)

    def paint(self, scan: Scan) -> Scan:
        """The scan in the colours of its classes, with `label` (class index) and `score` as extras.

        With objects: in a colour for each, grey where there is none, and with `instance` (-1 none), too. Vertices of
        one instance then have one label, that of the object (`classes`). So label and instance are the panoptic
        answer: an object, or stuff, or void where a label that objects are made of has no instance.
        """
        extras = scan.extras | {"label": self.classes.astype(np.int32), "score": self.scores}
        colors = self.label_set.colors[self.labels]
        if self.objects is not None:
            extras["instance"] = self.instances.astype(np.int32)
            colors = object_colors(len(self.objects))[self.instances]
        return Scan(scan.points, colors, scan.faces, extras, scan.offset)


def segment(
    model: Model,
    scan: Scan,
    *,
    features: bool = False,
    voxel_size: float | None = None,
    device: torch.device | str | None = None,
    views: int = 1,
    superpoints: np.ndarray | None = None,
    instances: bool = False,
    grouping: Grouping | None = None,
) -> Segmentation:
    """Label every vertex of `scan`; all vertices of a voxel get the voxel's result.

    A fine-tuned model takes its best logit, a pretrained one the class whose anchor has the largest cosine
    with the voxel's feature. features: keep the features too. voxel_size: metres, by default the model's own
    (a larger one needs less memory and is less exact). device: where to run, by default where the model is.
    views: look at the scan this many times, turned, mirrored and shifted (`views_of`), and average the
    probabilities of each vertex. superpoints: (N,) integers, -1 none; the vertices of one take the class with
    the highest mean probability in it. Features are those of the plain view.

    instances: find the objects, too, from the same averages and, with several views, from the mean of the centres
    that they point at; with superpoints they are made of whole ones. grouping: how, by default
    `Grouping.for_voxels` of the voxel size.

    Raises InputError for a scan that cannot be worked with or is too large for memory, and for objects from a
    model that was not trained to tell them apart.
    """
    check(scan)
    size = model.voxel_size if voxel_size is None else voxel_size
    chosen = views_of(views, size)[::-1]
    return segment_voxels(
        model,
        scan,
        chosen,
        (view.voxelize(scan.points, size) for view in chosen),
        size,
        features=features,
        device=device,
        superpoints=superpoints,
        instances=instances,
        grouping=grouping,
    )


def segment_voxels(
    model: Model,
    scan: Scan,
    views: Sequence[View],
    voxels: Iterable[Voxels],
    voxel_size: float,
    *,
    features: bool = False,
    device: torch.device | str | None = None,
    superpoints: np.ndarray | None = None,
    instances: bool = False,
    grouping: Grouping | None = None,
) -> Segmentation:
    """`segment` of a scan whose voxels in each of `views`, the plain one last, are `voxels`.

    voxel_size: metres, of these voxels. The rest, and the errors: `segment`.
    """
    forward = model.with_offsets if instances else model
    looks = (
        (view, seen, run_voxels(model, scan.colors, seen, device, forward))
        for view, seen in zip(views, voxels, strict=True)
    )
    if len(views) == 1 and superpoints is None:
        seen = _look(*looks)
    else:
        seen = _vote(looks, vertex_groups(len(scan), superpoints), len(model.label_set), voxel_size)
    voxel_features = seen.features.float().cpu().numpy() if features else None
    result = Segmentation(seen.labels, seen.scores, model.label_set, seen.voxels, voxel_features)
    if not instances:
        return result
    seen = seen._replace(features=None)  # their memory is needed
    objects = find_on_vertices(
        voxel_centers(seen.voxels, voxel_size).astype(np.float32),
        *(torch.as_tensor(values).float().cpu().numpy() for values in (seen.offsets, seen.probabilities)),
        model.label_set.instance_class,
        grouping or Grouping.for_voxels(voxel_size),
        seen.voxels.inverse,
        superpoints,
    )
    return replace(result, objects=objects)


Look = tuple[View, Voxels, tuple[Tensor, ...]]  # what was looked at, and what the network says of it


class _Seen(NamedTuple):
    """What the network says of N vertices, and of their M voxels in the plain view."""

    labels: np.ndarray  # (N,)
    scores: np.ndarray  # (N,)
    voxels: Voxels
    features: Tensor | None  # (M, d)
    probabilities: Tensor | np.ndarray | None = None  # (M, C); as the offsets, only needed for objects
    offsets: Tensor | np.ndarray | None = None  # (M, 3) metres


def _look(look: Look) -> _Seen:
    """One view, each voxel for itself."""
    _, voxels, (*offsets, logits, features) = look
    probabilities = softmax(logits)
    best = probabilities.max(dim=1)
    labels, scores = (values.cpu().numpy()[voxels.inverse] for values in (best.indices, best.values))
    return _Seen(labels, scores, voxels, features, probabilities, *offsets)


def _vote(looks: Iterable[Look], group: np.ndarray, classes: int, voxel_size: float) -> _Seen:
    """Several views or superpoints: means of the probabilities, and of the centres that the offsets lead to.

    group: (N,) of each vertex, see `Votes`. Of the last look, the plain one, the voxels are kept.
    """
    ensure_memory(
        bytes_of_votes(group, classes), f"voting over {len(group)} vertices", "cut the scan into parts"
    )
    votes, aims = Votes(group, classes), np.zeros((len(group), 3))
    for view, voxels, said in looks:
        *offsets, logits, features = said
        votes.add(logits, voxels.inverse)
        del said, logits  # before the next look makes its own
        for of_voxels in offsets:
            ends = voxel_centers(voxels, voxel_size) + of_voxels.cpu().numpy()
            aims += view.undo(ends)[voxels.inverse]
    seen = _Seen(*votes.winners(), voxels, features)
    if not offsets:
        return seen
    first = voxels.index  # the first vertex of a voxel speaks for it
    to_aims = aims[first] / votes.views - voxel_centers(voxels, voxel_size)
    return seen._replace(probabilities=votes.means(first), offsets=to_aims)
