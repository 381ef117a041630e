"""Shapes are what they say: distances have the right sign and never promise more room than there is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.synth.shapes import Box, Drape, Ellipsoid, Lathe, Pierced, Ring, Tub

SHAPES = [
    Box((0.3, 0.2, 0.1), 0.05),
    Pierced((0.5, 0.1, 0.6), ((0.1, 0.0, 0.2, 0.3),)),
    Tub((0.3, 0.2, 0.2), 0.03, 0.02),
    Lathe(((-0.3, 0.1), (0.0, 0.2), (0.3, 0.15))),
    Lathe(((-0.2, 0.15), (0.2, 0.2)), squash=0.7, wall=0.03),
    Ellipsoid((0.3, 0.2, 0.1)),
    Ellipsoid((0.2, 0.2, 0.2), bumps=0.02, phase=1.0),
    Drape((0.4, 0.02, 0.7), 0.03, 0.2),
    Ring(0.2, 0.03),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: type(s).__name__)
def test_a_shape_lies_inside_its_bounds(shape):
    points = np.random.default_rng(0).uniform(-1, 1, (20000, 3))
    inside = shape.distance(*points.T) < 0
    assert inside.any()
    assert (np.abs(points[inside]) <= np.array(shape.half) + 1e-6).all()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: type(s).__name__)
def test_thickened_holds_the_shape(shape):
    points = np.random.default_rng(1).uniform(-1, 1, (20000, 3))
    thick = shape.thickened(0.06)
    lost = (shape.distance(*points.T) < 0) & (thick.distance(*points.T) > 1e-6)
    assert not lost.any()


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_a_box_tells_true_distances(seed):
    rng = np.random.default_rng(seed)
    half, rounding = rng.uniform(0.1, 1.0, 3), rng.uniform(0, 0.1)
    point = rng.uniform(-2, 2, 3)
    core = np.clip(point, -(half - rounding), half - rounding)
    outside = np.linalg.norm(point - core) - rounding
    found = Box(tuple(half), rounding).distance(*point[:, None])[0]
    if outside > 0:
        assert found == pytest.approx(outside, abs=1e-9)
    else:
        assert found <= 1e-9
