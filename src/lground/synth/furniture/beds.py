"""Beds and soft things."""

import numpy as np

from lground.synth import materials as m
from lground.synth.parts import Model, Top, ball, box, legs, part
from lground.synth.shapes import Box

Rng = np.random.Generator


def bed(rng: Rng) -> Model:
    """Frame, mattress, headboard; the head is at the back."""
    width, length, height = (
        rng.choice([0.95, 1.4, 1.65]) + rng.normal(0, 0.03),
        rng.uniform(1.95, 2.1),
        rng.uniform(0.45, 0.58),
    )
    wood, sheet = m.wood(rng) if rng.random() < 0.7 else m.fabric(rng), m.linen(rng)
    parts = [
        box((width + 0.06, length + 0.04, 0.18), (0, 0, 0.12), wood),
        *legs(width, length, 0.14, 0.03, wood),
        box((width, length, height - 0.26), (0, 0, 0.27), sheet, rounding=0.06),
        box((width + 0.08, 0.06, rng.uniform(0.8, 1.15)), (0, -length / 2 - 0.03, 0), wood, rounding=0.02),
    ]
    half = width / 2 - 0.04
    pillows = Top((-half, -length / 2 + 0.04), (half, -length / 2 + 0.5), height)
    rest = Top((-half, -length / 2 + 0.55), (half, length / 2 - 0.05), height)
    return Model(tuple(parts), (pillows, rest))


def mattress(rng: Rng) -> Model:
    width, cloth = rng.uniform(0.9, 1.4), m.linen(rng)
    return Model(
        (box((width, 1.95, rng.uniform(0.2, 0.28)), (0, 0, 0), cloth, rounding=0.05),),
        (Top((-0.4, -0.9), (0.4, 0.9), 0.25),),
    )


def pillow(rng: Rng) -> Model:
    width, depth = rng.uniform(0.5, 0.68), rng.uniform(0.34, 0.42)
    return Model(
        (ball((width / 2, depth / 2, rng.uniform(0.07, 0.095)), (0, 0, 0), m.linen(rng), backed=True),)
    )


def blanket(rng: Rng) -> Model:
    """A folded or ruffled cover on a bed."""
    width, depth, cloth = rng.uniform(0.6, 0.85), rng.uniform(0.6, 1.1), m.fabric(rng)
    heap = ball(
        (width / 3, depth / 4, 0.09), (0.1, 0, 0), cloth, bumps=0.03, phase=rng.uniform(0, 6), backed=True
    )
    return Model((box((width, depth, 0.05), (0, 0, 0), cloth, rounding=0.02, backed=True), heap))


def clothes(rng: Rng) -> Model:
    """A heap of worn things."""
    count = int(rng.integers(2, 4))
    at = rng.uniform(-0.1, 0.1, (count, 2))
    heaps = [
        ball(
            (rng.uniform(0.12, 0.22), rng.uniform(0.1, 0.18), rng.uniform(0.05, 0.1)),
            (*xy, 0),
            m.fabric(rng),
            0.03,
            rng.uniform(0, 6),
        )
        for xy in at
    ]
    return Model(tuple(heaps))


def mat(rng: Rng) -> Model:
    half = (rng.uniform(0.3, 0.9), rng.uniform(0.22, 0.6), 0.012)
    return Model((part(Box(half), (0, 0, 0), m.fabric(rng), backed=True),))
