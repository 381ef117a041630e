"""Features on voxels."""

from __future__ import annotations

import torch
from torch import Tensor

from lground.errors import InputError
from lground.sparse.coordinates import CoordinateManager, CoordinateMap
from lground.sparse.engine import coordinate_map, note_joined


class SparseTensor:
    """A matrix of features whose rows lie on voxels.

    Args:
        features: (N, C) floating.
        coordinates: (N, 4) integer rows [batch, x, y, z] on the same device; in any order, negative ones too,
            each voxel once.
        stride: distance between neighbouring voxels; coordinates are multiples of it.
        manager: the coordinate manager of the tensors to compute with; a new one by default.

    Raises:
        InputError: duplicates (it says how many), wrong shapes, no rows, coordinates too far apart to index. On
            a GPU, what lies in the coordinates is checked by the first layer, so that nothing waits here.
    """

    def __init__(
        self, features: Tensor, coordinates: Tensor, stride: int = 1, manager: CoordinateManager | None = None
    ):
        voxels = coordinate_map(coordinates, stride)
        self._set(features, voxels, manager or CoordinateManager())
        self.manager.add(voxels)

    @classmethod
    def on_map(
        cls, features: Tensor, coordinate_map: CoordinateMap, manager: CoordinateManager
    ) -> SparseTensor:
        """Features on a coordinate map that the manager knows already."""
        tensor = cls.__new__(cls)
        tensor._set(features, coordinate_map, manager)
        return tensor

    def _set(self, features: Tensor, coordinate_map: CoordinateMap, manager: CoordinateManager) -> None:
        if features.ndim != 2 or len(features) != len(coordinate_map):
            raise InputError(
                f"features of shape {tuple(features.shape)} do not fit {len(coordinate_map)} coordinate "
                "rows: one row of features per voxel is needed"
            )
        self.features = features
        self.coordinate_map = coordinate_map
        self.manager = manager

    def with_features(self, features: Tensor) -> SparseTensor:
        """Other features (N, C') on the same voxels."""
        return SparseTensor.on_map(features, self.coordinate_map, self.manager)

    @property
    def coordinates(self) -> Tensor:
        """(N, 4) int32 rows [batch, x, y, z]."""
        return self.coordinate_map.coordinates

    @property
    def stride(self) -> int:
        """Distance between neighbouring voxels (0 after global pooling)."""
        return self.coordinate_map.stride

    def __len__(self) -> int:
        return len(self.features)

    def __add__(self, other: SparseTensor) -> SparseTensor:
        same_voxels(self, other)
        return self.with_features(self.features + other.features)

    def __repr__(self) -> str:
        return f"SparseTensor({len(self)} voxels x {self.features.shape[1]} channels, stride {self.stride})"


def cat(*tensors: SparseTensor) -> SparseTensor:
    """Concatenate the channels of tensors on the same voxels, in the order given."""
    for other in tensors[1:]:
        same_voxels(tensors[0], other)
    parts = [t.features for t in tensors]
    features = torch.cat(parts, dim=1)
    note_joined(features, parts)
    return tensors[0].with_features(features)


def same_voxels(a: SparseTensor, b: SparseTensor) -> None:
    """Raise InputError unless the rows of both lie on the same voxels."""
    if a.coordinate_map is not b.coordinate_map:
        raise InputError(
            f"{a!r} and {b!r} do not share their voxels: build both on one tensor, or the second with "
            "`with_features` of the first"
        )
