"""Offsets to objects: PointGroup's clustering (Jiang et al., CVPR 2020) in metres."""

from dataclasses import dataclass, replace

import numpy as np

from lground.errors import InputError
from lground.instances.components import connected_groups
from lground.instances.masks import join, snap, suppress
from lground.instances.objects import Objects

VOXEL_SIZE = 0.02  # metres, of the defaults below
SPREAD = (
    0.1  # enough to tell two touching objects from one; more would punish offsets that are merely inexact
)


@dataclass(frozen=True)
class Grouping:
    """How points become objects; the defaults are for voxels of 2 cm, `Grouping.for_voxels` for others.

    radius: metres; points of one predicted class no further apart belong to one object.
    min_points: objects of fewer points are left out. (ScanNet's AP leaves out masks below 100 vertices.)
    max_iou: of two objects whose masks overlap more (intersection over union), the one of lower score is left out.
    min_score: objects of lower score are left out.
    max_objects: no more are kept, those of highest score.
    """

    radius: float = 1.5 * VOXEL_SIZE
    min_points: int = 50
    max_iou: float = 0.3
    min_score: float = 0.05
    max_objects: int = 500

    def __post_init__(self) -> None:
        if not (np.isfinite(self.radius) and self.radius > 0):
            raise InputError(
                f"grouping.radius={self.radius}: give a length above zero in metres, such as 0.03"
            )
        for name in ("min_points", "max_objects"):
            if getattr(self, name) < 1:
                raise InputError(f"grouping.{name}={getattr(self, name)}: give 1 or more")
        for name in ("max_iou", "min_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"grouping.{name}={getattr(self, name)}: give a number from 0 to 1")

    @classmethod
    def for_voxels(cls, voxel_size: float, **changes: float) -> "Grouping":
        """The defaults for voxels of `voxel_size` metres, or for vertices so far apart, with `changes`.

        The radius is 1.5 voxels. The least number of points stands for the same surface as 50 voxels of 2 cm,
        2 square decimetres.
        """
        if not (np.isfinite(voxel_size) and voxel_size > 0):
            raise InputError(f"voxel size {voxel_size} m: give a length above zero, such as 0.02")
        scaled = cls.min_points * (VOXEL_SIZE / voxel_size) ** 2
        return cls(**{"radius": 1.5 * voxel_size, "min_points": max(round(scaled), 1)} | changes)


def find_objects(
    points: np.ndarray,
    offsets: np.ndarray,
    probabilities: np.ndarray,
    instance_class: np.ndarray,
    grouping: Grouping = Grouping(),
    *,
    superpoints: np.ndarray | None = None,
) -> Objects:
    """Objects among points of predicted class and predicted offset to the centre of their object.

    points: (M, 3) metres. offsets: (M, 3) metres. probabilities: (M, C) softmax. instance_class: (C,) bool, False
    for classes that have no objects, such as wall and floor. superpoints: optional (M,) integers, negative for none.

    Each point has the class of its highest probability. Proposals are the components of near points of equal class
    (`connected_groups`), once where the points are and once where their offsets point: the first keeps things apart
    that have a gap between them, the second those that touch, and it joins parts of one thing with a gap between
    them. With superpoints, a proposal becomes those of which it holds more than half. Then proposals too small or
    of too low a score (`proposal_scores`) are left out, of those that overlap the ones of lower score (`suppress`),
    and those beyond `max_objects`.

    Returns the objects over the M points, highest score first. Raises InputError for arrays that do not fit together
    and for coordinates that are not finite.
    """
    points, offsets, instance_class = np.asarray(points), np.asarray(offsets), np.asarray(instance_class)
    probabilities = np.asarray(probabilities)
    _check(points, offsets, probabilities, instance_class, superpoints)
    labels = probabilities.argmax(axis=1)
    grouped = np.where(instance_class[labels], labels, -1)
    proposals = join(
        [
            _components_as_objects(
                connected_groups(places, grouped, grouping.radius), labels, grouping.min_points
            )
            for places in (points, points + offsets)
        ]
    )
    if superpoints is not None:
        proposals = snap(proposals, superpoints)
        proposals = proposals.select(proposals.sizes >= grouping.min_points)
    proposals = replace(
        proposals, scores=proposal_scores(proposals, points, offsets, probabilities, grouping.radius)
    )
    proposals = proposals.select(proposals.scores >= grouping.min_score)
    return suppress(proposals, grouping.max_iou).select(slice(grouping.max_objects))


def find_on_vertices(
    centers: np.ndarray,
    offsets: np.ndarray,
    probabilities: np.ndarray,
    instance_class: np.ndarray,
    grouping: Grouping,
    inverse: np.ndarray,
    superpoints: np.ndarray | None = None,
) -> Objects:
    """`find_objects` among M voxels, told as objects of the N vertices in them, none of them empty.

    centers: (M, 3) metres. inverse: (N,) voxel of each vertex. superpoints: optional (N,) integers, negative for
    none; objects are made of whole ones, also where a voxel lies across a border. The rest: `find_objects`, whose
    errors it raises.
    """
    of_voxels = None
    if superpoints is not None:
        of_voxels = superpoints[
            np.unique(inverse, return_index=True)[1]
        ]  # a voxel's first vertex speaks for it
    found = find_objects(
        centers, offsets, probabilities, instance_class, grouping, superpoints=of_voxels
    ).on_vertices(inverse)
    if superpoints is None:
        return found
    found = snap(found, superpoints)
    return found.select(found.sizes > 0)


def _check(
    points: np.ndarray,
    offsets: np.ndarray,
    probabilities: np.ndarray,
    instance_class: np.ndarray,
    superpoints: np.ndarray | None,
) -> None:
    count = len(points)
    shapes = {"points": (points, (count, 3)), "offsets": (offsets, (count, 3))}
    shapes["probabilities"] = probabilities, (count, len(instance_class))
    if superpoints is not None:
        shapes["superpoints"] = superpoints, (count,)
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise InputError(f"{name} of shape {array.shape} where {shape} is needed")
    if not np.isfinite(offsets).all():
        raise InputError(
            "some offsets are NaN or infinite: the network's weights are damaged or its training failed"
        )


def _components_as_objects(groups: np.ndarray, labels: np.ndarray, min_points: int) -> Objects:
    """Components of at least `min_points` points, not scored yet; groups: (M,), -1 for none, of one label each."""
    sizes = np.bincount(groups + 1)[1:]
    large = sizes >= min_points
    members = np.flatnonzero(np.append(large, False)[groups])  # the last entry serves group -1
    members = members[np.argsort(groups[members], kind="stable")]
    starts = np.cumsum([0, *sizes[large]], dtype=np.int64)
    return Objects(
        len(groups), starts, members, labels[members[starts[:-1]]], np.zeros(len(starts) - 1, np.float32)
    )


def proposal_scores(
    proposals: Objects, points: np.ndarray, offsets: np.ndarray, probabilities: np.ndarray, radius: float
) -> np.ndarray:
    """How much each proposal looks like one whole object of its class, (P,) float32 from 0 to 1; none is empty.

    The mean probability of its class over its mask, times exp(-(d + SPREAD * e) / s): d is the length of the mean
    offset, e and s are the root mean square distances from the centre of the mask to where its points point and to
    where they are (s at least `radius`). The offsets of a whole object cancel, those of a piece point to the rest
    (d); those of two objects in one mask do not meet (e). PointGroup learns this with a network of its own; the
    mean probability alone prefers the purest piece of an object to the object.
    """
    owner = np.repeat(np.arange(len(proposals)), proposals.sizes)

    def mean(values: np.ndarray) -> np.ndarray:
        """Of each proposal, from (K, d) values of its members: (P, d) float64."""
        sums = [np.bincount(owner, column, minlength=len(proposals)) for column in values.T]
        return np.stack(sums, axis=1) / proposals.sizes[:, None]

    places, moves = (values[proposals.members].astype(np.float64) for values in (points, offsets))
    places -= mean(places)[owner]
    here, there = (np.sqrt(mean(values**2).sum(axis=1)) for values in (places, places + moves))
    missed = np.linalg.norm(mean(moves), axis=1)
    probability = mean(probabilities[proposals.members, proposals.labels[owner], None])[:, 0]
    return (probability * np.exp(-(missed + SPREAD * there) / np.maximum(here, radius))).astype(np.float32)
