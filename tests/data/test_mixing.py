"""One scene laid into another: every voxel of both, the first one's where both have one."""

from dataclasses import replace

import numpy as np
import pytest

from lground.data import SceneDataset, voxelize_sample
from lground.data.mixing import mix
from lground.errors import InputError


def test_the_voxels_of_both_scenes_lie_over_one_another(make_sample):
    one, other = (voxelize_sample(make_sample(800, seed), 0.05, "first") for seed in (1, 2))
    other = replace(other, coordinates=other.coordinates + np.array([400, -70, 9], np.int32))
    mixed = mix(one, other)
    assert np.array_equal(mixed.coordinates[: len(one)], one.coordinates)
    assert len(np.unique(mixed.coordinates, axis=0)) == len(mixed)
    moved = mixed.coordinates[mixed.inverse[len(one.inverse) :]]
    (move,) = np.unique(moved - other.coordinates[other.inverse], axis=0)
    assert np.abs((one.coordinates - other.coordinates.mean(0) - move).mean(0)[:2]).max() < 1
    new = mixed.coordinates[len(one) :]
    expected = {tuple(row) for row in other.coordinates + move} - {tuple(row) for row in one.coordinates}
    assert {tuple(row) for row in new} == expected
    place = {tuple(row): k for k, row in enumerate(other.coordinates + move)}
    rows = [place[tuple(row)] for row in new]
    assert np.array_equal(mixed.labels, np.concatenate([one.labels, other.labels[rows]]))
    assert np.array_equal(mixed.colors, np.concatenate([one.colors, other.colors[rows]]))


def test_half_of_the_items_are_mixed_and_each_depends_on_its_place_alone(store):
    plain, mixing = (SceneDataset(store, "train", mix=share) for share in (0.0, 0.5))
    names = [mixing[epoch, 0].name for epoch in range(60)]
    assert 15 < sum("+" in name for name in names) < 45
    assert len(set(names)) == len(plain)  # alone, and with each of the others
    assert mixing[3, 0].name == names[3]
    with pytest.raises(InputError, match=r"data\.mix"):
        SceneDataset(store, "train", mix=1.5)
