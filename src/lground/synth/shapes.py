"""Solid shapes as signed distances: negative inside, positive outside, metres.

A shape is centred on its own origin. `distance(x, y, z)` takes three broadcastable float arrays in the
shape's frame; `half` is half of the bounding box; `thickened(least)` is the same shape with no wall thinner
than `2 * least`, so that a coarse grid does not lose it.
"""

from dataclasses import dataclass, replace

import numpy as np

Array = np.ndarray
Triple = tuple[float, float, float]


def _box(x: Array, y: Array, z: Array, half: Triple, rounding: float = 0.0) -> Array:
    x, y, z = (np.abs(v) - (h - rounding) for v, h in zip((x, y, z), half, strict=True))
    inside = np.minimum(np.maximum(np.maximum(x, y), z), 0)
    x, y, z = np.maximum(x, 0), np.maximum(y, 0), np.maximum(z, 0)
    return np.sqrt(x * x + y * y + z * z) + inside - rounding


@dataclass(frozen=True)
class Box:
    """A box, its edges rounded by `rounding` metres."""

    half: Triple
    rounding: float = 0.0

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        return _box(x, y, z, self.half, min(self.rounding, *self.half))

    def thickened(self, least: float) -> "Box":
        return replace(self, half=tuple(max(h, least) for h in self.half))


@dataclass(frozen=True)
class Pierced:
    """A box with openings along y; holes are (x, z, half width, half height). Frames and walls."""

    half: Triple
    holes: tuple[tuple[float, float, float, float], ...]

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        solid = _box(x, y, z, self.half)
        for cx, cz, hw, hh in self.holes:
            solid = np.maximum(solid, -np.maximum(np.abs(x - cx) - hw, np.abs(z - cz) - hh))
        return solid

    def thickened(self, least: float) -> "Pierced":
        return replace(self, half=tuple(max(h, least) for h in self.half))


@dataclass(frozen=True)
class Tub:
    """A box hollowed from above: walls and bottom `wall` thick. Sinks, bath tubs, bins, drawers, crates."""

    half: Triple
    wall: float
    rounding: float = 0.0

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        hx, hy, hz = self.half
        inner = (hx - self.wall, hy - self.wall, 2 * hz - self.wall)
        return np.maximum(
            _box(x, y, z, self.half, self.rounding), -_box(x, y, z - hz, inner, self.rounding / 2)
        )

    def thickened(self, least: float) -> "Tub":
        return replace(self, half=tuple(max(h, least) for h in self.half), wall=max(self.wall, 1.6 * least))


@dataclass(frozen=True)
class Lathe:
    """A profile of (z, radius) points turned round z; `squash` scales y; `wall` > 0 leaves an open pot."""

    profile: tuple[tuple[float, float], ...]
    squash: float = 1.0
    wall: float = 0.0

    @property
    def half(self) -> Triple:
        radius = max(r for _, r in self.profile)
        return radius, radius * self.squash, max(abs(z) for z, _ in self.profile)

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        heights, radii = np.array(self.profile, dtype=np.float32).T
        around = np.hypot(x, y / self.squash)
        side = (around - np.interp(z, heights, radii).astype(np.float32)) * min(1.0, self.squash)
        end = np.abs(z - (heights[0] + heights[-1]) / 2) - (heights[-1] - heights[0]) / 2
        outside = np.hypot(np.maximum(side, 0), np.maximum(end, 0))
        solid = outside + np.minimum(np.maximum(side, end), 0)
        if self.wall > 0:
            solid = np.maximum(solid, -np.maximum(side + self.wall, heights[0] + self.wall - z))
        return solid

    def thickened(self, least: float) -> "Lathe":
        profile = tuple((z, max(r, 1.1 * least)) for z, r in self.profile)
        if self.half[2] < least:
            profile = tuple((z * least / self.half[2], r) for z, r in profile)
        return replace(self, profile=profile, wall=max(self.wall, 1.6 * least) if self.wall else 0.0)


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid; `bumps` metres of waves make it a bush, a crumpled bag or a heap of clothes."""

    radii: Triple
    bumps: float = 0.0
    phase: float = 0.0

    @property
    def half(self) -> Triple:
        return tuple(r + self.bumps for r in self.radii)

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        a, b, c = self.radii
        scale = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
        slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2)
        gap = scale * (scale - 1) / np.maximum(slope, 1e-6)  # first-order distance to the surface
        if not self.bumps:
            return gap
        k = 2.2 * np.pi / min(self.radii)
        wave = np.sin(k * x + self.phase) + np.sin(k * y + 2 * self.phase) + np.sin(k * z + 3 * self.phase)
        return 0.7 * (gap + self.bumps * wave / 3)

    def thickened(self, least: float) -> "Ellipsoid":
        return replace(self, radii=tuple(max(r, 1.1 * least) for r in self.radii))


@dataclass(frozen=True)
class Drape:
    """A hanging sheet whose folds run along z: curtains, towels, clothes on a rail."""

    size: Triple  # half width, half thickness, half height
    fold: float = 0.03  # depth of the folds, metres
    wavelength: float = 0.15

    @property
    def half(self) -> Triple:
        return self.size[0], self.size[1] + self.fold, self.size[2]

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        return 0.8 * _box(x, y + self.fold * np.sin(2 * np.pi * x / self.wavelength), z, self.size)

    def thickened(self, least: float) -> "Drape":
        return replace(self, size=tuple(max(h, least) for h in self.size))


@dataclass(frozen=True)
class Ring:
    """A torus round z."""

    radius: float
    tube: float

    @property
    def half(self) -> Triple:
        return self.radius + self.tube, self.radius + self.tube, self.tube

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        return np.hypot(np.hypot(x, y) - self.radius, z) - self.tube

    def thickened(self, least: float) -> "Ring":
        return replace(self, tube=max(self.tube, 1.1 * least))


Shape = Box | Pierced | Tub | Lathe | Ellipsoid | Drape | Ring
