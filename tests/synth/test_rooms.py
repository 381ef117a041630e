"""Rooms are furnished as rooms are: nothing runs into anything; few classes are everywhere, many are rare."""

from collections import Counter
from functools import cache

import numpy as np
import pytest

from lground.synth.furniture import CLASS_OF, KINDS
from lground.synth.layout import Placer, Room
from lground.synth.rooms import furnish, recipes, room_type

SHELL = {"wall", "floor", "ceiling", "door", "doorframe", "window", "windowsill", "closet door", "column"}


@cache
def furnished(k, size, seed):
    return furnish(np.random.default_rng([seed, 0, k]), room_type(seed, k), size)


def rooms(count, size="normal", seed=0):
    """The first of them, made once for all tests, which leave them as they are."""
    return [furnished(k, size, seed) for k in range(count)]


def test_every_type_of_room_comes_in_its_share():
    total = sum(recipe["share"] for recipe in recipes().values())
    found = Counter(room_type(7, k) for k in range(2 * total))
    assert found == {name: 2 * recipe["share"] for name, recipe in recipes().items()}


def test_objects_are_long_tailed():
    count = 150
    per_class = Counter(name for room in rooms(count) for name in {t.name for t in room.things})
    assert len(per_class) >= 60
    shares = np.array(sorted(per_class.values(), reverse=True)) / count
    assert (shares[:5] > 0.5).all()  # walls and floors are everywhere
    assert (shares < 0.05).mean() > 0.4  # and much is in a few rooms only
    objects = Counter(t.name for room in rooms(count) for t in room.things)
    ordered = np.array(sorted(objects.values(), reverse=True))
    assert ordered[: len(ordered) // 10].sum() > 0.5 * ordered.sum()


def test_things_stay_in_the_room():
    for room in rooms(28):
        for thing in room.things:
            if thing.name not in SHELL | {"blinds"}:
                assert (thing.footprint() > -0.02).all()
                assert (thing.footprint() < np.array(room.size[:2]) + 0.02).all()
                assert thing.heights()[1] < room.size[2] + 0.02


def test_things_do_not_run_into_each_other():
    for room in rooms(14):
        things = [(t.name, t.parts()) for t in room.things if t.name not in SHELL]
        for i, (name, parts) in enumerate(things):
            for other_name, others in things[:i]:
                if {name, other_name} != {"sink", "kitchen counter"}:  # the rim of a sink lies in the worktop
                    assert _shared(parts, others) < 60e-6, f"{name} runs into {other_name}"


def _shared(parts, others, step=0.015) -> float:
    """Cubic metres that are inside both objects."""
    low = np.maximum(*[np.min([p.bounds()[0] for p in ps], axis=0) for ps in (parts, others)])
    high = np.minimum(*[np.max([p.bounds()[1] for p in ps], axis=0) for ps in (parts, others)])
    if (high - low < 0.01).any():
        return 0.0
    axes = [np.arange(a, b, step) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return float((_inside(parts, points) & _inside(others, points)).sum() * step**3)


def _inside(parts, points):
    inside = np.zeros(len(points), dtype=bool)
    for part in parts:
        inside |= part.shape.distance(*((points - part.centre) @ part.rotation).T) < -0.005
    return inside


@pytest.mark.parametrize("small, large", [("keyboard", "desk"), ("pillow", "bed"), ("lamp", "nightstand")])
def test_small_things_stand_on_large_ones(small, large):
    found = 0
    for room in rooms(60):
        hosts = [t for t in room.things if t.name == large]
        for thing in room.things:
            if thing.name == CLASS_OF.get(small, small):
                bases = [
                    abs(thing.at[2] - host.point(0, 0, top.height)[2])
                    for host in hosts
                    for top in host.model.tops
                ]
                found += bool(bases) and min(bases) < 1e-6
    assert found > 0


def test_what_is_put_at_a_wall_has_its_back_there():
    room, rng = Room((4.0, 3.0, 2.5)), np.random.default_rng(0)
    for _ in range(6):
        thing = Placer(room, rng).wall("cabinet", KINDS["cabinet"](rng))
        if thing is not None:
            corners = thing.footprint()
            gaps = [
                corners[:, 0].min(),
                4 - corners[:, 0].max(),
                corners[:, 1].min(),
                3 - corners[:, 1].max(),
            ]
            assert min(gaps) == pytest.approx(0, abs=1e-6)
    assert len(room.things) >= 3
