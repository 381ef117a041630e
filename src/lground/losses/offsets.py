"""Losses of the instance stage: voxels point at the centre of their object (PointGroup, CVPR 2020)."""

import torch
from torch import Tensor

from lground.losses.common import in_float32


def object_centers(coordinates: Tensor, instances: Tensor) -> Tensor:
    """The mean voxel (M, 3) float32 of the object that each voxel belongs to.

    coordinates: (M, 4) integers: scene, x, y, z. instances: (M,) the object's number within its scene, -1 for none;
    what a voxel of no object gets has no meaning. Sums are of integers: the same on every device, in any order.
    """
    scene, places = coordinates[:, 0].long(), coordinates[:, 1:].long()
    numbers = scene * (instances.max() + 2) + instances + 1 if len(instances) else scene
    found, group = torch.unique(numbers, return_inverse=True)
    sums = places.new_zeros(len(found), 3).index_add_(0, group, places)
    counts = torch.bincount(group, minlength=len(found))
    return (sums / counts[:, None])[group]


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
