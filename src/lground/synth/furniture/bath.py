"""Bathrooms: white hollow ceramics, and what hangs and stands around them."""

import numpy as np

from lground.synth import materials as m
from lground.synth.furniture.electronics import BLACK
from lground.synth.furniture.storage import _doors
from lground.synth.parts import Model, Top, box, drape, lathe, part, post, tub
from lground.synth.shapes import Box

Rng = np.random.Generator


def toilet(rng: Rng) -> Model:
    white, seat = m.ceramic(rng), rng.uniform(0.38, 0.43)
    bowl = lathe(
        [(0, 0.12), (0.18, 0.13), (seat - 0.05, 0.2), (seat, 0.2)],
        (0, 0.1, 0),
        white,
        squash=1.25,
        wall=0.045,
    )
    lid = box((0.36, 0.05, 0.42), (0, -0.16, seat), white, rounding=0.02, tilt=0.12)
    tank = box((0.42, 0.2, 0.38), (0, -0.27, seat - 0.02), white, rounding=0.03)
    foot = box((0.22, 0.34, seat - 0.04), (0, -0.14, 0), white)
    closed = post(0.2, 0.035, (0, 0.1, seat), white) if rng.random() < 0.4 else lid
    return Model((bowl, tank, foot, closed), (Top((-0.18, -0.34), (0.18, -0.2), seat + 0.36),))


def bathtub(rng: Rng) -> Model:
    return Model(
        (
            tub(
                (rng.uniform(1.5, 1.7), rng.uniform(0.7, 0.78), rng.uniform(0.5, 0.58)),
                0.07,
                (0, 0, 0),
                m.ceramic(rng),
                rounding=0.1,
            ),
        )
    )


def wall_sink(rng: Rng) -> Model:
    """A wash-basin on a pedestal."""
    white = m.ceramic(rng)
    bowl = tub((rng.uniform(0.48, 0.6), 0.44, 0.18), 0.045, (0, 0, 0.68), white, rounding=0.06)
    steel = m.metal(rng)
    tap = [post(0.018, 0.12, (0, -0.17, 0.84), steel), box((0.03, 0.14, 0.03), (0, -0.11, 0.94), steel)]
    return Model((bowl, *tap, lathe([(0, 0.11), (0.7, 0.08)], (0, -0.08, 0), white)))


def bathroom_vanity(rng: Rng) -> Model:
    """A cupboard that carries a basin (the basin is an object of its own)."""
    width, face, stone = rng.uniform(0.8, 1.2), m.board(rng), m.ceramic(rng)
    parts = [
        tub((width, 0.5, 0.76), 0.03, (0, -0.02, 0), face),
        tub((width + 0.03, 0.54, 0.05), 0.2, (0, 0, 0.76), stone),
    ]
    parts = [
        box((width, 0.5, 0.62), (0, -0.02, 0), face),
        box((width + 0.03, 0.54, 0.05), (0, 0, 0.76), stone),
    ]
    parts.append(box((width, 0.5, 0.2), (0, -0.02, 0.58), face))
    side = Top((-width / 2, -0.2), (width / 2, 0.2), 0.81)
    return Model((*parts, *_doors(width, 0.5, 0.08, 0.74, 2, face, m.metal(rng))), (side,))


def bathroom_counter(rng: Rng) -> Model:
    width, stone = rng.uniform(1.1, 1.6), m.Material((0.75, 0.72, 0.68), (0.6, 0.56, 0.52), "mottled", 0.05)
    parts = (
        box((width, 0.56, 0.07), (0, 0, 0.76), stone),
        *[box((0.05, 0.5, 0.76), (s * (width / 2 - 0.05), 0, 0), stone) for s in (-1, 1)],
    )
    return Model(
        (*parts, box((width, 0.03, 0.14), (0, -0.26, 0.83), stone)),
        (Top((-width / 2, -0.22), (width / 2, 0.22), 0.83),),
    )


def inset_sink(rng: Rng) -> Model:
    """A shallow bowl that stands on a counter, with its tap."""
    white, steel = m.ceramic(rng), m.metal(rng)
    bowl = lathe([(0, 0.15), (0.05, 0.2), (0.11, 0.22)], (0, 0.02, 0), white, squash=0.8, wall=0.03)
    return Model(
        (bowl, post(0.018, 0.22, (0, -0.2, 0), steel), box((0.03, 0.14, 0.03), (0, -0.14, 0.2), steel))
    )


def bathroom_cabinet(rng: Rng) -> Model:
    """Hangs above the basin."""
    width, face = rng.uniform(0.45, 0.7), m.board(rng)
    return Model(
        (box((width, 0.15, 0.6), (0, 0, 0), face), *_doors(width, 0.15, 0.01, 0.59, 2, face, m.metal(rng)))
    )


def shower_curtain(rng: Rng) -> Model:
    width = rng.uniform(0.7, 1.4)
    return Model((drape((width, 0.03, 1.75), (0, 0, 0.2), m.linen(rng), 0.035, 0.16),))


def shower_curtain_rod(rng: Rng) -> Model:
    return Model((post(0.015, 1.5, (-0.75, 0, 0.015), m.metal(rng), roll=np.pi / 2),))


def shower_head(rng: Rng) -> Model:
    steel = m.metal(rng)
    return Model(
        (
            lathe([(0, 0.07), (0.06, 0.03)], (0, 0.1, 0), steel),
            box((0.03, 0.22, 0.03), (0, 0, 0.05), steel),
            box((0.03, 0.03, 0.3), (0, -0.1, -0.25), steel),
        )
    )


def towel(rng: Rng) -> Model:
    """Hanging from a bar."""
    width, height, cloth = (
        rng.uniform(0.35, 0.6),
        rng.uniform(0.45, 0.75),
        m.linen(rng) if rng.random() < 0.4 else m.fabric(rng),
    )
    return Model(
        (
            drape((width, 0.04, height), (0, 0, 0), cloth, 0.012, 0.3),
            post(0.012, width + 0.1, (-(width + 0.1) / 2, 0, height), m.metal(rng), roll=np.pi / 2),
        )
    )


def folded_towel(rng: Rng) -> Model:
    cloth = m.linen(rng) if rng.random() < 0.4 else m.fabric(rng)
    return Model(
        (box((rng.uniform(0.28, 0.36), 0.24, rng.uniform(0.07, 0.16)), (0, 0, 0), cloth, rounding=0.03),)
    )


def toilet_paper(rng: Rng) -> Model:
    return Model((post(0.06, 0.1, (-0.05, 0, 0.06), m.paper(rng), roll=np.pi / 2),))


def toilet_paper_dispenser(rng: Rng) -> Model:
    return Model((post(0.14, 0.12, (0, -0.06, 0.14), m.plastic(rng), tilt=-np.pi / 2),))


def paper_towel_dispenser(rng: Rng) -> Model:
    shell = m.plastic(rng)
    return Model(
        (
            box((0.3, 0.2, 0.38), (0, 0, 0), shell, rounding=0.02),
            box((0.2, 0.1, 0.06), (0, 0.02, -0.06), m.paper(rng)),
        )
    )


def soap_dispenser(rng: Rng) -> Model:
    return Model(
        (
            lathe([(0, 0.038), (0.13, 0.034), (0.15, 0.015), (0.19, 0.012)], (0, 0, 0), m.bright(rng)),
            box((0.025, 0.07, 0.02), (0, 0.03, 0.18), m.metal(rng)),
        )
    )


def soap_dish(rng: Rng) -> Model:
    return Model(
        (
            tub((0.13, 0.09, 0.035), 0.015, (0, 0, 0), m.ceramic(rng), backed=True),
            box((0.07, 0.05, 0.03), (0, 0, 0.015), m.bright(rng), rounding=0.01, backed=True),
        )
    )


def plunger(rng: Rng) -> Model:
    rubber = m.Material((0.5, 0.15, 0.1), (0.4, 0.12, 0.1)) if rng.random() < 0.6 else BLACK
    return Model(
        (
            lathe([(0, 0.075), (0.05, 0.075), (0.1, 0.03)], (0, 0, 0), rubber),
            post(0.013, 0.45, (0, 0, 0.08), m.wood(rng)),
        )
    )


def scale(rng: Rng) -> Model:
    return Model((part(Box((0.16, 0.15, 0.025), 0.02), (0, 0, 0), m.plastic(rng), backed=True),))


def handicap_bar(rng: Rng) -> Model:
    steel = m.metal(rng)
    return Model(
        (
            post(0.018, 0.8, (-0.4, 0.05, 0.02), steel, roll=np.pi / 2),
            *[box((0.06, 0.08, 0.06), (s * 0.38, 0.01, -0.01), steel) for s in (-1, 1)],
        )
    )
