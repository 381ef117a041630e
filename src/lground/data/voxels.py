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
    index, inverse = first_rows(grid)
    return Voxels(np.take(grid, index, axis=0), index, inverse)


def _grid(points: np.ndarray, voxel_size: float, matrix: np.ndarray | None) -> np.ndarray:
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise InputError(f"no points to voxelise (an array of shape {points.shape}, (N, 3) is needed)")
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel size {voxel_size} m: give a length above zero, such as 0.02")
    # Axis by axis, which numpy does several times faster than whole rows of three. The products are summed here
    # and not by BLAS: the same bits whatever the number of its threads.
    axes = list(points.T.astype(np.float64))
    if matrix is not None:
        axes = [axes[0] * row[0] + axes[1] * row[1] + axes[2] * row[2] for row in matrix]
    axes = [np.floor(axis / voxel_size) for axis in axes]
    low, high = np.min([axis.min() for axis in axes]), np.max([axis.max() for axis in axes])
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN goes through min and max
        raise InputError("some coordinates are NaN or infinite: remove these points")
    if low < INT32.min or high > INT32.max:
        raise InputError(
            f"coordinates reach {max(-low, high) * voxel_size:.3g} m, too far for 32-bit voxels: "
            "check the units, remove far outliers or use larger voxels"
        )
    grid = np.empty(points.shape, dtype=np.int32)
    for k, axis in enumerate(axes):
        grid[:, k] = axis
    return grid


def first_rows(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of equal rows of `grid` (N, 3) int32: their indices (M,) int64, increasing, and inverse (N,) int64."""
    order, starts = _sorted(grid)
    first = np.empty_like(order)  # of each row the first that equals it
    first[order] = order[starts][np.cumsum(starts) - 1]  # the sort is stable: a run begins with its first row
    is_first = first == np.arange(len(grid))
    return np.flatnonzero(is_first), (np.cumsum(is_first) - 1)[first]


def _sorted(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row order (N,) int64 that brings equal rows together, in file order, and where in it other rows begin (N,)."""
    starts = np.ones(len(grid), dtype=bool)
    axes = np.ascontiguousarray(grid.T, dtype=np.int64)
    low = axes.min(axis=1)
    sizes = [int(size) for size in axes.max(axis=1) - low + 1]
    cells = sizes[0] * sizes[1] * sizes[2]
    if cells > np.iinfo(np.int64).max:  # only with outliers many kilometres away
        order = np.lexsort(grid.T)
        starts[1:] = (grid[order[1:]] != grid[order[:-1]]).any(axis=1)
        return order, starts
    x, y, z = axes - low[:, None]
    keys = (x * sizes[1] + y) * sizes[2] + z
    order = stable_order(keys, cells)
    keys = keys[order]
    starts[1:] = keys[1:] != keys[:-1]
    return order, starts


def bounds(rows: np.ndarray) -> np.ndarray:
    """The lowest and the highest value of each column of `rows` (N, C), as (2, C).

    NumPy's own minimum and maximum along the first axis of such a narrow array take twenty times as long.
    """
    columns = np.ascontiguousarray(rows.T)
    return np.stack([columns.min(axis=1), columns.max(axis=1)])


def stable_order(keys: np.ndarray, count: int) -> np.ndarray:
    """np.argsort(keys, kind="stable") of integers (n,) from 0 to count - 1.

    numpy sorts 16-bit integers digit by digit, several times faster than longer ones; two passes serve 32 bits.
    """
    if count > 2**32:
        return np.argsort(keys, kind="stable")
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    if count > 2**16:
        order = order[np.argsort((keys >> 16).astype(np.uint16)[order], kind="stable")]
    return order


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
