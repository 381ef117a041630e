"""One object or one class of stuff for each point."""

import numpy as np

from lground.errors import InputError
from lground.instances.objects import Objects


def panoptic(
    objects: Objects, labels: np.ndarray, instance_class: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and instances (N,) int64 without overlaps, from objects that may share points.

    objects: over N points. labels: (N,) predicted class index of each point, -1 for none. instance_class: (C,) bool.

    From the highest score down (the earlier of equal ones), each object takes its points that are still free; one
    that finds less than half of them free is given up, and leaves them free for those after it. Its points have its
    label, and its index in `objects` as instance. All others have instance -1, and their own label where that is
    stuff (a class without objects, such as wall and floor); points of things that belong to no object are void, -1.
    """
    labels, instance_class = np.asarray(labels), np.asarray(instance_class)
    if labels.shape != (objects.count,):
        raise InputError(f"labels of shape {labels.shape} for objects among {objects.count} points")
    instances = np.full(objects.count, -1, dtype=np.int64)
    for index in np.argsort(-objects.scores, kind="stable").tolist():
        points = objects.points_of(index)
        free = points[instances[points] < 0]
        if 2 * len(free) >= len(points):
            instances[free] = index
    stuff = np.append(~instance_class, False)[labels]  # the last entry serves label -1
    result = np.where(stuff, labels, -1).astype(np.int64)
    taken = instances >= 0
    result[taken] = objects.labels[instances[taken]]
    return result, instances
