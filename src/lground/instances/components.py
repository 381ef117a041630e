"""Points that hang together: components of the graph that joins near points of one label."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lground.errors import InputError

REACH = 2  # cells, along each axis, within which all points within the radius lie
# Half of the columns of cells within reach, the nearest first; the other half gives the same pairs turned round.
COLUMNS = (
    (0, 0),
    (0, 1),
    (1, 0),
    (1, -1),
    (1, 1),
    (0, 2),
    (2, 0),
    (1, -2),
    (1, 2),
    (2, -1),
    (2, 1),
    (2, -2),
    (2, 2),
)
PAIRS = 2**18  # halved at once, which bounds the memory


def connected_groups(points: np.ndarray, labels: np.ndarray, radius: float) -> np.ndarray:
    """Components of the graph that joins points of equal label no further apart than `radius`.

    points: (M, 3) metres. labels: (M,) integers; points of a negative label are left out. radius: metres.
    Two points are joined where (dx * dx + dy * dy) + dz * dz <= radius * radius in float64, without exception:
    the result is that of looking at all pairs. Returns (M,) int64: the component of each point, numbered by
    their first points; -1 for points left out.

    The time grows with the points, not with the neighbours that they have, of which there are thousands where
    shifted points have gathered at the centre of their object: all points of one label in a cell whose diagonal
    is the radius belong together, and two cells are looked into only as long as their components differ.

    Raises InputError for arrays that do not fit together, for points that are not finite and for no radius.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    if points.ndim != 2 or points.shape[1] != 3 or labels.shape != points.shape[:1]:
        raise InputError(
            f"points of shape {points.shape} and labels of shape {labels.shape}: (M, 3) and (M,) are needed"
        )
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"radius {radius} m: give a length above zero, such as 0.03")
    groups = np.full(len(points), -1, dtype=np.int64)
    kept = np.flatnonzero(labels >= 0)
    axes = np.ascontiguousarray(points[kept].T, dtype=np.float64)  # (3, n)
    if not np.isfinite(axes).all():
        raise InputError("some points are NaN or infinite: remove them, or leave them out by a label of -1")
    if len(kept):
        cells, runs, cell_of_point = _sort_into_cells(axes, labels[kept], radius)
        groups[kept] = _by_first_member(_join(cells, runs, radius)[cell_of_point])
    return groups


def _by_first_member(sets: np.ndarray) -> np.ndarray:
    """The same partition (n,), its sets numbered in the order in which they begin; sets: (n,) from 0 on."""
    first = np.empty(sets.max() + 1, dtype=np.int64)
    first[sets[::-1]] = np.arange(len(sets))[::-1]  # the last write stays
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[sets]


@dataclass(frozen=True, eq=False)
class _Cells:
    """G occupied cells of the labels, ordered by column (label, x, y) and then by z."""

    columns: np.ndarray  # (K,) int64 codes of (label, x, y), increasing
    width: int  # from x to x + 1 in these codes
    codes: np.ndarray  # (G,) int64, the column (0 to K - 1) * height + z, increasing
    height: int

    def beside(self, dx: int, dy: int) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (a, b) of cells: b in the column dx, dy further on and within reach in z; each pair once."""
        wanted = self.columns + (dx * self.width + dy)
        found = np.searchsorted(self.columns, wanted)
        there = np.take(self.columns, found, mode="clip") == wanted
        column = self.codes // self.height
        a = np.flatnonzero(there[column])
        level = self.codes[a] + (found - np.arange(len(found)))[column[a]] * self.height
        low = np.searchsorted(self.codes, level - REACH) if dx or dy else a + 1
        counts = np.searchsorted(self.codes, level + REACH, side="right") - low
        ends = np.cumsum(counts)
        return np.repeat(a, counts), np.repeat(low - (ends - counts), counts) + np.arange(counts.sum())


@dataclass(frozen=True, eq=False)
class _Runs:
    """Points in runs, each of one cell."""

    axes: np.ndarray  # (3, n) float64, run by run
    starts: np.ndarray  # (r,) where each run begins
    cell: np.ndarray  # (r,)

    def boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest coordinates of each run, (3, r) each."""
        return tuple(ufunc.reduceat(self.axes, self.starts, axis=1) for ufunc in (np.minimum, np.maximum))

    def halved(self, chosen: np.ndarray) -> tuple["_Runs", np.ndarray]:
        """The two halves of the runs `chosen` (k,), without empty ones; their numbers (k, 2), -1 where empty."""
        sizes = np.diff(self.starts, append=self.axes.shape[1])[chosen]
        begins = np.cumsum(sizes) - sizes
        rows = np.repeat(self.starts[chosen] - begins, sizes) + np.arange(sizes.sum())
        halves = np.stack([begins, begins + (sizes + 1) // 2], axis=1)  # (k, 2)
        filled = np.stack([sizes > 0, sizes > 1], axis=1)
        numbers = np.where(filled, np.cumsum(filled).reshape(-1, 2) - 1, -1)
        cells = np.repeat(self.cell[chosen], 2).reshape(-1, 2)[filled]
        return _Runs(self.axes[:, rows], halves[filled], cells), numbers


def _sort_into_cells(axes: np.ndarray, labels: np.ndarray, radius: float) -> tuple[_Cells, _Runs, np.ndarray]:
    """The cells of points (3, n), the points of each, and the cell of each point (n,)."""
    # A little smaller than the radius allows, so that rounding never joins points that are further apart.
    scaled = axes / (radius / np.sqrt(3) * (1 - 1e-6))
    grid = np.floor(scaled)
    x, y, z = map(_without_gaps, grid)
    depth, width, height = (int(values.max()) + REACH + 1 for values in (x, y, z))
    label = np.searchsorted(np.unique(labels), labels)
    codes = (label * depth + x) * width + y
    columns = np.unique(codes)
    codes = np.searchsorted(columns, codes) * height + z
    order = np.argsort(_curve(scaled - grid), kind="stable")
    order = order[np.argsort(codes[order], kind="stable")]
    codes = codes[order]
    begins = np.diff(codes, prepend=-1) > 0
    starts = np.flatnonzero(begins)
    cell = np.empty(len(order), dtype=np.int64)
    cell[order] = np.cumsum(begins) - 1
    runs = _Runs(axes[:, order], starts, np.arange(len(starts)))
    return _Cells(columns, width, codes[starts], height), runs, cell


def _without_gaps(values: np.ndarray) -> np.ndarray:
    """Whole numbers (n,) from REACH on, ordered as `values` with the same differences up to REACH, larger ones cut.

    So the codes of cells stay small, however far an outlier lies.
    """
    present = np.unique(values)
    steps = np.minimum(np.diff(present), REACH + 1).astype(np.int64)
    return np.cumsum([REACH, *steps])[np.searchsorted(present, values)]


def _curve(fractions: np.ndarray) -> np.ndarray:
    """Places (n,) uint16 along a curve through 32^3 parts of a cell, near ones near each other; fractions: (3, n)."""
    bits = [sum((k >> bit & 1) << 3 * bit for bit in range(5)) for k in range(32)]
    x, y, z = np.array(bits, dtype=np.uint16)[np.clip(fractions * 32, 0, 31).astype(np.int64)]
    return x << 2 | y << 1 | z


def _join(cells: _Cells, runs: _Runs, radius: float) -> np.ndarray:
    """The component of each cell (G,), in any numbers from 0 on.

    First by pairs of whole cells. Pairs that this leaves open are halved again and again, until it is settled
    whether any two points of theirs are near: an open pair has fewer points each time, and none is open that has
    one point on either side.
    """
    component = runs.cell
    boxes = runs.boxes()
    left = []
    for dx, dy in COLUMNS:
        component, *pairs = _settle(component, runs, boxes, *cells.beside(dx, dy), radius)
        left.append(pairs)
    a, b = (np.concatenate(ends) for ends in zip(*left, strict=True))
    open_pairs = [(runs, a[k : k + PAIRS], b[k : k + PAIRS]) for k in range(0, len(a), PAIRS)]
    while open_pairs:
        runs, a, b = open_pairs.pop()
        chosen, ends = np.unique(_apart(component, runs, a, b), return_inverse=True)
        runs, halves = runs.halved(chosen)
        a, b = halves[ends.reshape(2, -1)]  # (k, 2) each
        a, b = np.repeat(a, 2, axis=1).ravel(), np.tile(b, 2).ravel()
        filled = (a >= 0) & (b >= 0)
        component, a, b = _settle(component, runs, runs.boxes(), a[filled], b[filled], radius)
        open_pairs += [(runs, a[k : k + PAIRS], b[k : k + PAIRS]) for k in range(0, len(a), PAIRS)]
    return component


def _settle(
    component: np.ndarray,
    runs: _Runs,
    boxes: tuple[np.ndarray, np.ndarray],
    a: np.ndarray,
    b: np.ndarray,
    radius: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unite the components of runs a and b whose first points are near; with the pairs (a, b) still open.

    Open are pairs of different components whose boxes are near. Boxes are never further apart than points in
    them, rounded as they are: rounding keeps the order of differences, of squares and of sums.
    """
    a, b = _apart(component, runs, a, b)
    first = runs.axes[:, runs.starts]
    near = _square_sum(first[:, a] - first[:, b]) <= radius * radius
    component = _unite(component, runs.cell[a[near]], runs.cell[b[near]])
    a, b = _apart(component, runs, a, b)
    low, high = boxes
    gaps = np.maximum(low[:, a] - high[:, b], low[:, b] - high[:, a])
    near = _square_sum(np.maximum(gaps, 0)) <= radius * radius
    return component, a[near], b[near]


def _apart(component: np.ndarray, runs: _Runs, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of runs a and b whose components differ."""
    apart = component[runs.cell[a]] != component[runs.cell[b]]
    return a[apart], b[apart]


def _square_sum(differences: np.ndarray) -> np.ndarray:
    x, y, z = differences
    return (x * x + y * y) + z * z


def _unite(component: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The components (G,) of cells after joining those of cells a and b."""
    count = component.max() + 1
    edges = coo_array((np.ones(len(a), dtype=bool), (component[a], component[b])), shape=(count, count))
    _, united = connected_components(edges, directed=False)
    return united[component]
