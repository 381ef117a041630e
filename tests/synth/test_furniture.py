"""Every kind of thing: a closed finite mesh of a sensible size, made of a class that ScanNet200 has."""

import numpy as np
import pytest

from lground.labels import load_labels
from lground.synth.furniture import CLASS_OF, KINDS
from lground.synth.fusion import extract, fill
from lground.synth.rooms import recipes
from lground.synth.scannet_format import classes


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_is_closed_and_of_sensible_size(kind):
    model = KINDS[kind](np.random.default_rng(5))
    low, high = model.bounds
    assert (0.02 < (high - low).max()) and (high - low).max() < 3.0
    assert -0.4 < low[2] < 0.25  # near the ground; what hangs may reach below or start above
    step = max(0.012, (high - low).max() / 60)
    mesh = extract(fill(model.parts, low - 4.3 * step, high + 4.3 * step, step))
    assert np.isfinite(mesh.points).all() and len(mesh.faces) > 50
    assert (mesh.part >= 0).all()
    reach = 3 * step  # what the grid thickens
    assert (mesh.points > low - reach).all() and (mesh.points < high + reach).all()
    _, count = np.unique(np.sort(_edges(mesh.faces), axis=1), axis=0, return_counts=True)
    assert (count % 2 == 0).all()  # no border
    assert _volume(mesh) > 0  # triangles look outwards


def _edges(faces):
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def _volume(mesh) -> float:
    a, b, c = (mesh.points[mesh.faces[:, i]].astype(float) for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("kind", KINDS)
def test_things_vary(kind):
    sizes = [np.subtract(*KINDS[kind](np.random.default_rng(seed)).bounds) for seed in range(6)]
    colours = {part.material for seed in range(6) for part in KINDS[kind](np.random.default_rng(seed)).parts}
    least = len({part.material for part in KINDS[kind](np.random.default_rng(0)).parts})
    assert np.ptp(sizes, axis=0).max() > 0.003 or len(colours) > least


def test_classes_are_those_of_scannet200():
    known = set(load_labels("scannet200").names)
    made = {CLASS_OF.get(kind, kind) for kind in KINDS}
    assert made <= set(classes()) <= known
    assert len(classes()) >= 60
    assert {nyu40 for nyu40, _ in classes().values()} <= set(load_labels("nyu40").names)


def test_raw_categories_name_one_class_each():
    raw = [word for _, words in classes().values() for word in words]
    assert len(raw) == len(set(raw)) > len(classes())


def test_recipes_name_things_that_exist():
    for recipe in recipes().values():
        for kind, chance, count, where in recipe["things"]:
            assert kind in KINDS or where == "column"
            assert 0 < chance <= 1
            least, most = (int(n) for n in count.split("-"))
            assert 0 < least <= most
