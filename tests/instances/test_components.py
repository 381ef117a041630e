"""Groups of near points against looking at all pairs, above all where distances are the radius to the last bit."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lground.errors import InputError
from lground.instances import components, connected_groups


def blobs(rng: np.random.Generator, count: int) -> np.ndarray:
    """Points gathered around few centres, as shifted ones are."""
    return rng.integers(0, 3, (count, 3)) * 0.07 + rng.normal(size=(count, 3)) * rng.choice([0.002, 0.012])


def volume(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.random((count, 3)) * rng.choice([0.05, 0.1, 0.3, 1.0])


def sheets(rng: np.random.Generator, count: int) -> np.ndarray:
    """Two dense bent sheets about as far apart as the radius: most pairs of cells have to be looked into."""
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * (0.05 + rng.choice([0.0, 0.0298, 0.0301], (count, 1)))


def voxels(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(-4, 5, (count, 3)) * 0.02


def far_away(rng: np.random.Generator, count: int) -> np.ndarray:
    """Where float32 has steps of half a millimetre, and one point at the end of the world."""
    points = [3e3, -4e3, 5e3] + rng.normal(size=(count, 3)) * 0.03
    points[:1] = 1e38
    return points


@st.composite
def clouds(draw):
    """(points, labels, radius): the radius is a usual one, or exactly the distance of two of the points."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 120))
    points = draw(st.sampled_from([blobs, volume, sheets, voxels, far_away]))(rng, count).astype(np.float32)
    labels = rng.integers(-1, draw(st.integers(1, 3)), count)
    radius = draw(st.sampled_from([0.01, 0.02, 0.03, 0.04]))
    if count and draw(st.booleans()):
        a, b = points[rng.integers(0, count, 2)].astype(np.float64)
        distance = np.sqrt(((a - b) ** 2).sum())
        radius = float(distance) if 0 < distance < 1 else radius
    return points, labels, radius


@given(clouds())
def test_equals_looking_at_all_pairs(slow_groups, case):
    groups = connected_groups(*case)
    assert groups.dtype == np.int64
    assert groups.tolist() == slow_groups(*case).tolist()


@given(clouds())
def test_the_same_when_pairs_are_halved_one_by_one(slow_groups, case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "PAIRS", 1)
        assert connected_groups(*case).tolist() == slow_groups(*case).tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_points_exactly_at_the_radius_are_joined(slow_groups, seed, steps):
    """On a lattice of 1/64 m all sums are exact: whether points are joined does not depend on rounding."""
    rng = np.random.default_rng(seed)
    points = (rng.integers(-6, 7, (80, 3)) / 64).astype(np.float32)
    labels = np.zeros(80, dtype=np.int64)
    assert (
        connected_groups(points, labels, steps / 64).tolist()
        == slow_groups(points, labels, steps / 64).tolist()
    )
    pair = np.array([[0, 0, 0], [steps / 64, 0, 0]], dtype=np.float32)
    assert connected_groups(pair, labels[:2], steps / 64).tolist() == [0, 0]
    assert connected_groups(pair, labels[:2], np.nextafter(steps / 64, 0)).tolist() == [0, 1]


def test_pairs_alone_are_joined_up_to_the_radius_in_every_direction():
    """Pairs about as far apart as the radius, each of its own label, along axes and diagonals more often."""
    rng = np.random.default_rng(0)
    count, radius = 100_000, 0.03
    direction = rng.normal(size=(count, 3)) * rng.integers(0, 2, (count, 3))
    diagonal = rng.random(count) < 0.5
    direction[diagonal] = np.sign(direction[diagonal])
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    length = radius * (1 + rng.choice([1e-9, 1e-4, 0.1], (count, 1)) * rng.uniform(-1, 1, (count, 1)))
    start = rng.uniform(-1, 1, (count, 3))
    ends = np.stack([start, start + direction * length], axis=1)
    dx, dy, dz = (ends[:, 0] - ends[:, 1]).T
    joined = (dx * dx + dy * dy) + dz * dz <= radius * radius
    groups = connected_groups(ends.reshape(-1, 3), np.arange(count).repeat(2), radius).reshape(-1, 2)
    assert 0.3 < joined.mean() < 0.8
    assert ((groups[:, 0] == groups[:, 1]) == joined).all()


@given(clouds(), st.randoms(use_true_random=False))
def test_the_order_of_points_does_not_matter(case, random):
    points, labels, radius = case
    order = np.array(random.sample(range(len(points)), len(points)), dtype=np.int64)
    groups, permuted = connected_groups(*case)[order], connected_groups(points[order], labels[order], radius)
    pairs = set(zip(groups.tolist(), permuted.tolist(), strict=True))
    assert len(pairs) == len(set(groups.tolist())) == len(set(permuted.tolist()))  # one to one
    assert (groups == -1).tolist() == (permuted == -1).tolist()


@given(clouds())
def test_labels_are_grouped_as_if_alone(case):
    points, labels, radius = case
    groups = connected_groups(*case)
    for label in np.unique(labels[labels >= 0]):
        mine = labels == label
        alone = connected_groups(points[mine], labels[mine], radius)
        assert np.unique(groups[mine], return_inverse=True)[1].tolist() == alone.tolist()
        assert not np.isin(groups[~mine], groups[mine]).any()


@given(clouds(), st.floats(1, 3))
def test_a_larger_radius_only_merges(case, factor):
    points, labels, radius = case
    fine, coarse = connected_groups(*case), connected_groups(points, labels, radius * factor)
    assert len(set(zip(fine.tolist(), coarse.tolist(), strict=True))) == len(set(fine.tolist()))


@given(clouds())
def test_points_twice_change_nothing(case):
    points, labels, radius = case
    twice = connected_groups(np.repeat(points, 2, axis=0), np.repeat(labels, 2), radius)
    assert twice.tolist() == np.repeat(connected_groups(*case), 2).tolist()


def test_time_follows_points_and_not_neighbours():
    """200,000 points on one spot have 2 * 10^10 pairs; a way through all of them would take minutes."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200_000, 3)) * 0.005
    start = time.process_time()
    groups = connected_groups(points, np.zeros(len(points), dtype=np.int64), 0.03)
    assert time.process_time() - start < 10
    assert (groups == 0).all()


def test_points_left_out_may_be_anywhere():
    points = np.array([[0, 0, 0], [np.nan, 0, 0], [0, 0, 0.01]])
    assert connected_groups(points, np.array([4, -1, 4]), 0.02).tolist() == [0, -1, 0]
    with pytest.raises(InputError, match="NaN"):
        connected_groups(points, np.array([4, 4, 4]), 0.02)


@pytest.mark.parametrize(
    ("points", "labels", "radius", "message"),
    [
        (np.zeros((3, 2)), np.zeros(3, int), 0.03, r"\(3, 2\)"),
        (np.zeros((3, 3)), np.zeros(2, int), 0.03, r"\(2,\)"),
        (np.zeros((3, 3)), np.zeros(3, int), 0.0, "radius 0.0"),
        (np.zeros((3, 3)), np.zeros(3, int), np.nan, "radius nan"),
    ],
)
def test_bad_input_is_refused(points, labels, radius, message):
    with pytest.raises(InputError, match=message):
        connected_groups(points, labels, radius)
