"""Groups by looking at all pairs of points, one after another."""

from collections import deque

import numpy as np
import pytest


def breadth_first(points: np.ndarray, labels: np.ndarray, radius: float) -> np.ndarray:
    """What `connected_groups` returns."""
    x, y, z = points.astype(np.float64).T
    square = radius * radius
    groups = np.full(len(points), -1)
    for seed in range(len(points)):
        if labels[seed] < 0 or groups[seed] >= 0:
            continue
        groups[seed] = number = groups.max() + 1
        queue = deque([seed])
        while queue:
            i = queue.popleft()
            dx, dy, dz = x[i] - x, y[i] - y, z[i] - z
            near = ((dx * dx + dy * dy) + dz * dz <= square) & (labels == labels[i]) & (groups < 0)
            groups[near] = number
            queue.extend(np.flatnonzero(near).tolist())
    return groups


@pytest.fixture(scope="session")
def slow_groups():
    return breadth_first
