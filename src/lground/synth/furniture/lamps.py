"""Lights: a shade on a foot, on a pole, or below the ceiling."""

import numpy as np

from lground.synth import materials as m
from lground.synth.parts import Model, Part, ball, box, lathe, post

Rng = np.random.Generator


def _shade(rng: Rng, radius: float, height: float, z: float) -> Part:
    return lathe([(0, radius), (height, rng.uniform(0.5, 0.95) * radius)], (0, 0, z), m.linen(rng))


def lamp(rng: Rng) -> Model:
    """A table lamp or, taller, a floor lamp of the same parts."""
    return _standing(rng, rng.uniform(0.25, 0.4), rng.uniform(0.11, 0.16))


def floor_lamp(rng: Rng) -> Model:
    return _standing(rng, rng.uniform(1.2, 1.5), rng.uniform(0.16, 0.24))


def _standing(rng: Rng, pole: float, radius: float) -> Model:
    foot = m.metal(rng)
    parts = [lathe([(0, 0.75 * radius), (0.03, 0.7 * radius)], (0, 0, 0), foot)]
    parts.append(post(0.015, pole, (0, 0, 0.02), foot))
    if rng.random() < 0.4 and pole < 1:
        parts.append(ball((0.08, 0.08, 0.11), (0, 0, 0.02), m.bright(rng)))
    parts.append(_shade(rng, radius, 1.2 * radius, pole - 0.02))
    return Model(tuple(parts))


def ceiling_light(rng: Rng) -> Model:
    """Flat lamp below the ceiling, top at the model's top."""
    glow = m.Material((0.97, 0.96, 0.9), (0.93, 0.92, 0.85))
    if rng.random() < 0.5:
        return Model((box((1.2, 0.3, 0.07), (0, 0, 0), glow),))
    return Model((lathe([(0, 0.12), (0.1, 0.22)], (0, 0, 0), glow),))


def light(rng: Rng) -> Model:
    """A pendant: a shade on a rod from the ceiling."""
    return Model((_shade(rng, 0.2, 0.22, 0), post(0.012, 0.5, (0, 0, 0.2), m.metal(rng))))


def fan(rng: Rng) -> Model:
    """A standing fan: cage on a pole."""
    steel = m.metal(rng)
    height = rng.uniform(0.8, 1.1)
    cage = lathe([(0, 0.2), (0.12, 0.17)], (0, 0.08, height), steel, tilt=np.pi / 2)
    return Model((post(0.16, 0.04, (0, 0, 0), steel), post(0.02, height, (0, 0, 0.02), steel), cage))


def candle(rng: Rng) -> Model:
    return Model((post(0.04, rng.uniform(0.1, 0.18), (0, 0, 0), m.linen(rng)),))
