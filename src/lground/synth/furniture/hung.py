"""Flat things on walls; their back is at y = 0 minus half their thickness, their bottom at z = 0."""

import numpy as np

from lground.synth import materials as m
from lground.synth.furniture.electronics import BLACK
from lground.synth.parts import Model, Part, box, drape, frame, lathe, post

Rng = np.random.Generator
WHITE = m.Material((0.95, 0.95, 0.95), (0.88, 0.89, 0.9), "mottled", 0.5)


def _framed(width: float, height: float, rim: m.Material, face: m.Material, border: float = 0.04) -> Model:
    """A face with a frame that stands out by a centimetre or two."""
    sheet = box((width, 0.04, height), (0, 0, 0), face, backed=True)
    return Model((sheet, frame((width, 0.07, height), border, (0, 0, 0), rim, backed=True)))


def picture(rng: Rng) -> Model:
    rim = m.wood(rng) if rng.random() < 0.6 else m.plastic(rng)
    return _framed(rng.uniform(0.35, 0.9), rng.uniform(0.35, 0.75), rim, m.print_(rng))


def mirror(rng: Rng) -> Model:
    return _framed(rng.uniform(0.5, 0.9), rng.uniform(0.7, 1.1), m.metal(rng), m.silvered(rng), 0.03)


def whiteboard(rng: Rng) -> Model:
    board = _framed(rng.uniform(1.2, 2.2), rng.uniform(0.9, 1.2), m.metal(rng), WHITE, 0.03)
    return Model((*board.parts, box((0.7, 0.09, 0.03), (0, 0.03, 0), m.metal(rng))))


def blackboard(rng: Rng) -> Model:
    dark = (
        m.Material((0.1, 0.18, 0.14), (0.2, 0.26, 0.23))
        if rng.random() < 0.6
        else m.Material((0.1, 0.1, 0.11), (0.22, 0.22, 0.23))
    )
    board = _framed(rng.uniform(1.8, 2.8), 1.2, m.wood(rng), dark, 0.04)
    return Model((*board.parts, box((1.2, 0.1, 0.03), (0, 0.03, 0), m.wood(rng))))


def bulletin_board(rng: Rng) -> Model:
    cork = m.Material((0.68, 0.5, 0.32), (0.58, 0.42, 0.27), "mottled", 0.04)
    width, height = rng.uniform(0.8, 1.4), rng.uniform(0.7, 1.0)
    notes = [
        box(
            (0.2, 0.055, 0.26),
            (rng.uniform(-0.35, 0.35) * width, 0, rng.uniform(0.08, 0.6) * height),
            m.paper(rng),
            backed=True,
        )
        for _ in range(4)
    ]
    board = _framed(width, height, m.wood(rng), cork)
    return Model((*board.parts, *notes))


def board(rng: Rng) -> Model:
    return _framed(rng.uniform(0.8, 1.5), rng.uniform(0.6, 1.0), m.metal(rng), m.fabric(rng), 0.02)


def poster(rng: Rng) -> Model:
    return Model(
        (box((rng.uniform(0.5, 0.7), 0.04, rng.uniform(0.7, 0.95)), (0, 0, 0), m.print_(rng), backed=True),)
    )


def calendar(rng: Rng) -> Model:
    lower = box(
        (0.34, 0.04, 0.26),
        (0, 0, 0),
        m.Material((0.95, 0.95, 0.93), (0.6, 0.6, 0.65), "keys", 0.05),
        backed=True,
    )
    return Model((lower, box((0.34, 0.05, 0.26), (0, 0, 0.26), m.print_(rng), backed=True)))


def sign(rng: Rng) -> Model:
    return Model(
        (box((rng.uniform(0.22, 0.4), 0.045, rng.uniform(0.18, 0.3)), (0, 0, 0), m.bright(rng), backed=True),)
    )


def clock(rng: Rng) -> Model:
    radius = rng.uniform(0.13, 0.18)
    rim = post(radius, 0.05, (0, -0.025, radius), m.plastic(rng), tilt=-np.pi / 2)
    return Model((rim, post(0.85 * radius, 0.06, (0, -0.025, radius), WHITE, tilt=-np.pi / 2)))


def projector_screen(rng: Rng) -> Model:
    width = rng.uniform(1.5, 2.0)
    return Model(
        (
            box((width, 0.05, 0.72 * width), (0, 0, 0), WHITE, backed=True),
            box((width + 0.1, 0.1, 0.1), (0, 0.02, 0.72 * width), m.plastic(rng)),
        )
    )


def light_switch(rng: Rng) -> Model:
    return Model((box((rng.uniform(0.08, 0.15), 0.05, 0.13), (0, 0, 0), m.ceramic(rng), backed=True),))


def power_outlet(rng: Rng) -> Model:
    return Model(
        (
            box((0.09, 0.045, 0.13), (0, 0, 0), m.ceramic(rng), backed=True),
            box((0.04, 0.05, 0.07), (0, 0, 0.03), BLACK, backed=True),
        )
    )


def fire_alarm(rng: Rng) -> Model:
    red = m.Material((0.75, 0.12, 0.1), (0.7, 0.1, 0.1))
    return Model((box((rng.uniform(0.11, 0.15), 0.08, rng.uniform(0.12, 0.18)), (0, 0, 0), red),))


def fire_extinguisher(rng: Rng) -> Model:
    red = m.Material((0.75, 0.12, 0.1), (0.65, 0.1, 0.1))
    height = rng.uniform(0.35, 0.5)
    return Model(
        (
            lathe([(0, 0.08), (height - 0.08, 0.08), (height, 0.03)], (0, 0, 0), red),
            box((0.05, 0.14, 0.06), (0, 0.02, height - 0.01), BLACK),
        )
    )


def vent(rng: Rng) -> Model:
    grid = m.Material((0.85, 0.85, 0.85), (0.35, 0.35, 0.36), "slats", 0.06)
    return Model((box((rng.uniform(0.35, 0.6), 0.06, rng.uniform(0.2, 0.35)), (0, 0, 0), grid, backed=True),))


def radiator(rng: Rng) -> Model:
    """A row of upright ribs."""
    width, height, white = rng.uniform(0.7, 1.3), rng.uniform(0.5, 0.65), m.ceramic(rng)
    ribs = [
        box((0.06, 0.12, height), (x, 0, 0.1), white, rounding=0.02)
        for x in np.arange(-width / 2, width / 2, 0.11)
    ]
    return Model((*ribs, box((width, 0.05, height - 0.08), (0, 0, 0.14), white)))


def curtain(rng: Rng) -> Model:
    """One side of a pair: a folded sheet from near the ceiling."""
    return Model(
        (
            drape(
                (rng.uniform(0.4, 0.8), 0.05, rng.uniform(1.6, 2.15)),
                (0, 0, 0),
                m.fabric(rng),
                0.04,
                rng.uniform(0.13, 0.2),
            ),
        )
    )


def blinds(rng: Rng, width: float = 1.2, height: float = 1.3) -> Model:
    """Slats that hang before a window, part of the way down."""
    face = m.Material((0.9, 0.89, 0.85), (0.6, 0.6, 0.57), "slats", 0.07)
    drop = height * rng.uniform(0.45, 1.0)
    slats = [
        box((width, 0.06, 0.012), (0, 0, z), face, tilt=0.5, backed=True)
        for z in np.arange(height - drop, height, 0.07)
    ]
    sheet = box((width, 0.03, drop), (0, 0, height - drop), face)
    return Model((sheet, *slats, box((width, 0.08, 0.06), (0, 0, height - 0.03), face)))


def coat_rack(rng: Rng) -> Model:
    """A rail of hooks, with a coat or two."""
    wood = m.wood(rng)
    hooks = [box((0.03, 0.1, 0.03), (x, 0.05, 0.02), m.metal(rng)) for x in (-0.3, -0.1, 0.1, 0.3)]
    return Model((box((0.8, 0.05, 0.12), (0, 0, 0), wood), *hooks))


def jacket(rng: Rng) -> Model:
    cloth = m.fabric(rng)
    sleeves: list[Part] = [
        box((0.1, 0.09, 0.55), (s * 0.24, 0, 0.12), cloth, rounding=0.04, roll=-0.1 * s) for s in (-1, 1)
    ]
    return Model((drape((0.4, 0.1, 0.75), (0, 0, 0), cloth, 0.02, 0.22), *sleeves))


def pipe(rng: Rng) -> Model:
    return Model((post(rng.uniform(0.035, 0.06), rng.uniform(1.9, 2.3), (0, 0, 0), m.metal(rng)),))


def mailbox(rng: Rng) -> Model:
    """A wall of pigeon-holes with small doors."""
    steel = m.metal(rng)
    doors = [
        box((0.26, 0.03, 0.16), (x, 0.1, z), steel, backed=True)
        for x in (-0.45, -0.15, 0.15, 0.45)
        for z in (0.04, 0.24, 0.44, 0.64)
    ]
    return Model((box((1.25, 0.2, 0.84), (0, 0, 0), steel), *doors))
