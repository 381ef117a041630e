"""Distances between features and anchors, without ever holding an (N, K, d) array.

One scene has up to a million points and 512 channels, so one gathered (N, d) array is 2 GB: cosines come
from one product with all anchors, other distances from one anchor per point at a time, recomputed in the
backward pass.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Distance = Literal["cos", "l2", "l1", "l1_signed"]
"""cos        1 - cosine
l2         sqrt(sum of squared differences + 1e-7)
l1         sum of absolute differences
l1_signed  sum of differences, without absolute value: the original's "l1", negative as often as positive
"""


def inverse_norm(x: Tensor) -> Tensor:
    """1 / |x| along the last axis, kept; 0 for a zero vector, whose gradient is then 0 and not infinite."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(norm > 1e-12, 1 / norm.clamp(min=1e-12), 0.0)


def cosine(features: Tensor, anchors: Tensor) -> Tensor:
    """Cosines (N, C) of features (N, d) with anchors (C, d); 0 for a zero vector."""
    # Features are divided after the product: no normalised copy of the (N, d) array is made or kept.
    return features @ (anchors * inverse_norm(anchors)).T * inverse_norm(features)


def pair_distance(a: Tensor, b: Tensor, distance: Distance = "cos") -> Tensor:
    """Distance (N,) of row i of `a` (N, d) to row i of `b` (N, d)."""
    if distance == "cos":
        return 1 - (a * b).sum(-1) * inverse_norm(a)[..., 0] * inverse_norm(b)[..., 0]
    if distance == "l2":
        return ((a - b).square().sum(-1) + 1e-7).sqrt()
    if distance == "l1":
        return (a - b).abs().sum(-1)
    if distance == "l1_signed":
        return (a - b).sum(-1)
    raise ValueError(f"distance '{distance}' is not one of cos, l2, l1, l1_signed")


def row_distances(features: Tensor, table: Tensor, index: Tensor, distance: Distance) -> Tensor:
    """Distances (N, K) of feature i (N, d) to the rows `index` (N, K) of `table` (M, d)."""

    def one(features: Tensor, table: Tensor, rows: Tensor) -> Tensor:
        return pair_distance(features, table[rows], distance)

    columns = [
        checkpoint(one, features, table, rows, use_reentrant=False, preserve_rng_state=False)
        for rows in index.unbind(1)
    ]
    return torch.stack(columns, 1)


def anchor_distances(features: Tensor, anchors: Tensor, index: Tensor, distance: Distance) -> Tensor:
    """Distances (N, K) of feature i (N, d) to the anchors (C, d) named by `index` (N, K)."""
    if distance == "cos":
        return 1 - cosine(features, anchors).gather(1, index)
    return row_distances(features, anchors, index, distance)
