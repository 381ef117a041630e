"""Objects without classes: touching patches of a surface whose features agree, joined step by step."""

import heapq
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.spatial import cKDTree

from lground.data import voxelize

# Largest difference of patches that are joined. Chosen on made-up rooms: less cuts objects up, more joins them.
MAX_DIFFERENCE = 0.3  # one minus the cosine of their features
MAX_DIFFERENCE_POINTING = 0.45  # features may differ more where it is also known what points at one centre
POINTING = 0.55  # the difference of two that point as far apart as they lie apart


class Regions(NamedTuple):
    """What S patches were joined to, R regions numbered by their first patches."""

    of_patch: np.ndarray  # (S,) int64
    contrast: (
        np.ndarray
    )  # (R,) 0 to 1: the difference from the most similar region that touches it, 1 without any


def touching(points: np.ndarray, patches: np.ndarray, reach: float) -> np.ndarray:
    """Pairs (E, 2) of patches that share or touch a cell of `reach` metres, corners included; lower index first.

    points: (N, 3) metres. patches: (N,) integers from 0 on; points of -1 are left out.
    """
    kept = np.flatnonzero(patches >= 0)
    if not len(kept):
        return np.empty((0, 2), dtype=np.int64)
    cells, _, cell = voxelize(points[kept], reach)
    count = int(patches.max()) + 1
    near = cKDTree(cells).query_pairs(1.8, output_type="ndarray")
    a, b = np.concatenate([near, near[:, ::-1], np.repeat(np.arange(len(cells))[:, None], 2, axis=1)]).T
    around = coo_array((np.ones(len(a), np.int32), (a, b)), shape=(len(cells),) * 2).tocsr()
    held = np.unique(cell * count + patches[kept])
    inside = coo_array(
        (np.ones(len(held), np.int32), np.divmod(held, count)), shape=(len(cells), count)
    ).tocsr()
    a, b = (inside.T @ around @ inside).nonzero()
    pairs = np.stack([a, b], axis=1)[a < b].astype(np.int64)
    return pairs[np.lexsort(pairs.T[::-1])]


def join_patches(
    features: np.ndarray,
    sizes: np.ndarray,
    edges: np.ndarray,
    *,
    centers: np.ndarray | None = None,
    aims: np.ndarray | None = None,
) -> Regions:
    """Join the two touching regions that differ least, until all that touch differ too much.

    features: (S, d), only their directions count. sizes: (S,) points. edges: (E, 2) which patches touch.
    centers, aims: (S, 3) metres, where the patches are and where their offsets point on average; with them two
    regions also differ by how far apart they point, as a share of how far apart they are, where that is more: parts of
    one object point at one place, two objects that touch do not.

    A region's feature, centre and aim are the means over its points.
    """
    pointing = aims is not None
    most = MAX_DIFFERENCE_POINTING if pointing else MAX_DIFFERENCE
    means = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    places = np.concatenate([centers, aims], axis=1) if pointing else np.zeros((len(sizes), 6))
    # Weighted sums: of features, centres and aims.
    sums = [*(np.concatenate([means, places], axis=1, dtype=np.float64) * sizes[:, None])]
    weight, region = sizes.tolist(), list(range(len(sizes)))
    around: dict[int, set[int]] = {patch: set() for patch in region}  # of the regions that there are
    for a, b in edges.tolist():
        around[a].add(b)
        around[b].add(a)

    def differences(a: int, others: list[int]) -> np.ndarray:
        own, other = sums[a], np.stack([sums[b] for b in others])
        lengths = np.linalg.norm(own[:-6]) * np.linalg.norm(other[:, :-6], axis=1)
        result = 1 - other[:, :-6] @ own[:-6] / np.maximum(lengths, 1e-12)
        if pointing:
            apart = other[:, -6:] / np.array([[weight[b]] for b in others]) - own[-6:] / weight[a]
            here, there = (np.linalg.norm(part, axis=1) for part in (apart[:, :3], apart[:, 3:]))
            result = np.maximum(result, POINTING * there / np.maximum(here, 0.1))
        return np.minimum(result, 1)

    heap: list[tuple[float, int, int]] = []

    def compare(a: int, others: list[int]) -> None:
        if others:
            for difference, b in zip(differences(a, others).tolist(), others, strict=True):
                if difference <= most:
                    heapq.heappush(heap, (difference, min(a, b), max(a, b)))

    for a in range(len(region)):
        compare(a, sorted(b for b in around[a] if b > a))
    while heap:
        _, a, b = heapq.heappop(heap)
        if a not in around or b not in around:
            continue
        new, others = len(sums), (around.pop(a) | around.pop(b)) - {a, b}
        sums.append(sums[a] + sums[b])
        weight.append(weight[a] + weight[b])
        region.append(new)
        region[a] = region[b] = new
        around[new] = others
        for other in others:
            around[other] = around[other] - {a, b} | {new}
        compare(new, sorted(others))
    for node in reversed(range(len(region))):  # a region came after its parts
        region[node] = region[region[node]]
    found, first, of_patch = np.unique(region[: len(sizes)], return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    contrast = [differences(a, sorted(around[a])).min() if around[a] else 1.0 for a in found[order].tolist()]
    return Regions(rank[of_patch], np.clip(np.array(contrast, dtype=np.float64), 0, 1))
