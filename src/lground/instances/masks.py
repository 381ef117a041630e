"""Masks compared with each other and with superpoints."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from lground.instances.objects import Objects


def join(parts: Sequence[Objects]) -> Objects:
    """The objects of all parts, which are over the same points."""
    sizes = np.concatenate([part.sizes for part in parts])
    starts = np.cumsum([0, *sizes], dtype=np.int64)
    members, labels, scores = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("members", "labels", "scores")
    )
    return Objects(parts[0].count, starts, members, labels, scores)


def overlaps(objects: Objects) -> csr_array:
    """Intersection over union of all objects that share points, (P, P) float64; 1 on the diagonal."""
    masks = objects.masks.astype(np.int64)
    shared = (masks @ masks.T).tocoo()
    a, b = shared.coords
    sizes = objects.sizes
    iou = shared.data / (sizes[a] + sizes[b] - shared.data)
    return csr_array((iou, (a, b)), shape=shared.shape)


def suppress(objects: Objects, max_iou: float) -> Objects:
    """Non-maximum suppression over masks: the objects kept, highest score first, the earlier of equal ones.

    An object is left out where its intersection over union with one kept before is above `max_iou`. Classes
    play no part: two names for the same points are not two objects.
    """
    objects = objects.select(np.argsort(-objects.scores, kind="stable"))
    iou = overlaps(objects)
    iou.data[iou.data <= max_iou] = 0
    iou.eliminate_zeros()
    alive = np.ones(len(objects), dtype=bool)
    for index in range(len(objects)):
        if alive[index]:
            alive[iou.indices[iou.indptr[index] : iou.indptr[index + 1]]] = False
            alive[index] = True
    return objects.select(alive)


def snap(objects: Objects, superpoints: np.ndarray) -> Objects:
    """The same objects made of whole superpoints: of those of which an object holds more than half.

    superpoints: (count,) integers; points of a negative one stay where they are. Objects may come out empty.
    """
    patch = np.unique(superpoints, return_inverse=True)[1]
    loose = np.flatnonzero(superpoints < 0)
    patch[loose] = patch.max(initial=-1) + 1 + np.arange(len(loose))  # each a superpoint of its own
    sizes = np.bincount(patch)
    each = np.ones(len(patch), np.int64), patch, np.arange(len(patch) + 1)
    patches = csr_array(each, shape=(len(patch), len(sizes)))
    held = objects.masks.astype(np.int64) @ patches  # (P, S): points of each superpoint in each object
    held.data = (2 * held.data > sizes[held.indices]).astype(np.int64)
    held.eliminate_zeros()
    return Objects.from_masks(held @ patches.T, objects.labels, objects.scores)
