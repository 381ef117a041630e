"""Machines of offices and living rooms: screens share a dark panel, keyboards a field of keys."""

import numpy as np

from lground.synth import materials as m
from lground.synth.parts import Model, Part, Top, ball, box, lathe, post

Rng = np.random.Generator
BLACK = m.Material((0.08, 0.08, 0.09), (0.12, 0.12, 0.13))


def _dark(rng: Rng) -> m.Material:
    return BLACK if rng.random() < 0.7 else m.metal(rng)


def _panel(rng: Rng, width: float, height: float, z: float) -> list[Part]:
    return [
        box((width, 0.035, height), (0, 0, z), _dark(rng)),
        box((width - 0.03, 0.012, height - 0.03), (0, 0.02, z + 0.015), m.screen(rng), backed=True),
    ]


def monitor(rng: Rng) -> Model:
    width = rng.uniform(0.45, 0.62)
    foot = _dark(rng)
    parts = [
        *_panel(rng, width, 0.58 * width, 0.12),
        box((0.24, 0.18, 0.02), (0, -0.03, 0), foot, backed=True),
    ]
    return Model((*parts, box((0.05, 0.03, 0.22), (0, -0.04, 0.01), foot)))


def tv(rng: Rng) -> Model:
    """Bigger and lower than a monitor."""
    width = rng.uniform(0.8, 1.25)
    feet = [box((0.05, 0.2, 0.05), (s * width * 0.32, 0, 0), BLACK) for s in (-1, 1)]
    return Model((*_panel(rng, width, 0.57 * width, 0.04), *feet))


def laptop(rng: Rng) -> Model:
    shell, width, depth = m.metal(rng), rng.uniform(0.3, 0.36), rng.uniform(0.22, 0.25)
    lid = box((width, 0.02, depth), (0, -depth / 2, 0.01), shell, tilt=rng.uniform(0.15, 0.4))
    glow = box(
        (width - 0.03, 0.01, depth - 0.03),
        (0, -depth / 2 + 0.018, 0.025),
        m.screen(rng),
        tilt=0.27,
        backed=True,
    )
    return Model(
        (
            box((width, depth, 0.025), (0, 0, 0), shell, backed=True),
            box((width - 0.05, depth / 2, 0.03), (0, -0.04, 0), m.keys(rng), backed=True),
            lid,
            glow,
        )
    )


def keyboard(rng: Rng) -> Model:
    return Model(
        (box((rng.uniform(0.38, 0.46), rng.uniform(0.14, 0.17), 0.03), (0, 0, 0), m.keys(rng), backed=True),)
    )


def mouse(rng: Rng) -> Model:
    return Model((ball((0.035, 0.058, 0.02), (0, 0, 0), _dark(rng), backed=True),))


def computer_tower(rng: Rng) -> Model:
    height, depth = rng.uniform(0.38, 0.48), rng.uniform(0.4, 0.48)
    front = box((0.16, 0.02, height - 0.04), (0, depth / 2, 0.02), m.plastic(rng), backed=True)
    return Model((box((0.19, depth, height), (0, 0, 0), _dark(rng)), front))


def printer(rng: Rng) -> Model:
    w, d, h, shell = rng.uniform(0.4, 0.52), rng.uniform(0.36, 0.45), rng.uniform(0.2, 0.32), m.plastic(rng)
    tray = box((w * 0.6, 0.16, 0.02), (0, d / 2 + 0.06, 0.06), BLACK)
    parts = (
        box((w, d, h), (0, 0, 0), shell, rounding=0.02),
        tray,
        box((w * 0.6, 0.03, 0.14), (0, -d / 2, h - 0.02), shell, tilt=0.4),
    )
    return Model(parts)


def copier(rng: Rng) -> Model:
    """A printer that stands on the floor."""
    shell, w, d = m.plastic(rng), rng.uniform(0.58, 0.68), rng.uniform(0.58, 0.65)
    parts = [
        box((w, d, 0.72), (0, 0, 0.03), shell),
        box((w, d - 0.06, 0.14), (0, 0, 0.86), shell, rounding=0.02),
    ]
    parts += [
        box((w - 0.1, 0.1, 0.12), (0, -d / 2 + 0.05, 0.74), shell),
        box((0.1, d - 0.1, 0.14), (-w / 2 + 0.05, 0, 0.74), shell),
    ]
    parts += [
        box((w - 0.06, 0.03, 0.14), (0, d / 2, z), m.plastic(rng), backed=True) for z in (0.1, 0.3, 0.5)
    ]
    parts.append(box((0.22, 0.14, 0.05), (w / 4, d / 2 - 0.02, 0.88), BLACK))
    return Model((*parts, box((0.35, 0.4, 0.02), (w / 2 + 0.12, 0, 0.7), shell)))


def telephone(rng: Rng) -> Model:
    shell = _dark(rng)
    return Model(
        (
            box((0.2, 0.2, 0.06), (0, 0, 0), shell, backed=True),
            box((0.05, 0.2, 0.05), (-0.06, 0, 0.06), shell, rounding=0.02, backed=True),
        )
    )


def speaker(rng: Rng) -> Model:
    w = rng.uniform(0.16, 0.24)
    cone = post(0.36 * w, 0.02, (0, w * 0.45, 0.8 * w), BLACK, tilt=-np.pi / 2)
    return Model((box((w, w * 0.9, 1.7 * w), (0, 0, 0), m.board(rng)), cone))


def projector(rng: Rng) -> Model:
    lens = post(0.045, 0.06, (0.08, 0.11, 0.06), BLACK, tilt=-np.pi / 2)
    return Model(
        (
            box((0.32, 0.24, 0.12), (0, 0, 0), m.plastic(rng), rounding=0.02),
            lens,
            post(0.02, 0.25, (0, 0, 0.1), m.metal(rng)),
        )
    )


def power_strip(rng: Rng) -> Model:
    return Model((box((0.35, 0.06, 0.045), (0, 0, 0), m.ceramic(rng), backed=True),))


def headphones(rng: Rng) -> Model:
    arch = lathe([(0, 0.1), (0.04, 0.1)], (0, -0.02, 0.1), _dark(rng), wall=0.02, tilt=np.pi / 2)
    return Model((arch, *[ball((0.03, 0.045, 0.05), (s * 0.09, 0, 0), BLACK) for s in (-1, 1)]))


def alarm_clock(rng: Rng) -> Model:
    return Model(
        (
            box((0.14, 0.08, 0.1), (0, 0, 0), _dark(rng), rounding=0.02),
            box((0.1, 0.01, 0.06), (0, 0.042, 0.02), m.screen(rng), backed=True),
        )
    )


def piano(rng: Rng) -> Model:
    """Upright: a tall case, a shelf of keys, two posts."""
    wood = BLACK if rng.random() < 0.5 else m.wood(rng)
    parts = [
        box((1.48, 0.35, 1.2), (0, -0.12, 0), wood),
        box((1.4, 0.32, 0.1), (0, 0.2, 0.6), wood),
        box((1.52, 0.4, 0.03), (0, -0.1, 1.19), wood),
    ]
    parts.append(
        box(
            (1.25, 0.14, 0.03),
            (0, 0.26, 0.7),
            m.Material((0.93, 0.92, 0.88), (0.05, 0.05, 0.05), "stripes", 0.06),
            backed=True,
        )
    )
    parts += [box((0.07, 0.07, 0.62), (s * 0.66, 0.3, 0), wood) for s in (-1, 1)]
    return Model(tuple(parts), (Top((-0.7, -0.28), (0.7, 0.05), 1.22),))


def keyboard_piano(rng: Rng) -> Model:
    steel = m.metal(rng)
    row = box(
        (1.2, 0.14, 0.03),
        (0, 0.08, 0.8),
        m.Material((0.93, 0.92, 0.88), (0.05, 0.05, 0.05), "stripes", 0.06),
        backed=True,
    )
    stand = [box((0.05, 0.05, 0.95), (s * 0.3, 0, 0), steel, roll=0.5 * s) for s in (-1, 1)]
    return Model((box((1.3, 0.34, 0.1), (0, 0, 0.72), BLACK), row, *stand))
