"""The voxeliser: its defining equations on any cloud, and the majority option against a plain count."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lground.data import Sample, voxelize, voxelize_sample
from lground.data.geometry import rotation
from lground.errors import InputError

# A coarse lattice of values, so that vertices often share a voxel; negative ones and voxel borders included.
coordinate = st.integers(-60, 60).map(lambda n: n / 100)
clouds = npst.arrays(
    np.float32, st.tuples(st.integers(1, 80), st.just(3)), elements=coordinate.map(np.float32)
)
far = st.floats(-4e7, 4e7, width=32)  # reaches the ends of int32 at 2 cm
far_clouds = npst.arrays(np.float32, st.tuples(st.integers(1, 20), st.just(3)), elements=far)


@given(clouds | far_clouds, st.sampled_from([0.02, 0.05, 0.1]))
def test_defining_equations(points, voxel_size):
    voxels = voxelize(points, voxel_size)
    grid = np.floor(points.astype(np.float64) / voxel_size)
    assert voxels.coordinates.dtype == np.int32
    assert voxels.index.dtype == voxels.inverse.dtype == np.int64
    assert (voxels.coordinates[voxels.inverse] == grid).all()
    assert (voxels.inverse[voxels.index] == np.arange(len(voxels.index))).all()
    assert len(np.unique(voxels.coordinates, axis=0)) == len(voxels.coordinates)


@given(clouds)
def test_first_vertex_in_file_order_stands_for_its_voxel(points):
    first: dict[tuple, int] = {}
    for vertex, cell in enumerate(map(tuple, np.floor(points.astype(np.float64) / 0.02).tolist())):
        first.setdefault(cell, vertex)
    assert voxelize(points).index.tolist() == list(first.values())


@given(clouds, st.randoms(use_true_random=False))
def test_another_vertex_order_gives_the_same_voxels_and_partition(points, random):
    order = np.array(random.sample(range(len(points)), len(points)))
    one, two = voxelize(points), voxelize(points[order])
    assert set(map(tuple, one.coordinates)) == set(map(tuple, two.coordinates))
    assert (one.coordinates[one.inverse[order]] == two.coordinates[two.inverse]).all()


@given(clouds)
def test_matrix_is_applied_to_the_points_first(points):
    matrix = 1.1 * rotation(2, 0.3) @ rotation(0, -0.05)
    voxels = voxelize(points, 0.05, matrix=matrix)
    cells = (points.astype(np.float64) @ matrix.T) / 0.05
    assert (np.abs(voxels.coordinates[voxels.inverse] + 0.5 - cells) <= 0.5 + 1e-9).all()


def test_quarter_turn_moves_x_to_y():
    turned = voxelize(np.array([[1.01, 0.03, 0.05]]), matrix=rotation(2, np.pi / 2))
    assert turned.coordinates.tolist() == [[-2, 50, 2]]


@pytest.mark.parametrize(
    ("points", "voxel_size", "message"),
    [
        (np.zeros((0, 3)), 0.02, "no points"),
        (np.zeros((4, 2)), 0.02, "no points"),
        (np.array([[0, np.nan, 0]]), 0.02, "NaN or infinite"),
        (np.array([[0, 0, -np.inf]]), 0.02, "NaN or infinite"),
        (np.array([[0, 0, 2**31 * 0.02 + 1]]), 0.02, "check the units"),
        (np.array([[-(2**31) * 0.02 - 1, 0, 0]]), 0.02, "check the units"),
        (np.zeros((1, 3)), 0.0, "voxel size"),
        (np.zeros((1, 3)), float("nan"), "voxel size"),
    ],
)
def test_bad_input_is_refused_in_one_line(points, voxel_size, message):
    with pytest.raises(InputError, match=message) as caught:
        voxelize(points, voxel_size)
    assert "\n" not in str(caught.value)


def test_first_takes_everything_from_the_first_vertex(make_sample):
    sample = make_sample()
    scene = voxelize_sample(sample, 0.1, "first")
    index = voxelize(sample.points, 0.1).index
    assert (scene.colors == sample.colors[index]).all() and scene.colors.dtype == np.float32
    assert (scene.labels == sample.labels[index]).all()
    assert (scene.instances == sample.instances[index]).all()
    assert (scene.vertex_labels == sample.labels).all()


def winner(values: list[int]) -> int:
    """Most frequent non-negative value; Counter keeps the order of first appearance, so ties go to it."""
    return max(Counter(v for v in values if v >= 0).items(), key=lambda item: item[1], default=(-1, 0))[0]


@given(clouds, st.integers(0, 2**32))
def test_majority_against_a_plain_count(points, seed):
    rng = np.random.default_rng(seed)
    sample = Sample(
        "s",
        points,
        rng.integers(0, 256, (len(points), 3)).astype(np.uint8),
        rng.integers(-1, 3, len(points)),
        rng.integers(-1, 3, len(points)),
    )
    scene = voxelize_sample(sample, 0.3, "majority")
    for voxel in range(len(scene)):
        inside = np.flatnonzero(scene.inverse == voxel)
        label = winner(sample.labels[inside].tolist())
        assert scene.labels[voxel] == label
        agreeing = inside[sample.labels[inside] == label]
        assert scene.instances[voxel] == winner(sample.instances[agreeing].tolist())
        np.testing.assert_allclose(scene.colors[voxel], sample.colors[inside].mean(axis=0), rtol=1e-6)


def test_unknown_reduction_names_the_choices(make_sample):
    with pytest.raises(InputError, match="first, majority"):
        voxelize_sample(make_sample(), 0.02, "mean")
