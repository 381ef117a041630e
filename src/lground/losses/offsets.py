"""Losses of the instance stage: voxels point at the centre of their object (PointGroup, CVPR 2020)."""

import torch
from torch import Tensor

from lground.losses.common import in_float32


def offset_targets(coordinates: Tensor, centers: Tensor, voxel_size: float = 0.02) -> Tensor:
    """Vectors (M, 3) in metres from voxels (M, 3) to the centres (M, 3) of their objects, both in voxels."""
    return (centers - coordinates) * voxel_size


@in_float32
def offset_norm_loss(offsets: Tensor, targets: Tensor, instances: Tensor) -> Tensor:
    """Mean L1 error of offsets (M, 3) in metres over the voxels of objects; instances (M,), -1 for none."""
    valid = instances >= 0
    error = (offsets - targets).abs().sum(1)
    return torch.where(valid, error, 0.0).sum() / (valid.sum() + 1e-6)


@in_float32
def offset_direction_loss(offsets: Tensor, targets: Tensor, instances: Tensor) -> Tensor:
    """Minus the mean cosine of offsets and targets (M, 3) over the voxels of objects."""
    valid = instances >= 0
    a = offsets / (torch.linalg.vector_norm(offsets, dim=1, keepdim=True) + 1e-8)
    b = targets / (torch.linalg.vector_norm(targets, dim=1, keepdim=True) + 1e-8)
    return torch.where(valid, -(a * b).sum(1), 0.0).sum() / (valid.sum() + 1e-6)
