"""The original's grouping as it is described, in plain NumPy: neighbour lists, then breadth first.

PointGroup (CVPR 2020, section 3.3): for each point the neighbours within the radius, no more than 1000; then, from
each point not seen yet, a queue of the neighbours of equal label. The original's is a compiled extension.
"""

from collections import deque

import numpy as np
from scipy.spatial import cKDTree

MOST = 1000  # neighbours of a point
AT_ONCE = 20_000  # points whose neighbours are Python lists at the same time


def neighbour_lists(points: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the neighbours of each point begin (M + 1,) int64, and the neighbours one after another, int32."""
    tree, counts, parts = cKDTree(points), [], []
    for begin in range(0, len(points), AT_ONCE):
        found = tree.query_ball_point(points[begin : begin + AT_ONCE], radius, return_sorted=False)
        found = [np.array(neighbours[:MOST], dtype=np.int32) for neighbours in found]
        counts.append([len(neighbours) for neighbours in found])
        parts.append(np.concatenate(found))
    starts = np.cumsum(np.concatenate([[0], *counts]), dtype=np.int64)
    return starts, np.concatenate([np.empty(0, np.int32), *parts])


def point_by_point(labels: np.ndarray, starts: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Groups (M,) by a queue of points."""
    groups = np.full(len(labels), -1)
    bounds = starts.tolist()
    number = 0
    for seed in range(len(labels)):
        if groups[seed] >= 0:
            continue
        groups[seed] = number
        queue = deque([seed])
        while queue:
            point = queue.popleft()
            near = neighbours[bounds[point] : bounds[point + 1]]
            near = near[(groups[near] < 0) & (labels[near] == labels[point])]
            groups[near] = number
            queue.extend(near.tolist())
        number += 1
    return groups


def ring_by_ring(labels: np.ndarray, starts: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """The same groups by a queue of which all points are visited at once."""
    groups = np.full(len(labels), -1)
    number = 0
    for seed in range(len(labels)):
        if groups[seed] >= 0:
            continue
        groups[seed] = number
        ring = np.array([seed])
        while len(ring):
            counts = starts[ring + 1] - starts[ring]
            ends = np.cumsum(counts)
            near = neighbours[np.repeat(starts[ring] - (ends - counts), counts) + np.arange(ends[-1])]
            near = near[(groups[near] < 0) & (labels[near] == labels[seed])]
            groups[near] = number
            ring = np.unique(near)
        number += 1
    return groups
