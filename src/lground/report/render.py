"""Points to pixels: z-buffered discs as large as the gaps between points, shaded by slope and depth."""

from dataclasses import dataclass

import numpy as np

from lground.report.camera import Camera, cut_away

OVERSAMPLING = 2  # drawn at twice the size and averaged: smooth edges
MOST_POINTS = 300_000
LARGEST_DISC = 12  # pixels, radius, at twice the size
NEIGHBOURS = 9
BACKGROUND = 255


def render_points(
    points: np.ndarray,
    colors: np.ndarray,
    size: tuple[int, int] = (960, 720),
    view: str = "corner",
    cut_ceiling: bool = True,
) -> np.ndarray:
    """A picture (height, width, 3) uint8 of points (N, 3), metres, +Z up, with colors (N, 3) uint8.

    size: (width, height) in pixels. view: "corner" (from above a corner of the room) or "top". cut_ceiling:
    take off the ceiling and the walls before the camera, so that the inside shows.
    """
    return draw(points, size, view, cut_ceiling).paint(colors)


@dataclass(frozen=True)
class Drawing:
    """A drawn geometry, to be painted in any colours; its pixels are `OVERSAMPLING` times finer."""

    index: np.ndarray  # (H, W) int64, the point seen in each pixel, -1 for none
    shade: np.ndarray  # (H, W) float32 brightness 0..1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture, in its pixels."""
        return tuple(side // OVERSAMPLING for side in self.index.shape)

    def middles(self, things: np.ndarray, least: int) -> list[tuple[int, float, float]]:
        """Things and a pixel x, y of each near its middle, for those of at least so many pixels, the largest first.

        things: (N,) the thing of each point, -1 for none.
        """
        y, x = np.nonzero(self.index >= 0)
        seen = things[self.index[y, x]]
        found = []
        for thing, count in zip(*np.unique(seen[seen >= 0], return_counts=True), strict=True):
            if count >= least * OVERSAMPLING**2:
                of = np.stack([x[seen == thing], y[seen == thing]], axis=1)
                nearest = np.square(of - of.mean(axis=0)).sum(axis=1).argmin()  # the mean may lie beside it
                found.append((count, int(thing), *(of[nearest] / OVERSAMPLING).tolist()))
        return [tuple(entry) for _, *entry in sorted(found, key=lambda entry: (-entry[0], entry[1]))]

    def paint(self, colors: np.ndarray) -> np.ndarray:
        """The picture, uint8, for colors (N, 3) uint8 of the points that were drawn."""
        picture = np.full((*self.index.shape, 3), BACKGROUND, dtype=np.float32)
        seen = self.index >= 0
        picture[seen] = np.asarray(colors)[self.index[seen]] * self.shade[seen, None]
        height, width, k = *self.index.shape, OVERSAMPLING
        blocks = picture.reshape(height // k, k, width // k, k, 3).mean(axis=(1, 3))
        return np.clip(np.rint(blocks), 0, 255).astype(np.uint8)


def draw(
    points: np.ndarray,
    size: tuple[int, int],
    view: str = "corner",
    cut_ceiling: bool = True,
    camera: Camera | None = None,
) -> Drawing:
    """Draw the geometry that `render_points` colours; `camera` (for the same size) overrides the framing."""
    points = np.asarray(points, dtype=np.float64)
    camera = camera or Camera.look_at(points, size, view)
    kept = np.flatnonzero(cut_away(points, view)) if cut_ceiling else np.arange(len(points))
    kept = kept[np.random.default_rng(0).permutation(len(kept))[:MOST_POINTS]]
    points = points[kept]
    spacing, slope = _surface(points, camera)
    pixels, depth = camera.project(points)
    radius = np.clip(spacing * camera.scale / depth * 0.85 * OVERSAMPLING, 0.8, LARGEST_DISC)
    seen = _splat(pixels * OVERSAMPLING, depth, radius, (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING))
    shade = _edges(np.where(seen >= 0, depth[seen], np.inf)) * slope[seen]
    return Drawing(np.where(seen >= 0, kept[seen], -1), shade.astype(np.float32))


def _surface(points: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Spacing (N,) metres and brightness (N,) 0.78..1 by slope, from each point's neighbours."""
    from scipy.spatial import cKDTree

    count = min(NEIGHBOURS, len(points))
    distance, near = cKDTree(points).query(points, k=count)
    spacing = distance.reshape(len(points), count)[:, min(5, count - 1)]
    typical = np.median(spacing)
    spacing = np.clip(spacing, typical * 0.5, typical * 2)
    if count < 4:
        return spacing, np.ones(len(points))
    around = points[near] - points[near].mean(axis=1, keepdims=True)
    normals = np.linalg.eigh(around.transpose(0, 2, 1) @ around)[1][:, :, 0]
    right, _, forward = camera.axes
    light = np.array([0, 0, 0.9]) - 0.35 * right - 0.4 * forward
    return spacing, 0.78 + 0.22 * np.abs(normals @ (light / np.linalg.norm(light)))


def _splat(pixels: np.ndarray, depth: np.ndarray, radius: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width) int64: the point seen in each pixel, -1 where none is."""
    from scipy.ndimage import grey_closing

    order = np.argsort(-depth)  # far to near: of writes to one pixel the last, nearest, stays
    x, y = np.floor(pixels[order]).astype(np.int32).T
    radius, (width, height) = radius[order], size
    rank = np.full(width * height, -1, dtype=np.int32)
    layer = np.empty_like(rank)
    reach = int(radius.max(initial=1.0))
    for dy, dx in np.argwhere(np.ones((2 * reach + 1,) * 2)) - reach:
        inside = (
            (radius * radius >= dx * dx + dy * dy)
            & (x >= -dx)
            & (x < width - dx)
            & (y >= -dy)
            & (y < height - dy)
        )
        who = np.flatnonzero(inside).astype(np.int32)
        if not len(who):
            continue
        layer.fill(-1)
        layer[(y[who] + dy) * width + x[who] + dx] = who
        np.maximum(rank, layer, out=rank)
    rank = rank.reshape(height, width)
    rank = np.where(rank < 0, grey_closing(rank, 5), rank)  # pinholes take a neighbour's point
    return np.where(rank < 0, -1, order[rank])


def _edges(depth: np.ndarray, reach: int = 3, strength: float = 9.0) -> np.ndarray:
    """(H, W) brightness: darker where a neighbouring pixel is nearer (eye-dome lighting)."""
    log_depth = np.log(depth)
    behind = np.zeros_like(depth)
    for dy, dx in ((0, reach), (0, -reach), (reach, 0), (-reach, 0), (2, 2), (2, -2), (-2, 2), (-2, -2)):
        with np.errstate(invalid="ignore"):  # background minus background
            step = log_depth - np.roll(log_depth, (dy, dx), axis=(0, 1))
        behind += np.clip(np.where(np.isfinite(step), step, 0), 0, 0.1)
    return np.exp(-strength * behind / 8)
