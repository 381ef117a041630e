"""What surfaces are made of: colours that vary within a material, and patterns evaluated at points."""

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]  # red, green, blue, each 0..1


@dataclass(frozen=True)
class Material:
    """Two colours mixed by a pattern of period `scale` (m); depth sensors miss a share `clear` of it."""

    colour: Colour
    second: Colour
    pattern: str = "mottled"
    scale: float = 0.1
    clear: float = 0.0

    def paint(self, points: np.ndarray) -> np.ndarray:
        """Colours (n, 3) in 0..1 at `points` (n, 3), metres in the frame of the part."""
        mix = _PATTERNS[self.pattern](points / self.scale)[:, None]
        return (1 - mix) * np.array(self.colour) + mix * np.array(self.second)


def waves(points: np.ndarray) -> np.ndarray:
    """Smooth, irregular values (n,) in about -1..1 with a period near one unit."""
    x, y, z = 2 * np.pi * points.T
    first = np.sin(x + 1.7 * np.sin(0.61 * y + 1.3 * z)) + np.sin(1.13 * y + 1.9 * np.sin(0.57 * z + 0.8 * x))
    return (first + np.sin(0.91 * z + 1.4 * np.sin(0.73 * x + 0.9 * y))) / 2.2


def _mottled(p: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + 0.35 * waves(p) + 0.2 * waves(3.1 * p), 0, 1)


def _grain(p: np.ndarray) -> np.ndarray:
    """Wood: long streaks along x."""
    return np.clip(
        0.5 + 0.5 * np.sin(2 * np.pi * (p[:, 1] + p[:, 2]) + 2 * waves(p * (0.15, 0.6, 0.6))), 0, 1
    )


def _stripes(p: np.ndarray) -> np.ndarray:
    """Upright stripes of uneven width: rows of book spines, patterned cloth."""
    return (np.sin(2 * np.pi * p[:, 0]) + np.sin(2 * np.pi * 0.37 * p[:, 0] + 1) > 0).astype(float)


def _slats(p: np.ndarray) -> np.ndarray:
    return (p[:, 2] % 1 < 0.3).astype(float)


def _tiles(p: np.ndarray) -> np.ndarray:
    return (np.abs(p % 1 - 0.5) > 0.46).any(axis=1).astype(float)


def _keys(p: np.ndarray) -> np.ndarray:
    return np.maximum(p[:, 0] % 1 < 0.3, p[:, 1] % 1 < 0.3).astype(float)


def _image(p: np.ndarray) -> np.ndarray:
    """Big soft blots: pictures, posters, screens that show something."""
    return np.clip(0.5 + 0.8 * waves(p) + 0.4 * waves(2.3 * p + 5), 0, 1)


_PATTERNS = {f.__name__[1:]: f for f in (_mottled, _grain, _stripes, _slats, _tiles, _keys, _image)}

WOODS = (
    (0.76, 0.6, 0.42),
    (0.55, 0.36, 0.22),
    (0.36, 0.23, 0.15),
    (0.85, 0.75, 0.6),
    (0.62, 0.45, 0.3),
    (0.45, 0.25, 0.18),
)
GREYS = ((0.12, 0.12, 0.13), (0.3, 0.3, 0.32), (0.55, 0.56, 0.58), (0.78, 0.78, 0.78), (0.92, 0.92, 0.9))
WALLS = (
    (0.93, 0.92, 0.88),
    (0.86, 0.84, 0.78),
    (0.8, 0.85, 0.87),
    (0.88, 0.82, 0.7),
    (0.75, 0.8, 0.72),
    (0.9, 0.85, 0.85),
    (0.7, 0.72, 0.76),
)


def _near(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    bright = rng.normal(0, spread)
    return tuple(float(np.clip(c + bright + rng.normal(0, spread / 2), 0.03, 0.98)) for c in colour)


def _pick(rng: np.random.Generator, palette: tuple[Colour, ...], spread: float = 0.04) -> Colour:
    return _near(rng, palette[rng.integers(len(palette))], spread)


def _hue(rng: np.random.Generator, saturation: float, value: float) -> Colour:
    angle = rng.random() + np.array([0, 1 / 3, 2 / 3])
    return tuple(value * (1 - saturation * (0.5 + 0.5 * np.cos(2 * np.pi * angle))))


def _shade(colour: Colour, factor: float) -> Colour:
    return tuple(min(c * factor, 1.0) for c in colour)


def wood(rng: np.random.Generator) -> Material:
    colour = _pick(rng, WOODS)
    return Material(colour, _shade(colour, rng.uniform(0.75, 0.9)), "grain", rng.uniform(0.06, 0.15))


def metal(rng: np.random.Generator) -> Material:
    colour = _pick(rng, GREYS[:4])
    return Material(colour, _shade(colour, 0.85), "mottled", 0.2)


def plastic(rng: np.random.Generator) -> Material:
    """Mostly grey, black or white, sometimes bright."""
    colour = (
        _pick(rng, GREYS) if rng.random() < 0.7 else _hue(rng, rng.uniform(0.3, 0.8), rng.uniform(0.5, 0.9))
    )
    return Material(colour, _shade(colour, 0.92), "mottled", 0.3)


def bright(rng: np.random.Generator) -> Material:
    colour = _hue(rng, rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.95))
    return Material(colour, _shade(colour, 0.9), "mottled", 0.2)


def fabric(rng: np.random.Generator) -> Material:
    colour = _hue(rng, rng.uniform(0, 0.55), rng.uniform(0.2, 0.85))
    if rng.random() < 0.15:
        return Material(colour, _hue(rng, 0.3, 0.8), "stripes", rng.uniform(0.08, 0.2))
    return Material(colour, _shade(colour, 0.8), "mottled", rng.uniform(0.05, 0.2))


def linen(rng: np.random.Generator) -> Material:
    """Light cloth: sheets, pillows, towels; sometimes patterned."""
    if rng.random() < 0.3:
        return fabric(rng)
    colour = _near(rng, (0.88, 0.86, 0.82), 0.06)
    return Material(colour, _shade(colour, 0.9), "mottled", 0.15)


def ceramic(rng: np.random.Generator) -> Material:
    colour = _near(rng, (0.93, 0.93, 0.91), 0.02)
    return Material(colour, _shade(colour, 0.95), "mottled", 0.4)


def paint(rng: np.random.Generator) -> Material:
    colour = _pick(rng, WALLS, 0.03)
    return Material(colour, _shade(colour, 0.95), "mottled", 0.9)


def tiles(rng: np.random.Generator) -> Material:
    colour = _pick(rng, WALLS, 0.06)
    return Material(colour, _shade(colour, 0.7), "tiles", rng.uniform(0.2, 0.45))


def flooring(rng: np.random.Generator) -> Material:
    kind = rng.integers(3)
    if kind == 0:
        return wood(rng)
    if kind == 1:
        return tiles(rng)
    colour = _hue(rng, rng.uniform(0, 0.3), rng.uniform(0.3, 0.7))
    return Material(colour, _shade(colour, 0.75), "mottled", 0.06)


def board(rng: np.random.Generator) -> Material:
    """Painted or veneered board: the fronts of cabinets."""
    return wood(rng) if rng.random() < 0.6 else Material(*[_pick(rng, GREYS[2:])] * 2)


def card(rng: np.random.Generator) -> Material:
    colour = _near(rng, (0.68, 0.52, 0.36), 0.06)
    return Material(colour, _shade(colour, 0.9), "mottled", 0.2)


def paper(rng: np.random.Generator) -> Material:
    return Material(_near(rng, (0.93, 0.93, 0.92), 0.03), (0.7, 0.7, 0.72), "mottled", 0.08)


def leaf(rng: np.random.Generator) -> Material:
    colour = _near(rng, (0.22, 0.42, 0.16), 0.06)
    return Material(colour, _shade(colour, 1.5), "mottled", 0.06)


def screen(rng: np.random.Generator) -> Material:
    if rng.random() < 0.6:
        return Material((0.05, 0.05, 0.06), (0.12, 0.12, 0.14), "mottled", 0.3, clear=0.1)
    return Material(_hue(rng, 0.6, 0.5), _hue(rng, 0.3, 0.9), "image", 0.3, clear=0.1)


def glass(rng: np.random.Generator) -> Material:
    colour = _near(rng, (0.75, 0.83, 0.9), 0.08)
    return Material(colour, _near(rng, (0.5, 0.6, 0.6), 0.1), "image", 0.6, clear=0.4)


def silvered(rng: np.random.Generator) -> Material:
    """A mirror: it shows blots of the room and often leaves holes."""
    return Material(
        _near(rng, (0.75, 0.77, 0.78), 0.05), _near(rng, (0.45, 0.45, 0.45), 0.1), "image", 0.7, clear=0.3
    )


def print_(rng: np.random.Generator) -> Material:
    """A printed picture."""
    return Material(
        _hue(rng, 0.7, rng.uniform(0.3, 0.9)),
        _hue(rng, 0.5, rng.uniform(0.3, 0.9)),
        "image",
        rng.uniform(0.15, 0.4),
    )


def spines(rng: np.random.Generator) -> Material:
    return Material(
        _hue(rng, 0.6, rng.uniform(0.3, 0.8)),
        _hue(rng, 0.6, rng.uniform(0.3, 0.9)),
        "stripes",
        rng.uniform(0.05, 0.1),
    )


def keys(rng: np.random.Generator) -> Material:
    colour = _pick(rng, (GREYS[0], GREYS[4], GREYS[1]))
    return Material(_shade(colour, 0.8), colour, "keys", 0.06)
