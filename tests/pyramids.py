"""What a pyramid holds for a convolution: "same" (3^3) on a level, "down" (2^3, stride 2) from it or "up" onto it."""

import torch

from lground.sparse.kernels.pyramid import Pyramid
from lground.sparse.kernels.tiles import Tiles


def tiles_of(pyramid: Pyramid, kind: str, level: int) -> Tiles:
    return {"same": pyramid.tiles, "up": pyramid.tiles_up, "down": pyramid.tiles_down}[kind](level)


def table_of(pyramid: Pyramid, kind: str, level: int) -> torch.Tensor:
    """(K, n) input row of each output row of a convolution at each offset, -1 for none."""
    target = level + (kind == "down")
    columns = slice(pyramid.base[target], pyramid.base[target] + pyramid.counts()[target])
    if kind == "up":
        family = pyramid.parent[columns]
        return torch.stack([torch.where(family & 7 == j, family >> 3, -1) for j in range(8)])
    if kind == "down":
        return pyramid.children(target)[:, : pyramid.counts()[target]]
    return pyramid.table[:, columns]
