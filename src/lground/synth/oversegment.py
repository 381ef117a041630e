"""Over-segmentation of a mesh into small connected patches.

The graph method of Felzenszwalb and Huttenlocher (Efficient Graph-Based Image Segmentation, IJCV 2004) on
the edges of the mesh: edges in rising order of weight join two segments when the weight is at most the
largest weight inside either segment plus `k_threshold / size`. The weight of an edge is one minus the cosine
between the normals of its ends, squared where the surface is convex, since objects meet in concave creases.
"""

import numpy as np

from lground.synth.fusion import edges_of

K_THRESHOLD = 0.005
MIN_VERTICES = 20  # at 2 cm between vertices, about 80 square centimetres


def min_vertices(spacing: float) -> int:
    """The least size of a segment on a mesh of that spacing (metres): about the same area on every mesh."""
    return max(3, min(MIN_VERTICES, round(MIN_VERTICES * (0.02 / spacing) ** 2)))


def oversegment(
    points: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray,
    k_threshold: float = K_THRESHOLD,
    min_vertices: int = MIN_VERTICES,
) -> np.ndarray:
    """Segment of each vertex (N,) int64; ids are not contiguous (each is the index of one of its vertices).

    Every segment is connected on the mesh and has at least `min_vertices` vertices, unless its whole
    connected piece of the mesh is smaller.
    """
    edges = edges_of(faces, len(points))
    return cut_edges(edges, _weights(points, normals, edges), len(points), k_threshold, min_vertices)


def cut_edges(
    edges: np.ndarray, weights: np.ndarray, count: int, k_threshold: float, min_vertices: int
) -> np.ndarray:
    """The same on any graph: segment of each of `count` vertices from edges (E, 2) and their weights (E,)."""
    order = np.argsort(weights, kind="stable")
    edges, weights = edges[order], weights[order]
    parent, size = _join(edges, weights, count, k_threshold)
    return _absorb_small(edges, parent, size, min_vertices)


def _weights(points: np.ndarray, normals: np.ndarray, edges: np.ndarray) -> np.ndarray:
    a, b = edges.T
    turn = np.clip(1 - np.einsum("ij,ij->i", normals[a], normals[b]), 0, 2)
    step = points[b] - points[a]
    convex = np.einsum("ij,ij->i", normals[b], step) > 0
    return np.where(convex, turn * turn, turn)


def _join(
    edges: np.ndarray, weights: np.ndarray, count: int, k_threshold: float
) -> tuple[list[int], list[int]]:
    """Union-find over the sorted edges. The order matters, so this is one tight loop over plain lists.

    `limit[root]` is the largest weight inside the segment plus k / size. Edges come in rising order, so the
    weight that joins two segments is the largest inside the result.
    """
    parent, size, limit = list(range(count)), [1] * count, [k_threshold] * count
    for a, b, weight in zip(edges[:, 0].tolist(), edges[:, 1].tolist(), weights.tolist(), strict=True):
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        if a != b and weight <= limit[a] and weight <= limit[b]:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            limit[a] = weight + k_threshold / size[a]
    return parent, size


def _roots(parent: np.ndarray) -> np.ndarray:
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            return parent
        parent = above


def _absorb_small(edges: np.ndarray, parent: list[int], size: list[int], least: int) -> np.ndarray:
    """Join every segment smaller than `least` with the neighbour over its lightest edge."""
    segment = _roots(np.array(parent))
    pairs = segment[edges]
    small = (np.array(size)[pairs] < least).any(axis=1) & (pairs[:, 0] != pairs[:, 1])
    pairs = pairs[small]
    for a, b in zip(pairs[:, 0].tolist(), pairs[:, 1].tolist(), strict=True):
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        if a != b and (size[a] < least or size[b] < least):
            parent[b] = a
            size[a] += size[b]
    return _roots(np.array(parent))
