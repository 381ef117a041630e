"""Objects of any kind in a scan, named by any list of words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional as F

from lground.data import Voxels
from lground.errors import InputError
from lground.instances import Grouping, Objects
from lground.instances.regions import join_patches, touching
from lground.labels import LabelSet, from_rows
from lground.models import Model
from lground.predict.queries import text_encoder
from lground.predict.running import check, run_voxels
from lground.predict.segmentation import Segmentation
from lground.predict.superpoints import point_spacing, surface_patches
from lground.predict.views import views_of, voxel_centers
from lground.predict.words import encode_names, trained_names, word_shares
from lground.scans import Scan

BACKGROUND = ("ceiling",)  # no object unless it is on the list; besides the model's classes without objects


def segment_words(
    model: Model,
    scan: Scan,
    words: Sequence[str],
    *,
    features: bool = False,
    voxel_size: float | None = None,
    device: torch.device | str | None = None,
    views: int = 1,
    superpoints: np.ndarray | None = None,
) -> Segmentation:
    """Find the objects of `scan`, of whatever kind, and give each the word of the list that fits best.

    The surface is cut into patches (`surface_patches`, or superpoints: (N,) integers, -1 none). Those that the model
    takes for background are left out: its classes without objects (wall and floor), and the ceiling unless it is on
    the list. Touching patches are joined where their mean features agree (`join_patches`; with a model that points at
    the centres of objects, where that agrees, too), regions below 2 square decimetres are left out. An object's word is
    the one that fits its mean feature best (`word_shares`), however badly; its score is that share times the contrast
    of the region with what touches it.

    Words are encoded as the model's own names were. features, voxel_size, device, views: as of `segment`; of several
    views, the features of a patch are averaged.

    Returns a `Segmentation` whose label_set are the words: labels are those of the objects, of background that is on
    the list, and -1 elsewhere. Raises InputError for a model that was never grounded in language, for a list that is
    empty or has a word twice, and for a scan that `segment` would refuse.
    """
    text_encoder(model)  # its complaint comes before any other
    if isinstance(words, str):
        raise InputError("words: give a list of words, not one string")
    stuff = {name for name, of_objects in _classes(model) if not of_objects}
    rows = [{"name": word, "instance_class": word.strip().casefold() not in stuff} for word in words]
    label_set = from_rows("words", rows, "words")
    return segment_vectors(
        model,
        scan,
        label_set,
        encode_names(model, label_set.names),
        features=features,
        voxel_size=voxel_size,
        device=device,
        views=views,
        superpoints=superpoints,
    )


def _classes(model: Model) -> list[tuple[str, bool]]:
    """Name, and whether it is made of objects, of each class of the model."""
    names = (name.casefold() for name in model.label_set.names)
    return list(zip(names, model.label_set.instance_class.tolist(), strict=True))


def segment_vectors(
    model: Model,
    scan: Scan,
    label_set: LabelSet,
    vectors: Tensor,
    *,
    features: bool = False,
    voxel_size: float | None = None,
    device: torch.device | str | None = None,
    views: int = 1,
    superpoints: np.ndarray | None = None,
) -> Segmentation:
    """`segment_words` with words that are encoded already: vectors (T, d_text), of the names of `label_set`."""
    check(scan)
    size = model.voxel_size if voxel_size is None else voxel_size
    patch, count = _numbered(scan, superpoints)
    seen = _look(model, scan, patch, count, size, device, views, features)
    background = _background(model, seen.features, label_set)  # (S,)
    things = np.flatnonzero(label_set.instance_class)
    objects = _find(model, scan, patch, seen, np.flatnonzero(background < 0), vectors[things])
    objects = replace(objects, labels=things[objects.labels])
    owner = objects.instance_of_points()
    of_background = np.array([*_words_for(model, label_set), -1])[np.append(background, -1)[patch]]
    labels = np.where(owner >= 0, np.append(objects.labels, -1)[owner], of_background)
    scores = np.where(owner >= 0, np.append(objects.scores, 0)[owner], labels >= 0)
    return Segmentation(
        labels, scores.astype(np.float32), label_set, seen.voxels, seen.voxel_features, objects
    )


def _numbered(scan: Scan, superpoints: np.ndarray | None) -> tuple[np.ndarray, int]:
    """The patch of each vertex (N,), 0 to S - 1 or -1, and S."""
    patches = surface_patches(scan) if superpoints is None else np.asarray(superpoints)
    if patches.shape != (len(scan),) or patches.dtype.kind not in "iu":
        raise InputError(
            f"superpoints: expected whole numbers for {len(scan)} vertices, found {patches.shape} "
            f"{patches.dtype}; they belong to another scan"
        )
    ids, patch = np.unique(np.maximum(patches, -1), return_inverse=True)
    none = int(ids[0] == -1)
    return patch - none, len(ids) - none


class _Seen(NamedTuple):
    """What the network says of S patches."""

    features: np.ndarray  # (S, d) mean directions
    aims: np.ndarray | None  # (S, 3) metres, where its voxels point on average
    voxels: Voxels  # of the plain view
    voxel_features: np.ndarray | None  # (M, d)


def _look(
    model: Model,
    scan: Scan,
    patch: np.ndarray,
    count: int,
    size: float,
    device: torch.device | str | None,
    views: int,
    keep: bool,
) -> _Seen:
    """Means over the vertices of each patch and over views."""
    forward = model.with_offsets if model.has_offsets else None
    features, aims = 0.0, 0.0
    for view in reversed(views_of(views, size)):  # the plain one last, whose voxels are kept
        voxels = view.voxelize(scan.points, size)
        *offsets, _, of_voxels = run_voxels(model, scan.colors, voxels, device, forward)
        means = _means(patch, count, voxels.inverse)
        features = features + means @ F.normalize(of_voxels.float(), dim=1).cpu().numpy() / views
        for moves in offsets:
            ends = voxel_centers(voxels, size) + moves.float().cpu().numpy()
            aims = aims + means @ view.undo(ends) / views
    kept = of_voxels.float().cpu().numpy() if keep else None
    return _Seen(features, aims if model.has_offsets else None, voxels, kept)


def _means(patch: np.ndarray, count: int, column: np.ndarray) -> csr_array:
    """The matrix that takes rows of an array, row column[v] for vertex v, to their means over each patch."""
    kept = np.flatnonzero(patch >= 0)
    weights = 1 / np.bincount(patch[kept], minlength=count)[patch[kept]]
    return csr_array((weights, (patch[kept], column[kept])), shape=(count, column.max() + 1))


def _background(model: Model, features: np.ndarray, label_set: LabelSet) -> np.ndarray:
    """(S,) the class that is background and nearest of all trained ones to a patch's feature, -1 where none is."""
    wanted = {name.casefold() for name in label_set.names}
    left_out = [
        not of_objects or (name in BACKGROUND and name not in wanted) for name, of_objects in _classes(model)
    ]
    with torch.inference_mode():
        cosines = model.similarity(torch.from_numpy(features).to(model.anchors.device), model.anchors)
    nearest = np.where(trained_names(model), cosines.cpu().numpy(), -2).argmax(axis=1)
    return np.where(np.array(left_out)[nearest], nearest, -1)


def _words_for(model: Model, label_set: LabelSet) -> list[int]:
    """For each class of the model the same word on the list, -1 where it is not there."""
    place = {name.casefold(): index for index, name in enumerate(label_set.names)}
    return [place.get(name, -1) for name, _ in _classes(model)]


def _find(
    model: Model, scan: Scan, patch: np.ndarray, seen: _Seen, chosen: np.ndarray, vectors: Tensor
) -> Objects:
    """Objects made of the patches `chosen` (F,), named and scored, highest score first."""
    if not len(vectors):
        return Objects.of(len(scan), [], [], [])
    place = np.full(len(seen.features) + 1, -1)  # the last entry serves patch -1
    place[chosen] = np.arange(len(chosen))
    mine = place[patch]
    spacing = point_spacing(scan.points)
    sizes = np.bincount(mine[mine >= 0], minlength=len(chosen))
    pointing = {}
    if seen.aims is not None:
        means = _means(mine, len(chosen), np.arange(len(scan)))
        pointing = {"centers": means @ scan.points, "aims": seen.aims[chosen]}
    features = seen.features[chosen]
    regions = join_patches(features, sizes, touching(scan.points, mine, spacing), **pointing)
    count = len(regions.contrast)
    vertex_region = np.append(regions.of_patch, -1)[mine]
    totals = np.bincount(regions.of_patch, sizes, count)
    sums = csr_array((sizes, (regions.of_patch, np.arange(len(chosen)))), shape=(count, len(chosen)))
    shares = word_shares(model, sums @ features, vectors)
    scores = regions.contrast * shares.max(axis=1)
    kept = totals >= Grouping.for_voxels(spacing).min_points
    vertices = np.flatnonzero(vertex_region >= 0)
    masks = csr_array(
        (np.ones(len(vertices), np.int8), (vertex_region[vertices], vertices)), shape=(count, len(scan))
    )
    found = Objects.from_masks(masks, shares.argmax(axis=1), scores)
    return found.select(np.flatnonzero(kept)[np.argsort(-scores[kept], kind="stable")])
