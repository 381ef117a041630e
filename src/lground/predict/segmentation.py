"""Labels for every vertex of a scan, and the objects that they make up."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lground.data import Voxels
from lground.errors import InputError
from lground.files import atomic_file
from lground.instances import Grouping, Objects, find_objects, panoptic
from lground.instances.masks import snap
from lground.labels import LabelSet
from lground.models import Model
from lground.predict.colors import object_colors
from lground.predict.views import PLAIN, View, views_of, voxel_centers
from lground.predict.votes import Votes, bytes_of_votes, vertex_groups
from lground.progress import say
from lground.scans import Scan, check_scan
from lground.scans.raw import ensure_memory
from lground.sparse import SparseTensor

ADVICE = "use larger voxels (--voxel-size) or cut the scan into parts"


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The classes of N vertices in M voxels.

    labels: (N,) int64 class index. scores: (N,) float32, the (mean) soft-max probability of that class.
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
    def instances(self) -> np.ndarray:
        """(N,) int64, the one object that each vertex is of (`lground.instances.panoptic`), -1 for none."""
        return panoptic(self.objects, self.labels, self.label_set.instance_class)[1]

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

        With objects: in a colour for each, grey where there is none, and with `instance` (-1 none), too.
        """
        extras = scan.extras | {"label": self.labels.astype(np.int32), "score": self.scores}
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
    size = model.voxel_size if voxel_size is None else voxel_size
    forward = model.with_offsets if instances else model
    if views == 1 and superpoints is None:
        seen = _look(model, scan, size, device, forward)
    else:
        seen = _look_and_vote(model, scan, size, device, forward, views, superpoints)
    voxel_features = seen.features.float().cpu().numpy() if features else None
    result = Segmentation(seen.labels, seen.scores, model.label_set, seen.voxels, voxel_features)
    if not instances:
        return result
    seen = seen._replace(features=None)  # their memory is needed
    grouping = grouping or Grouping.for_voxels(size)
    return replace(result, objects=_objects(seen, size, model.label_set, grouping, superpoints))


class _Seen(NamedTuple):
    """What the network says of N vertices, and of their M voxels in the plain view."""

    labels: np.ndarray  # (N,)
    scores: np.ndarray  # (N,)
    voxels: Voxels
    features: Tensor | None  # (M, d)
    probabilities: Tensor | np.ndarray | None = None  # (M, C); as the offsets, only needed for objects
    offsets: Tensor | np.ndarray | None = None  # (M, 3) metres


def _look(
    model: Model, scan: Scan, voxel_size: float, device: torch.device | str | None, forward: Callable
) -> _Seen:
    """One view, each voxel for itself."""
    voxels, *offsets, logits, features = run(model, scan, voxel_size, device, forward=forward)
    probabilities = softmax(logits)
    best = probabilities.max(dim=1)
    labels, scores = (values.cpu().numpy()[voxels.inverse] for values in (best.indices, best.values))
    return _Seen(labels, scores, voxels, features, probabilities, *offsets)


def _look_and_vote(
    model: Model,
    scan: Scan,
    voxel_size: float,
    device: torch.device | str | None,
    forward: Callable,
    views: int,
    superpoints: np.ndarray | None,
) -> _Seen:
    """Several views or superpoints: means of the probabilities, and of the centres that the offsets lead to."""
    group = vertex_groups(len(scan), superpoints)
    ensure_memory(
        bytes_of_votes(group, len(model.label_set)),
        f"voting over {len(scan)} vertices",
        "cut the scan into parts",
    )
    votes, aims = Votes(group, len(model.label_set)), np.zeros((len(scan), 3))
    for view in reversed(views_of(views, voxel_size)):  # the plain one last, whose voxels are kept
        voxels, *offsets, logits, features = run(model, scan, voxel_size, device, view, forward)
        votes.add(logits, voxels.inverse)
        for of_voxels in offsets:
            ends = voxel_centers(voxels, voxel_size) + of_voxels.cpu().numpy()
            aims += view.undo(ends)[voxels.inverse] / views
    seen = _Seen(*votes.winners(), voxels, features)
    if not offsets:
        return seen
    first = voxels.index  # the first vertex of a voxel speaks for it
    to_aims = aims[first] - voxel_centers(voxels, voxel_size)
    return seen._replace(probabilities=votes.means(first), offsets=to_aims)


def _objects(
    seen: _Seen, voxel_size: float, label_set: LabelSet, grouping: Grouping, superpoints: np.ndarray | None
) -> Objects:
    """The objects of voxels, on vertices; of whole superpoints where there are some."""
    voxels = seen.voxels
    found = find_objects(
        voxel_centers(voxels, voxel_size).astype(np.float32),
        *(torch.as_tensor(values).float().cpu().numpy() for values in (seen.offsets, seen.probabilities)),
        label_set.instance_class,
        grouping,
        superpoints=None if superpoints is None else superpoints[voxels.index],
    ).on_vertices(voxels.inverse)
    if superpoints is None:
        return found
    found = snap(found, superpoints)  # where a voxel lies across a border
    return found.select(found.sizes > 0)


def softmax(logits: Tensor) -> Tensor:
    """Probabilities (M, C) float32 in the memory of the logits where those are float32, too."""
    probabilities = logits.float().contiguous()
    with torch.inference_mode():
        for rows in probabilities.split(2**16):
            rows.copy_(rows.softmax(dim=1))
    return probabilities


def run(
    model: Model,
    scan: Scan,
    voxel_size: float | None = None,
    device: torch.device | str | None = None,
    view: View = PLAIN,
    forward: Callable[[SparseTensor], tuple[Tensor, ...]] | None = None,
) -> tuple[Voxels, Tensor, Tensor] | tuple[Voxels, Tensor, Tensor, Tensor]:
    """The voxels of `scan` (M of them) in one view, their logits (M, C) and features (M, d), on `device`.

    forward: what to call in place of the model, such as its `with_offsets`; then what that returns.
    """
    check_scan(scan)
    if scan.colors is None and view is PLAIN:
        say("warning: the scan has no colours; it is taken as grey and labels will be less certain")
    device = torch.device(device or next(model.parameters()).device)
    voxels = view.voxelize(scan.points, model.voxel_size if voxel_size is None else voxel_size)
    if device.type == "cpu":
        ensure_memory(
            len(voxels.index) * bytes_per_voxel(model), f"a scan of {len(voxels.index)} voxels", ADVICE
        )
    half = torch.autocast("cuda", torch.float16, enabled=device.type == "cuda")  # logits are off by 0.3 %
    model.to(device).eval()
    try:
        with torch.inference_mode(), half:
            return voxels, *(forward or model)(_input(scan, voxels, device))
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate" in str(error):
            raise InputError(
                f"{len(voxels.index)} voxels do not fit in the memory of {device}; {ADVICE}"
            ) from None
        raise


def _input(scan: Scan, voxels: Voxels, device: torch.device) -> SparseTensor:
    """Colours of the voxels' first vertices as -0.5..0.5, grey where the scan has none."""
    features = np.zeros((len(voxels.index), 3), dtype=np.float32)
    if scan.colors is not None:
        features = scan.colors[voxels.index].astype(np.float32) / 255 - 0.5
    coordinates = np.pad(voxels.coordinates, ((0, 0), (1, 0)))  # batch 0
    return SparseTensor(torch.from_numpy(features).to(device), torch.from_numpy(coordinates).to(device))


def bytes_per_voxel(model: Model) -> int:
    """Peak memory of a run per voxel, a quarter to spare: last block, kernel map and logits.

    Without the quarter it is 3.7 kB for Res16UNet34C and 10.4 kB for 34D; measured: 2.6 and 11.9 kB.
    """
    width = model.network.feature_channels
    block = 32 + width + 3 * width  # the joined input of the last block, and three arrays inside it
    return int(1.25 * (4 * (block + 2 * len(model.label_set)) + 27 * 16))
