"""Things to sit on. Chairs share a seat at about 45 cm and a leaning back; sofas add arms and cushions."""

import numpy as np

from lground.synth import materials as m
from lground.synth.parts import Model, Part, Top, ball, box, frame, legs, part, post, ring
from lground.synth.shapes import Box

Rng = np.random.Generator


def _back(width: float, height: float, at, material: m.Material, lean: float, thick: float = 0.04) -> Part:
    return box((width, thick, height), at, material, rounding=0.02, tilt=lean)


def _chair(rng: Rng, material: m.Material, frame_of: m.Material, width: float, depth: float) -> list[Part]:
    seat = rng.uniform(0.43, 0.48)
    parts = legs(width, depth, seat - 0.03, rng.uniform(0.014, 0.022), frame_of, inset=0.0)
    parts.append(box((width, depth, 0.05), (0, 0, seat - 0.05), material, rounding=0.02))
    height = rng.uniform(0.38, 0.5)
    at = (0, -depth / 2 + 0.03, seat)
    if rng.random() < 0.3:
        parts.append(frame((width, 0.035, height), 0.06, at, frame_of, tilt=0.12))
        parts.append(
            box((width - 0.08, 0.03, 0.1), (0, -depth / 2, seat + height * 0.55), material, tilt=0.12)
        )
    else:
        parts.append(_back(width, height, at, material, 0.12))
    return parts


def chair(rng: Rng) -> Model:
    material = m.wood(rng) if rng.random() < 0.5 else m.fabric(rng)
    frame_of = material if material.pattern == "grain" else m.metal(rng)
    return Model(tuple(_chair(rng, material, frame_of, rng.uniform(0.4, 0.48), rng.uniform(0.4, 0.48))))


def _star(rng: Rng, seat: float, material: m.Material) -> list[Part]:
    """The five-armed foot and gas spring of swivel chairs."""
    spokes = []
    for yaw in np.arange(5) * 2 * np.pi / 5 + rng.random():
        at = (0.15 * np.cos(yaw), 0.15 * np.sin(yaw), 0.05)
        spokes.append(box((0.3, 0.04, 0.035), at, material, yaw=yaw))
        spokes.append(ball((0.028, 0.028, 0.028), (0.29 * np.cos(yaw), 0.29 * np.sin(yaw), 0), material))
    return [*spokes, post(0.03, seat - 0.06, (0, 0, 0.06), material)]


def office_chair(rng: Rng) -> Model:
    cloth, foot = m.fabric(rng), m.metal(rng)
    seat = rng.uniform(0.44, 0.52)
    width = rng.uniform(0.46, 0.52)
    parts = _star(rng, seat, foot)
    parts.append(box((width, 0.47, 0.08), (0, 0, seat - 0.06), cloth, rounding=0.035))
    parts.append(_back(width - 0.04, rng.uniform(0.45, 0.65), (0, -0.23, seat + 0.06), cloth, 0.12, 0.06))
    parts.append(box((0.07, 0.03, 0.25), (0, -0.25, seat - 0.04), foot))
    if rng.random() < 0.75:
        for side in (-1, 1):
            x = side * (width / 2 + 0.02)
            parts.append(box((0.05, 0.25, 0.03), (x, 0, seat + 0.2), foot))
            parts.append(box((0.03, 0.04, 0.22), (x, 0, seat - 0.02), foot))
    return Model(tuple(parts))


def stool(rng: Rng) -> Model:
    seat = rng.choice([0.45, 0.6, 0.72]) + rng.normal(0, 0.02)
    cloth, foot = (m.wood(rng), m.wood(rng)) if rng.random() < 0.5 else (m.fabric(rng), m.metal(rng))
    radius = rng.uniform(0.16, 0.2)
    parts = legs(1.6 * radius, 1.6 * radius, seat - 0.04, 0.016, foot, inset=0.0)
    parts.append(post(radius, 0.06, (0, 0, seat - 0.06), cloth))
    if seat > 0.55:
        parts.append(ring(radius * 0.95, 0.012, (0, 0, 0.22), foot))
    return Model(tuple(parts))


def folded_chair(rng: Rng) -> Model:
    """Folded flat and leaning back on a wall."""
    material, steel = m.plastic(rng), m.metal(rng)
    lean = 0.14
    parts = [frame((0.44, 0.035, 0.9), 0.035, (0, 0.06, 0), steel, tilt=lean)]
    parts.append(box((0.38, 0.05, 0.2), (0, -0.03, 0.65), material, tilt=lean))
    parts.append(box((0.38, 0.05, 0.36), (0, 0.04, 0.2), material, tilt=lean))
    return Model(tuple(parts))


def _upholstered(rng: Rng, width: float, seats: int, cloth: m.Material) -> Model:
    """Sofa-like: base, seat cushions, back, two arms."""
    depth, seat = rng.uniform(0.78, 0.92), rng.uniform(0.4, 0.46)
    arm, back = rng.uniform(0.14, 0.22), rng.uniform(0.75, 0.9)
    inner = width - 2 * arm
    parts = [box((inner, depth - 0.05, seat - 0.16), (0, 0, 0.05), cloth)]
    for i in range(seats):
        x = (i + 0.5) * inner / seats - inner / 2
        parts.append(
            box((inner / seats - 0.01, depth - 0.2, 0.15), (x, 0.08, seat - 0.12), cloth, rounding=0.05)
        )
        parts.append(
            box(
                (inner / seats - 0.01, 0.17, back - seat),
                (x, -depth / 2 + 0.22, seat - 0.03),
                cloth,
                0.06,
                tilt=0.12,
            )
        )
    parts.append(box((inner + 0.02, 0.16, back - 0.1), (0, -depth / 2 + 0.08, 0.05), cloth, rounding=0.04))
    for side in (-1, 1):
        x = side * (width - arm) / 2
        parts.append(box((arm, depth, rng.uniform(0.56, 0.66)), (x, 0, 0.04), cloth, rounding=0.05))
    top = Top((-inner / 2, -depth / 2 + 0.34), (inner / 2, depth / 2 - 0.05), seat + 0.03)
    return Model(tuple(parts), (top,))


def couch(rng: Rng) -> Model:
    seats = int(rng.integers(2, 4))
    return _upholstered(rng, 0.35 + seats * rng.uniform(0.55, 0.68), seats, m.fabric(rng))


def sofa_chair(rng: Rng) -> Model:
    return _upholstered(rng, rng.uniform(0.85, 1.0), 1, m.fabric(rng))


def armchair(rng: Rng) -> Model:
    """Between chair and sofa: a padded seat on legs with a back and arms."""
    cloth, wood = m.fabric(rng), m.wood(rng)
    width, seat = rng.uniform(0.6, 0.7), rng.uniform(0.4, 0.45)
    parts = legs(width, 0.62, seat - 0.1, 0.022, wood, inset=0.0)
    parts.append(box((width - 0.12, 0.58, 0.14), (0, 0, seat - 0.1), cloth, rounding=0.05))
    parts.append(_back(width - 0.12, rng.uniform(0.45, 0.6), (0, -0.25, seat), cloth, 0.16, 0.12))
    for side in (-1, 1):
        x = side * (width / 2 - 0.03)
        parts.append(
            box((0.07, 0.55, 0.06), (x, 0, seat + 0.16), cloth if rng.random() < 0.5 else wood, rounding=0.02)
        )
        parts.append(box((0.05, 0.05, 0.3), (x, 0.2, seat - 0.12), wood))
    return Model(tuple(parts), (Top((-0.2, -0.1), (0.2, 0.25), seat + 0.04),))


def ottoman(rng: Rng) -> Model:
    width, depth, cloth = rng.uniform(0.45, 0.7), rng.uniform(0.4, 0.55), m.fabric(rng)
    parts = [
        box((width, depth, 0.34), (0, 0, 0.05), cloth, rounding=0.05),
        *legs(width, depth, 0.07, 0.02, m.wood(rng)),
    ]
    return Model(tuple(parts), (Top((-width / 3, -depth / 3), (width / 3, depth / 3), 0.39),))


def bench(rng: Rng) -> Model:
    width, depth, wood = rng.uniform(0.9, 1.4), rng.uniform(0.32, 0.42), m.wood(rng)
    parts = [box((width, depth, 0.05), (0, 0, 0.4), wood)]
    parts += [box((0.05, depth - 0.06, 0.4), (s * (width / 2 - 0.12), 0, 0), wood) for s in (-1, 1)]
    return Model(tuple(parts), (Top((-width / 2, -depth / 2), (width / 2, depth / 2), 0.45),))


def seat(rng: Rng) -> Model:
    """A row of lecture-hall seats on one beam."""
    count, cloth, steel = int(rng.integers(2, 4)), m.fabric(rng), m.metal(rng)
    parts = [box((count * 0.55, 0.06, 0.06), (0, 0, 0.32), steel)]
    for i in range(count):
        x = (i - (count - 1) / 2) * 0.55
        parts.append(box((0.46, 0.42, 0.06), (x, 0.05, 0.4), cloth, rounding=0.02))
        parts.append(_back(0.46, 0.45, (x, -0.17, 0.44), cloth, 0.15, 0.05))
    parts += [box((0.06, 0.4, 0.34), (s * count * 0.22, 0, 0), steel) for s in (-1, 1)]
    return Model(tuple(parts))


def cushion(rng: Rng) -> Model:
    size = rng.uniform(0.36, 0.48)
    return Model((part(Box((size / 2, size / 2, 0.055), 0.05), (0, 0, 0), m.fabric(rng), backed=True),))
