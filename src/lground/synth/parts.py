"""Parts (a shape of some material, somewhere) and models (the parts of one object)."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from lground.synth.materials import Material
from lground.synth.shapes import Box, Drape, Ellipsoid, Lathe, Pierced, Ring, Shape, Triple, Tub


@dataclass(frozen=True)
class Part:
    """A shape with a material, turned by `rotation` (3, 3) and moved to `centre` (3,) metres.

    `backed` says that something solid is behind it (a poster, a keyboard): it may be thinner than the grid.
    """

    shape: Shape
    material: Material
    centre: np.ndarray
    rotation: np.ndarray
    backed: bool = False

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Low and high corner, each (3,), of the axis-aligned box around the part."""
        reach = np.abs(self.rotation) @ np.asarray(self.shape.half)
        return self.centre - reach, self.centre + reach

    def moved(self, rotation: np.ndarray, offset: np.ndarray) -> "Part":
        return replace(self, centre=rotation @ self.centre + offset, rotation=rotation @ self.rotation)

    def thickened(self, least: float) -> "Part":
        """The part without walls thinner than `2 * least`, for a coarse grid; its top stays where it is."""
        if self.backed:
            return self
        shape = self.shape.thickened(least)
        lowered = self.rotation[:, 2] * (self.shape.half[2] - shape.half[2])
        return replace(self, shape=shape, centre=self.centre + lowered)


@dataclass(frozen=True)
class Top:
    """A level rectangle in the model's frame that carries small things, with `room` metres above it."""

    low: tuple[float, float]
    high: tuple[float, float]
    height: float
    room: float = 1.0


@dataclass(frozen=True)
class Model:
    """One object. It stands on z = 0, is centred on x = y = 0, its back looks to -y and its front to +y."""

    parts: tuple[Part, ...]
    tops: tuple[Top, ...] = field(default=())

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        lows, highs = zip(*(part.bounds() for part in self.parts), strict=True)
        return np.min(lows, axis=0), np.max(highs, axis=0)


def turn(yaw: float = 0.0, tilt: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Rotation (3, 3): `roll` about y, then `tilt` about x, then `yaw` about z; radians."""
    (cy, sy), (ct, st), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, tilt, roll))
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, ct, -st], [0, st, ct]])
    about_y = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    return about_z @ about_x @ about_y


def part(shape: Shape, at: Triple, material: Material, backed: bool = False, **angles: float) -> Part:
    """A part whose bottom centre is at `at`; `angles` (yaw, tilt, roll) turn it about that point."""
    rotation = turn(**angles)
    centre = np.asarray(at, dtype=float) + rotation @ np.array([0, 0, shape.half[2]])
    return Part(shape, material, centre, rotation, backed)


def box(size: Triple, at: Triple, material: Material, rounding: float = 0.0, **more) -> Part:
    return part(Box(tuple(s / 2 for s in size), rounding), at, material, **more)


def tub(size: Triple, wall: float, at: Triple, material: Material, rounding: float = 0.0, **more) -> Part:
    return part(Tub(tuple(s / 2 for s in size), wall, rounding), at, material, **more)


def pierced(size: Triple, holes, at: Triple, material: Material, **more) -> Part:
    return part(Pierced(tuple(s / 2 for s in size), tuple(holes)), at, material, **more)


def frame(size: Triple, border: float, at: Triple, material: Material, **more) -> Part:
    """An upright rectangular frame; the opening runs along y."""
    return pierced(size, [(0, 0, size[0] / 2 - border, size[2] / 2 - border)], at, material, **more)


def drape(size: Triple, at: Triple, material: Material, fold: float, wavelength: float, **more) -> Part:
    return part(Drape(tuple(s / 2 for s in size), fold, wavelength), at, material, **more)


def ball(
    radii: Triple, at: Triple, material: Material, bumps: float = 0.0, phase: float = 0.0, **more
) -> Part:
    return part(Ellipsoid(radii, bumps, phase), at, material, **more)


def ring(radius: float, tube: float, at: Triple, material: Material, **more) -> Part:
    return part(Ring(radius, tube), at, material, **more)


def lathe(profile, at: Triple, material: Material, squash: float = 1.0, wall: float = 0.0, **more) -> Part:
    """A turned part; `profile` is a list of (height above `at`, radius), rising."""
    middle = profile[-1][0] / 2
    shape = Lathe(tuple((z - middle, r) for z, r in profile), squash, wall)
    return part(shape, at, material, **more)


def post(radius: float, height: float, at: Triple, material: Material, **more) -> Part:
    """A cylinder."""
    return lathe([(0, radius), (height, radius)], at, material, **more)


def legs(width: float, depth: float, height: float, radius: float, material: Material, inset: float = 0.03):
    """Four posts at the corners of a `width` by `depth` rectangle."""
    x, y = width / 2 - inset - radius, depth / 2 - inset - radius
    return [post(radius, height, (sx * x, sy * y, 0), material) for sx in (-1, 1) for sy in (-1, 1)]
