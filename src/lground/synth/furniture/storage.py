"""Things that hold things: cabinets share doors and handles, shelves boards, bins hollow tubs."""

import numpy as np

from lground.synth import materials as m
from lground.synth.parts import Model, Part, Top, ball, box, lathe, legs, post, tub

Rng = np.random.Generator


def _doors(
    width: float, depth: float, low: float, high: float, count: int, face: m.Material, handle: m.Material
):
    """Upright door leaves on the front of a cabinet, each with a handle."""
    parts, leaf = [], width / count
    for i in range(count):
        x = (i + 0.5) * leaf - width / 2
        parts.append(
            box((leaf - 0.025, 0.03, high - low - 0.02), (x, depth / 2 - 0.01, low + 0.01), face, backed=True)
        )
        grip = x + (leaf / 2 - 0.06) * (1 if i % 2 == 0 else -1)
        parts.append(
            box((0.025, 0.035, 0.14), (grip, depth / 2 + 0.015, (low + high) / 2 - 0.07), handle, backed=True)
        )
    return parts


def _case(rng: Rng, width: float, depth: float, height: float, count: int, material: m.Material) -> Model:
    parts: list[Part] = [box((width, depth - 0.03, height), (0, -0.015, 0), material)]
    parts += _doors(width, depth, 0.06, height - 0.02, count, material, m.metal(rng))
    return Model(tuple(parts), (Top((-width / 2, -depth / 2), (width / 2, depth / 2), height),))


def cabinet(rng: Rng) -> Model:
    width, height = rng.uniform(0.6, 1.2), rng.choice([0.85, 1.2, 1.7]) * rng.uniform(0.9, 1.1)
    return _case(rng, width, rng.uniform(0.38, 0.5), height, 2, m.board(rng))


def wardrobe(rng: Rng) -> Model:
    return _case(
        rng,
        rng.uniform(0.9, 1.6),
        rng.uniform(0.55, 0.65),
        rng.uniform(1.9, 2.15),
        int(rng.integers(2, 4)),
        m.board(rng),
    )


def file_cabinet(rng: Rng) -> Model:
    drawers, steel = int(rng.integers(2, 5)), m.metal(rng)
    width, depth, height = 0.42, rng.uniform(0.5, 0.62), 0.05 + drawers * 0.31
    parts = [box((width, depth - 0.03, height), (0, -0.015, 0), steel)]
    for i in range(drawers):
        parts.append(
            box((width - 0.03, 0.03, 0.28), (0, depth / 2 - 0.01, 0.04 + i * 0.31), steel, backed=True)
        )
        parts.append(
            box((0.14, 0.03, 0.03), (0, depth / 2 + 0.015, 0.24 + i * 0.31), m.metal(rng), backed=True)
        )
    return Model(tuple(parts), (Top((-0.2, -depth / 2), (0.2, depth / 2), height),))


def _shelves(
    width: float, depth: float, height: float, levels: int, material: m.Material, closed: bool
) -> Model:
    step = (height - 0.08) / levels
    heights = [0.08 + i * step for i in range(levels + 1)]
    parts = [box((width, depth, 0.025), (0, 0, z - 0.025), material) for z in heights]
    if closed:
        parts += [box((0.025, depth, height), (s * (width / 2 - 0.012), 0, 0), material) for s in (-1, 1)]
        parts.append(box((width, 0.02, height), (0, -depth / 2 + 0.01, 0), material))
    else:
        parts += legs(width, depth, height, 0.018, material, inset=0.0)
    low, high = (-width / 2 + 0.04, -depth / 2 + 0.02), (width / 2 - 0.04, depth / 2)
    tops = [Top(low, high, z, room=step - 0.05) for z in heights[:-1]]
    return Model(tuple(parts), (*tops, Top(low, high, heights[-1])))


def bookshelf(rng: Rng) -> Model:
    return _shelves(
        rng.uniform(0.7, 1.2),
        rng.uniform(0.28, 0.36),
        rng.uniform(1.2, 2.0),
        int(rng.integers(3, 6)),
        m.board(rng),
        True,
    )


def shelf(rng: Rng) -> Model:
    return _shelves(
        rng.uniform(0.8, 1.3),
        rng.uniform(0.34, 0.45),
        rng.uniform(1.3, 1.9),
        int(rng.integers(3, 5)),
        m.metal(rng),
        False,
    )


def rack(rng: Rng) -> Model:
    steel = m.metal(rng)
    return _shelves(rng.uniform(0.5, 0.8), 0.35, rng.uniform(0.7, 1.1), 2, steel, False)


def storage_organizer(rng: Rng) -> Model:
    """A low frame of coloured drawers."""
    frame = _shelves(0.6, 0.36, 0.75, 3, m.wood(rng), True)
    drawers = [box((0.5, 0.3, 0.16), (0, 0.02, t.height), m.bright(rng)) for t in frame.tops[:-1]]
    return Model((*frame.parts, *drawers), frame.tops[-1:])


def box_(rng: Rng) -> Model:
    """A cardboard box, its lid sometimes open."""
    w, d, h = rng.uniform(0.25, 0.5), rng.uniform(0.22, 0.4), rng.uniform(0.15, 0.4)
    card = m.card(rng) if rng.random() < 0.8 else m.plastic(rng)
    if rng.random() < 0.4:
        flaps = [box((w, 0.02, 0.12), (0, s * d / 2, h - 0.01), card, tilt=-0.8 * s) for s in (-1, 1)]
        return Model((tub((w, d, h), 0.02, (0, 0, 0), card), *flaps))
    return Model((box((w, d, h), (0, 0, 0), card),), (Top((-w / 2, -d / 2), (w / 2, d / 2), h),))


def _pail(low: float, high: float, height: float, material: m.Material, squash: float = 1.0) -> Model:
    return Model((lathe([(0, low), (height, high)], (0, 0, 0), material, squash, wall=0.015),))


def trash_can(rng: Rng) -> Model:
    radius = rng.uniform(0.12, 0.17)
    return _pail(0.85 * radius, radius, rng.uniform(0.28, 0.4), m.plastic(rng))


def trash_bin(rng: Rng) -> Model:
    """A tall bin with a rounded lid."""
    material, radius = m.plastic(rng), rng.uniform(0.16, 0.2)
    return Model(
        (post(radius, 0.5, (0, 0, 0), material), ball((radius, radius, 0.12), (0, 0, 0.4), material))
    )


def recycling_bin(rng: Rng) -> Model:
    w, d, h = rng.uniform(0.28, 0.4), rng.uniform(0.22, 0.3), rng.uniform(0.38, 0.6)
    blue = m.Material((0.12, 0.3, 0.62), (0.15, 0.35, 0.7)) if rng.random() < 0.7 else m.bright(rng)
    return Model((tub((w, d, h), 0.02, (0, 0, 0), blue, rounding=0.02),))


def bin_(rng: Rng) -> Model:
    return Model(
        (
            tub(
                (rng.uniform(0.3, 0.45), 0.3, rng.uniform(0.25, 0.5)),
                0.02,
                (0, 0, 0),
                m.plastic(rng),
                rounding=0.03,
            ),
        )
    )


def bucket(rng: Rng) -> Model:
    return _pail(0.11, 0.15, rng.uniform(0.24, 0.3), m.bright(rng))


def basket(rng: Rng) -> Model:
    weave = m.Material((0.62, 0.47, 0.28), (0.45, 0.32, 0.18), "slats", 0.05)
    return _pail(0.16, rng.uniform(0.19, 0.23), rng.uniform(0.2, 0.32), weave, squash=rng.uniform(0.75, 1))


def laundry_basket(rng: Rng) -> Model:
    w, d, h = rng.uniform(0.5, 0.6), rng.uniform(0.36, 0.42), rng.uniform(0.28, 0.36)
    cloth = ball(
        (w / 2 - 0.06, d / 2 - 0.06, 0.1),
        (0, 0, h - 0.14),
        m.fabric(rng),
        bumps=0.03,
        phase=rng.uniform(0, 6),
    )
    return Model((tub((w, d, h), 0.02, (0, 0, 0), m.plastic(rng), rounding=0.05), cloth))


def laundry_hamper(rng: Rng) -> Model:
    material = (
        m.linen(rng)
        if rng.random() < 0.5
        else m.Material((0.62, 0.47, 0.28), (0.45, 0.32, 0.18), "slats", 0.05)
    )
    return Model(
        (
            tub(
                (rng.uniform(0.38, 0.46), rng.uniform(0.32, 0.4), rng.uniform(0.55, 0.68)),
                0.03,
                (0, 0, 0),
                material,
                rounding=0.05,
            ),
        )
    )


def crate(rng: Rng) -> Model:
    return Model(
        (
            tub(
                (0.42, 0.32, rng.uniform(0.24, 0.3)),
                0.025,
                (0, 0, 0),
                m.bright(rng) if rng.random() < 0.5 else m.wood(rng),
            ),
        )
    )


def storage_bin(rng: Rng) -> Model:
    """A plastic box with a lid that stands over the rim."""
    w, d, h = rng.uniform(0.4, 0.6), rng.uniform(0.3, 0.4), rng.uniform(0.22, 0.34)
    parts = (
        box((w - 0.04, d - 0.04, h), (0, 0, 0), m.plastic(rng), rounding=0.02),
        box((w, d, 0.04), (0, 0, h - 0.02), m.plastic(rng)),
    )
    return Model(parts, (Top((-w / 2, -d / 2), (w / 2, d / 2), h + 0.02),))


def container(rng: Rng) -> Model:
    w, d, h = rng.uniform(0.15, 0.28), rng.uniform(0.12, 0.2), rng.uniform(0.1, 0.2)
    return Model((box((w, d, h), (0, 0, 0), m.plastic(rng), rounding=0.015),))


def suitcase(rng: Rng) -> Model:
    w, d, h, shell = rng.uniform(0.4, 0.5), rng.uniform(0.22, 0.3), rng.uniform(0.55, 0.72), m.bright(rng)
    dark = m.Material((0.1, 0.1, 0.1), (0.15, 0.15, 0.15))
    parts = [
        box((w, d, h), (0, 0, 0.04), shell, rounding=0.05),
        box((0.2, 0.03, 0.08), (0, -d / 4, h + 0.04), dark),
    ]
    parts += [
        box((0.05, 0.05, 0.05), (sx * w * 0.4, sy * d * 0.35, 0), dark) for sx in (-1, 1) for sy in (-1, 1)
    ]
    return Model(tuple(parts))


def cart(rng: Rng) -> Model:
    steel, width = m.metal(rng), rng.uniform(0.6, 0.8)
    parts = [tub((width, 0.42, 0.09), 0.02, (0, 0, z), steel) for z in (0.14, 0.5, 0.8)]
    parts += legs(width, 0.42, 0.85, 0.015, steel, inset=0.0)
    return Model(tuple(parts), (Top((-width / 2 + 0.04, -0.16), (width / 2 - 0.04, 0.16), 0.82),))
