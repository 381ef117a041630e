"""Tables: a level board on legs or panels; they differ in height, size and what hangs below the board."""

import numpy as np

from lground.synth import materials as m
from lground.synth.parts import Model, Part, Top, box, legs, post

Rng = np.random.Generator


def _board(width: float, depth: float, height: float, material: m.Material, thick: float = 0.035) -> Part:
    return box((width, depth, thick), (0, 0, height - thick), material)


def _top(width: float, depth: float, height: float) -> Top:
    return Top((-width / 2, -depth / 2), (width / 2, depth / 2), height)


def _legged(rng: Rng, width: float, depth: float, height: float, material: m.Material) -> Model:
    under = material if rng.random() < 0.5 else m.metal(rng)
    parts = [
        _board(width, depth, height, material),
        *legs(width, depth, height - 0.03, rng.uniform(0.02, 0.035), under),
    ]
    parts.append(box((width - 0.16, 0.03, 0.08), (0, -depth / 2 + 0.07, height - 0.11), under))
    return Model(tuple(parts), (_top(width, depth, height),))


def _round(rng: Rng, radius: float, height: float, material: m.Material) -> Model:
    foot = m.metal(rng)
    parts = (
        post(radius, 0.035, (0, 0, height - 0.035), material),
        post(0.04, height - 0.05, (0, 0, 0.02), foot),
        post(0.5 * radius, 0.03, (0, 0, 0), foot),
    )
    return Model(parts, (_top(1.3 * radius, 1.3 * radius, height),))


def table(rng: Rng) -> Model:
    if rng.random() < 0.3:
        return _round(rng, rng.uniform(0.4, 0.6), rng.uniform(0.7, 0.76), m.board(rng))
    return _legged(rng, rng.uniform(1.0, 1.8), rng.uniform(0.65, 0.9), rng.uniform(0.7, 0.77), m.board(rng))


def dining_table(rng: Rng) -> Model:
    wood = m.wood(rng)
    return _legged(rng, rng.uniform(1.3, 1.9), rng.uniform(0.8, 0.95), rng.uniform(0.73, 0.78), wood)


def coffee_table(rng: Rng) -> Model:
    width, depth, height = rng.uniform(0.75, 1.2), rng.uniform(0.45, 0.65), rng.uniform(0.36, 0.46)
    material = m.wood(rng)
    if rng.random() < 0.25:
        return _round(rng, rng.uniform(0.35, 0.48), height, material)
    low = _legged(rng, width, depth, height, material)
    if rng.random() < 0.5:
        low = Model((*low.parts, box((width - 0.12, depth - 0.12, 0.025), (0, 0, 0.12), material)), low.tops)
    return low


def end_table(rng: Rng) -> Model:
    side, height = rng.uniform(0.4, 0.55), rng.uniform(0.48, 0.6)
    if rng.random() < 0.4:
        return _round(rng, side / 2, height, m.wood(rng))
    return _legged(rng, side, side, height, m.wood(rng))


def desk(rng: Rng) -> Model:
    """A board at writing height with side panels or legs, a modesty panel, often a pedestal with drawers."""
    width, depth, height = rng.uniform(1.1, 1.7), rng.uniform(0.6, 0.8), rng.uniform(0.71, 0.76)
    material = m.board(rng)
    panel = material if rng.random() < 0.7 else m.metal(rng)
    parts = [_board(width, depth, height, material)]
    if rng.random() < 0.6:
        parts += [
            box((0.035, depth - 0.08, height - 0.03), (s * (width / 2 - 0.04), 0, 0), panel) for s in (-1, 1)
        ]
    else:
        parts += legs(width, depth, height - 0.03, 0.025, panel)
    parts.append(box((width - 0.08, 0.025, 0.38), (0, -depth / 2 + 0.08, height - 0.42), panel))
    if rng.random() < 0.55:
        x = rng.choice([-1, 1]) * (width / 2 - 0.26)
        parts.append(box((0.4, depth - 0.14, 0.56), (x, 0, 0.06), panel))
        parts += [
            box((0.12, 0.02, 0.02), (x, depth / 2 - 0.06, z), m.metal(rng), backed=True)
            for z in (0.2, 0.38, 0.54)
        ]
    return Model(tuple(parts), (_top(width, depth, height),))


def _chest(
    width: float, depth: float, height: float, drawers: int, material: m.Material, knob: m.Material
) -> Model:
    """A box of drawers on a plinth: fronts stand out a little, each with a knob."""
    parts = [box((width, depth - 0.03, height - 0.06), (0, -0.015, 0.05), material)]
    parts.append(box((width - 0.08, depth - 0.1, 0.06), (0, 0, 0), material))
    parts.append(box((width + 0.02, depth, 0.025), (0, 0, height - 0.025), material))
    step = (height - 0.1) / drawers
    for i in range(drawers):
        z = 0.06 + i * step
        parts.append(box((width - 0.04, 0.03, step - 0.03), (0, depth / 2 - 0.02, z), material, backed=True))
        parts.append(box((0.1, 0.03, 0.025), (0, depth / 2 + 0.01, z + step / 2), knob, backed=True))
    return Model(tuple(parts), (_top(width, depth, height),))


def nightstand(rng: Rng) -> Model:
    return _chest(
        rng.uniform(0.4, 0.55),
        rng.uniform(0.36, 0.45),
        rng.uniform(0.48, 0.62),
        int(rng.integers(1, 4)),
        m.wood(rng),
        m.metal(rng),
    )


def dresser(rng: Rng) -> Model:
    return _chest(
        rng.uniform(0.8, 1.3),
        rng.uniform(0.42, 0.52),
        rng.uniform(0.75, 1.1),
        int(rng.integers(3, 5)),
        m.wood(rng),
        m.metal(rng),
    )


def tv_stand(rng: Rng) -> Model:
    width, depth, height = rng.uniform(1.0, 1.5), rng.uniform(0.38, 0.48), rng.uniform(0.42, 0.56)
    material = m.board(rng)
    parts = [_board(width, depth, height, material), _board(width, depth, 0.1, material)]
    parts += [
        box((0.035, depth, height - 0.04), (x, 0, 0), material)
        for x in (-width / 2 + 0.02, 0, width / 2 - 0.02)
    ]
    parts.append(box((width, 0.025, height - 0.04), (0, -depth / 2 + 0.02, 0), material))
    return Model(tuple(parts), (_top(width, depth, height),))


def counter(rng: Rng) -> Model:
    width, height, material = rng.uniform(1.2, 2.0), rng.uniform(0.9, 1.05), m.board(rng)
    parts = (
        box((width, 0.5, height - 0.05), (0, 0, 0), material),
        box((width + 0.08, 0.65, 0.05), (0, 0, height - 0.05), m.board(rng)),
    )
    return Model(parts, (_top(width, 0.6, height),))
