"""Patches joined to regions: by features, by where they point, whatever the order of points and patches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.instances.regions import join_patches, touching

SPACING = 0.05


def box(low, high) -> np.ndarray:
    """Points on a grid, on the surface of a box."""
    axes = [np.arange(a, b + 1e-9, SPACING) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[(np.isclose(grid, low) | np.isclose(grid, high)).any(axis=1)].astype(np.float32)


@pytest.fixture(scope="module")
def boxes():
    """Two boxes side by side and one apart: points, patches (each box cut at z = 0.25), box of each patch."""
    parts = [
        box((0, 0, 0), (0.4, 0.4, 0.5)),
        box((0.45, 0, 0), (0.85, 0.4, 0.5)),
        box((2, 0, 0), (2.4, 0.4, 0.5)),
    ]
    points = np.concatenate(parts)
    owner = np.repeat(np.arange(3), [len(part) for part in parts])
    patches = 2 * owner + (points[:, 2] > 0.25)
    return points, patches, np.repeat(np.arange(3), 2)


def means(patches: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.stack([values[patches == k].mean(axis=0) for k in range(patches.max() + 1)])


def found(points, patches, features, **pointing) -> list[int]:
    return join_patches(
        features, np.bincount(patches), touching(points, patches, SPACING), **pointing
    ).of_patch.tolist()


def test_touching_boxes_are_told_apart_by_their_features_alone(boxes):
    points, patches, owner = boxes
    assert touching(points, patches, SPACING).tolist() == [
        [0, 1],
        [0, 2],
        [0, 3],
        [1, 2],
        [1, 3],
        [2, 3],
        [4, 5],
    ]
    rng = np.random.default_rng(0)
    features = np.eye(3)[owner] * 7 + rng.normal(0, 0.3, (6, 3))
    regions = join_patches(features, np.bincount(patches), touching(points, patches, SPACING))
    assert regions.of_patch.tolist() == owner.tolist()
    assert (regions.contrast > 0.8).all() and regions.contrast[2] == 1  # nothing touches the third
    assert found(points, patches, np.ones((6, 3))) == [0, 0, 0, 0, 1, 1]


def test_boxes_that_look_alike_are_told_apart_by_where_they_point(boxes):
    points, patches, owner = boxes
    centers = means(patches, points)
    aims = means(owner[patches], points)[owner]
    alike = np.ones((6, 3))
    assert found(points, patches, alike, centers=centers, aims=aims + 0.02) == owner.tolist()
    together = found(
        points, patches, alike, centers=centers, aims=np.tile(points[patches < 4].mean(0), (6, 1))
    )
    assert together == [0, 0, 0, 0, 1, 1]


def test_a_chain_of_small_steps_is_not_one_region():
    """Each patch is much like the next, the ends are not alike: means keep them apart."""
    angles = np.linspace(0, np.pi / 2, 12)
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    edges = np.stack([np.arange(11), np.arange(1, 12)], axis=1)
    regions = join_patches(features, np.ones(12, dtype=int), edges)
    assert 2 <= regions.of_patch.max() + 1 <= 3 and np.all(np.diff(regions.of_patch) >= 0)


@st.composite
def scattered(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, patches = draw(st.integers(1, 80)), draw(st.integers(1, 12))
    points = rng.uniform(-0.3, 0.3, (count, 3)).astype(np.float32)
    return points, rng.integers(-1, patches, count), patches, rng


@given(scattered())
@settings(max_examples=50)
def test_touching_is_looking_at_all_pairs_of_cells(case):
    points, patches, _, _ = case
    cells = np.floor(points.astype(np.float64) / SPACING)
    near = np.abs(cells[:, None] - cells).max(axis=2) <= 1
    a, b = np.nonzero(near)
    pairs = {(x, y) for x, y in zip(patches[a].tolist(), patches[b].tolist(), strict=True) if -1 < x < y}
    assert touching(points, patches, SPACING).tolist() == sorted(map(list, pairs))


@given(scattered(), st.booleans())
@settings(max_examples=50)
def test_the_order_of_points_and_patches_does_not_matter(case, pointing):
    points, patches, count, rng = case
    features, aims = rng.normal(size=(count, 4)), rng.normal(size=(count, 3))
    centers, sizes = rng.normal(size=(count, 3)), rng.integers(1, 9, count)
    where = {"centers": centers, "aims": aims} if pointing else {}
    regions = join_patches(features, sizes, touching(points, patches, SPACING), **where)
    order, names = rng.permutation(len(points)), rng.permutation(count)  # patch names[k] is called k
    called = np.append(np.argsort(names), -1)[patches[order]]
    again = join_patches(
        features[names],
        sizes[names],
        touching(points[order], called, SPACING),
        **{key: value[names] for key, value in where.items()},
    )
    same = regions.of_patch[:, None] == regions.of_patch
    np.testing.assert_array_equal(again.of_patch[:, None] == again.of_patch, same[names][:, names])
    np.testing.assert_allclose(
        again.contrast[again.of_patch], regions.contrast[regions.of_patch][names], atol=1e-9
    )


def test_nothing_gives_nothing():
    none = np.empty((0, 3))
    assert len(touching(none, np.empty(0, int), SPACING)) == 0
    assert len(join_patches(none, np.empty(0, int), np.empty((0, 2), int)).contrast) == 0
