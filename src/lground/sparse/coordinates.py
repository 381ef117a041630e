"""Where the voxels are: sets of coordinates, and the manager that shares them through a network."""

from functools import cached_property

import torch
from torch import Tensor

from lground.errors import InputError
from lground.sparse.kernel_map import KernelMap, Triple, build_kernel_map, kernel_offsets
from lground.sparse.keys import KeySpace


class CoordinateMap:
    """The voxels of one tensor: row i of its features lies at `coordinates[i]`.

    Args:
        coordinates: (N, 4) int32 rows [batch, x, y, z], unique, x, y, z multiples of `stride`.
        stride: distance between neighbouring voxels of this map, in voxels of the finest map.
        order: (N,) permutation that sorts the rows by batch, x, y, z; None when they are sorted already.
    """

    def __init__(self, coordinates: Tensor, stride: int, order: Tensor | None = None):
        self.coordinates = coordinates
        self.stride = stride
        self.order = order

    def __len__(self) -> int:
        return len(self.coordinates)

    @cached_property
    def cells(self) -> Tensor:
        """(N, 4) int64 coordinates in units of the stride, rows sorted."""
        rows = self.coordinates if self.order is None else self.coordinates[self.order]
        return rows.long() // _spatial(self.stride, rows)

    @cached_property
    def scene_rows(self) -> tuple[Tensor, ...]:
        """For each batch index present, in ascending order: the (n,) int64 rows of that scene."""
        rows = torch.arange(len(self), device=self.coordinates.device) if self.order is None else self.order
        counts = torch.unique_consecutive(self.coordinates[rows, 0], return_counts=True)[1]
        return rows.split(counts.tolist())

    def coarser(self, factor: int) -> "CoordinateMap":
        """The voxels floored to multiples of `factor` times the stride."""
        cells = self.cells // _spatial(factor, self.cells)  # floor division: -1 lies in the cell of -2
        return CoordinateMap.from_cells(cells, self.stride * factor)

    def kernel_map(self, target: "CoordinateMap", kernel_size: Triple, dilation: Triple) -> KernelMap:
        """For every offset, pairs with `voxel here = voxel of target + offset * dilation * stride`."""
        return build_kernel_map(self, target, kernel_size, dilation)

    @classmethod
    def from_rows(cls, coordinates: Tensor, stride: int) -> "CoordinateMap":
        """Check a user's coordinates and sort them once. Raises InputError on anything a map cannot hold."""
        coordinates = _checked(coordinates, stride)
        keys, order = torch.sort(KeySpace.around([coordinates.long()]).pack(coordinates.long()))
        repeats = keys[1:] == keys[:-1]
        if count := int(repeats.sum()):
            example = coordinates[order[1:][repeats][0]].tolist()
            raise InputError(
                f"{count} of {len(coordinates)} coordinate rows are duplicates (for example {example}): "
                "keep one row per voxel"
            )
        ascending = torch.arange(len(order), device=order.device)
        return cls(coordinates, stride, None if torch.equal(order, ascending) else order)

    @classmethod
    def from_cells(cls, cells: Tensor, stride: int) -> "CoordinateMap":
        """The distinct cells among (M, 4) int64 rows in units of `stride`; the map's rows come sorted."""
        space = KeySpace.around([cells])
        cells = space.unpack(torch.unique(space.pack(cells)))
        return cls((cells * _spatial(stride, cells)).int(), stride)


class CoordinateManager:
    """Builds every coordinate map and kernel map once and shares them between the layers of a network."""

    def __init__(self) -> None:
        self._by_stride: dict[int, CoordinateMap] = {}
        self._coarse: dict[tuple, CoordinateMap] = {}
        self._kernel_maps: dict[tuple, KernelMap] = {}

    def add(self, coordinate_map: CoordinateMap) -> CoordinateMap:
        """Register a map; the first one of each stride is where transposed convolutions land."""
        self._by_stride.setdefault(coordinate_map.stride, coordinate_map)
        return coordinate_map

    def coarser(self, fine: CoordinateMap, factor: int) -> CoordinateMap:
        """The map a convolution of stride `factor` writes to: voxels floored to multiples."""
        if factor == 1:
            return fine
        key = (fine, factor)
        if key not in self._coarse:
            self._coarse[key] = self.add(fine.coarser(factor))
        return self._coarse[key]

    def finer(self, coarse: CoordinateMap, factor: int, kernel_size: tuple, dilation: tuple) -> CoordinateMap:
        """The map a transposed convolution writes to: the one that exists, else all the kernel reaches."""
        if factor == 1:
            return coarse
        stride = coarse.stride // factor
        if stride * factor != coarse.stride:
            raise InputError(f"a tensor of stride {coarse.stride} cannot be upsampled by {factor}")
        if stride not in self._by_stride:
            cells = coarse.cells * _spatial(factor, coarse.cells)
            offsets = torch.tensor(kernel_offsets(kernel_size, dilation), device=cells.device)
            offsets = torch.nn.functional.pad(offsets, (1, 0))
            self.add(CoordinateMap.from_cells((cells[:, None] + offsets).reshape(-1, 4), stride))
        return self._by_stride[stride]

    def kernel_map(
        self, source: CoordinateMap, target: CoordinateMap, kernel_size: tuple, dilation: tuple
    ) -> KernelMap:
        """For every offset, pairs with `source voxel = target voxel + offset * dilation * source.stride`."""
        key = (source, target, kernel_size, dilation)
        if key not in self._kernel_maps:
            self._kernel_maps[key] = source.kernel_map(target, kernel_size, dilation)
        return self._kernel_maps[key]


def _spatial(factor: int, like: Tensor) -> Tensor:
    """[1, f, f, f]: scales x, y, z and leaves the batch index alone."""
    return torch.tensor([1, factor, factor, factor], dtype=torch.int64, device=like.device)


def _checked(coordinates: Tensor, stride: int) -> Tensor:
    if coordinates.ndim != 2 or coordinates.shape[1] != 4:
        raise InputError(
            f"coordinates must be (N, 4) rows [batch, x, y, z], not of shape {tuple(coordinates.shape)}"
        )
    if coordinates.is_floating_point() or coordinates.is_complex() or coordinates.dtype == torch.bool:
        raise InputError(f"coordinates must be integers, not {coordinates.dtype}: voxelise the points first")
    if not len(coordinates):
        raise InputError("a sparse tensor needs at least one voxel, and the coordinates are empty")
    if coordinates.dtype == torch.int64 and int(coordinates.abs().max()) >= 2**31:
        raise InputError(
            "coordinates must fit in 32-bit integers: move the scene towards the origin, or take larger voxels"
        )
    if int(coordinates[:, 0].min()) < 0:
        raise InputError("the first coordinate column is the batch index and cannot be negative")
    if stride > 1 and int((coordinates[:, 1:] % stride).abs().max()):
        raise InputError(f"the coordinates of a tensor of stride {stride} must be multiples of {stride}")
    return coordinates.int()
