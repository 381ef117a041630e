"""Objects that look otherwise: colours and sizes that fit their names, and nothing else changed."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest

from lground.data import Attributes, SceneDataset
from lground.data.attributes import BIG, DARK, NAMES, SMALL, ChangeAttributes, recolored
from lground.errors import InputError

HUES = {"red": 0, "green": 120, "blue": 240, "yellow": 60}  # degrees


@pytest.fixture
def colors(rng) -> np.ndarray:
    return rng.integers(0, 256, (500, 3)).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("name", "hue"), HUES.items())
def test_a_hue_keeps_shades(colors, name, hue):
    """By the standard library: its hue, the colour's own value, but of both value and saturation enough to be seen."""
    painted = recolored(colors, NAMES.index(name))
    assert painted.min() >= 0 and painted.max() <= 255 and len(np.unique(painted.round())) > 100
    for before, after in zip(colors / 255, painted / 255, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*after)
        assert v == pytest.approx(max(*before, 64 / 255), abs=1e-5)
        assert (360 * h - hue + 180) % 360 - 180 == pytest.approx(0, abs=0.1)
        saturation = colorsys.rgb_to_hsv(*before)[1] if max(before) > 0.05 else s
        assert s >= 0.5 - 1e-3 and s == pytest.approx(max(0.5, saturation), abs=1e-3)


def test_dark_and_bright(colors):
    assert np.array_equal(recolored(colors, DARK), colors / 2)
    bright = recolored(colors, NAMES.index("bright"))
    assert np.allclose(255 - bright, (255 - colors) / 2)


def test_objects_of_the_classes_change_and_say_how(make_sample, rng):
    """Sizes about the middle of the box and the lowest point, within the scene; all else stays."""
    sample = replace(make_sample(2000), instances=np.arange(2000) % 7 - 1, labels=np.arange(2000) % 4)
    step = ChangeAttributes(Attributes(color_probability=0.4, scale_probability=1.0), np.array([1, 2]))
    seen = set()
    for _ in range(10):
        changed = step(sample, rng)
        others = ~(np.isin(sample.labels, (1, 2)) & (sample.instances >= 0))
        for name in ("points", "colors", "attributes"):
            assert np.array_equal(getattr(changed, name)[others], getattr(sample, name)[others])
        for label in (1, 2):
            for instance in range(6):
                rows = (sample.labels == label) & (sample.instances == instance)
                (attribute,) = np.unique(changed.attributes[rows])
                seen.add(NAMES[attribute])
                before, after = sample.points[rows], changed.points[rows]
                ratio = np.ptp(after, axis=0) / np.maximum(np.ptp(before, axis=0), 1e-9)
                if attribute in (BIG, SMALL):
                    assert np.ptp(ratio) < 1e-3 and (ratio[0] > 1) == (attribute == BIG)
                    assert after[:, 2].min() == pytest.approx(before[:, 2].min(), abs=1e-5)
                    assert (after >= sample.points.min(axis=0) - 1e-5).all()
                    assert (after <= sample.points.max(axis=0) + 1e-5).all()
                else:
                    assert np.array_equal(before, after)
                assert np.array_equal(sample.colors[rows], changed.colors[rows]) == (
                    attribute in (0, BIG, SMALL)
                )
    assert seen >= set(NAMES) - {"plain", "big"}


def test_limited_annotation_has_no_whole_objects_to_change(store):
    with pytest.raises(InputError, match=r"attributes\.mode=raw .* data\.annotation=scene-20"):
        SceneDataset(store, "train", attributes=Attributes(), annotation="scene-20")
