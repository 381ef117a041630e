"""From vertices to voxels and back, exactly."""

from typing import NamedTuple

import numpy as np

from lground.errors import InputError

INT32 = np.iinfo(np.int32)


class Voxels(NamedTuple):
    """Occupied voxels of N vertices, ordered by their first vertex in file order."""

    coordinates: np.ndarray  # (M, 3) int32, unique rows
    index: np.ndarray  # (M,) int64, the first vertex of each voxel; increasing
    inverse: np.ndarray  # (N,) int64, the voxel of each vertex


def voxelize(points: np.ndarray, voxel_size: float = 0.02, *, matrix: np.ndarray | None = None) -> Voxels:
    """Find the occupied voxels: floor(matrix @ point / voxel_size), computed in float64.

    points: (N, 3) metres. voxel_size: edge length in metres. matrix: optional (3, 3) rotation times scale.
    Coordinates may be negative; no minimum is subtracted. The first vertex in file order stands for its
    voxel, as in the original (MinkowskiEngine's CPU quantisation).

    Raises InputError for an empty cloud, for NaN or infinite points, and where a voxel lies outside int32.
    """
    grid = _grid(np.asarray(points), voxel_size, matrix)
    order = _stable_order(grid)
    ordered = grid[order]
    starts = np.ones(len(grid), dtype=bool)  # True where a new voxel begins in `ordered`
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = order[starts]  # the sort is stable: the first of a run is the first in the file
    by_file = np.argsort(first)
    rank = np.empty_like(by_file)
    rank[by_file] = np.arange(len(by_file))
    inverse = np.empty_like(order)
    inverse[order] = rank[np.cumsum(starts) - 1]
    index = first[by_file]
    return Voxels(grid[index], index, inverse)


def _grid(points: np.ndarray, voxel_size: float, matrix: np.ndarray | None) -> np.ndarray:
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise InputError(f"no points to voxelise (an array of shape {points.shape}, (N, 3) is needed)")
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel size {voxel_size} m: give a length above zero, such as 0.02")
    metres = points.astype(np.float64)
    if matrix is not None:  # three products and two sums: the same bits whatever the number of BLAS threads
        metres = sum(metres[:, axis, None] * matrix[:, axis] for axis in range(3))
    grid = np.floor(metres / voxel_size)
    low, high = grid.min(), grid.max()  # NaN goes through min and max
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("some coordinates are NaN or infinite: remove these points")
    if low < INT32.min or high > INT32.max:
        raise InputError(
            f"coordinates reach {max(-low, high) * voxel_size:.3g} m, too far for 32-bit voxels: "
            "check the units, remove far outliers or use larger voxels"
        )
    return grid.astype(np.int32)


def _stable_order(grid: np.ndarray) -> np.ndarray:
    """Row order (N,) int64 that brings equal rows together and keeps them in file order."""
    low = grid.min(axis=0).astype(np.int64)
    sizes = [int(size) for size in grid.max(axis=0) - low + 1]
    if sizes[0] * sizes[1] * sizes[2] > np.iinfo(np.int64).max:  # only with outliers many kilometres away
        return np.lexsort(grid.T)
    x, y, z = (grid - low).T
    return np.argsort((x * sizes[1] + y) * sizes[2] + z, kind="stable")


def most_frequent(values: np.ndarray, inverse: np.ndarray, count: int) -> np.ndarray:
    """The most frequent value of each voxel, ties to the one met first in file order.

    values: (N,) integers, negative ones are ignored. inverse: (N,) voxel of each vertex. count: voxels.
    Returns (count,) int64, -1 where every value of the voxel is ignored.
    """
    winners = np.full(count, -1, dtype=np.int64)
    kept = np.flatnonzero(values >= 0)
    if len(kept) == 0:
        return winners
    voxel, value = inverse[kept], values[kept].astype(np.int64)
    base = int(value.max()) + 1
    pairs, first, votes = np.unique(voxel * base + value, return_index=True, return_counts=True)
    best_last = np.lexsort((-first, votes, pairs // base))
    # One write per pair in that order: the last one, the winner, stays.
    winners[pairs[best_last] // base] = pairs[best_last] % base
    return winners


def mean_colors(colors: np.ndarray, inverse: np.ndarray, count: int) -> np.ndarray:
    """The mean colour of each voxel; colors (N, 3), returns (count, 3) float32."""
    members = np.bincount(inverse, minlength=count)
    sums = [np.bincount(inverse, weights=channel, minlength=count) for channel in colors.T]
    return (np.stack(sums, axis=1) / members[:, None]).astype(np.float32)
