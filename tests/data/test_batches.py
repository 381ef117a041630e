"""Collation: rows, features, and the point limit that drops nothing."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lground.data import VoxelScene, batches, collate


@pytest.fixture(autouse=True)
def nothing_reported_yet():
    batches._reported[0] = 0


def scene_of(size: int, name: str = "s") -> VoxelScene:
    rng = np.random.default_rng(size)
    return VoxelScene(
        name=name,
        coordinates=rng.permutation(8 * size)[: 3 * size].reshape(size, 3).astype(np.int32) - size,
        colors=rng.uniform(0, 255, (size, 3)).astype(np.float32),
        labels=rng.integers(-1, 200, size),
        instances=rng.integers(-1, 30, size),
        inverse=np.arange(size),
        vertex_labels=rng.integers(-1, 200, size),
    )


def test_rows_features_and_dtypes():
    scenes = [scene_of(5, "a"), scene_of(1, "b"), scene_of(8, "c")]
    (batch,) = collate(scenes)
    assert [s.name for s in batch.scenes] == ["a", "b", "c"]
    assert batch.coordinates.dtype == torch.int32 and batch.coordinates.is_contiguous()
    assert batch.features.dtype == torch.float32
    assert batch.labels.dtype == batch.instances.dtype == torch.int64
    assert batch.coordinates[:, 0].tolist() == [0] * 5 + [1] + [2] * 8
    for i, scene in enumerate(scenes):
        mine = batch.coordinates[:, 0] == i
        assert np.array_equal(batch.coordinates[mine, 1:], scene.coordinates)
        np.testing.assert_allclose(batch.features[mine], scene.colors / 255 - 0.5, atol=1e-6)
        assert np.array_equal(batch.labels[mine], scene.labels)
        assert np.array_equal(batch.instances[mine], scene.instances)


def test_collating_leaves_the_scenes_alone():
    scene = scene_of(6)
    before = scene.colors.copy()
    collate([scene])
    assert np.array_equal(scene.colors, before)


def test_to_moves_every_tensor():
    (batch,) = collate([scene_of(4)])
    moved = batch.to("meta")
    assert {moved.coordinates.device.type, moved.features.device.type} == {"meta"}
    assert {moved.labels.device.type, moved.instances.device.type} == {"meta"}
    assert moved.scenes is batch.scenes


TENSORS = ("coordinates", "features", "labels", "instances", "attributes")


@pytest.mark.parametrize("whole", [True, False])
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=7))
def test_halves_are_what_their_scenes_make(sizes, whole):
    scenes = [scene_of(size, str(i)) for i, size in enumerate(sizes)]
    middle = (len(scenes) + 1) // 2
    halves = collate(scenes, whole=whole)[0].halves()
    for half, mine in zip(halves, (scenes[:middle], scenes[middle:]), strict=True):
        (expected,) = collate(mine)
        assert all(getattr(half, name).equal(getattr(expected, name)) for name in TENSORS)
        assert (half.names, half.sizes) == ([s.name for s in mine], [len(s) for s in mine])
        assert half.scenes == (mine if whole else [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 60))
def test_point_limit_conserves_the_scenes(sizes, limit):
    scenes = [scene_of(size, str(i)) for i, size in enumerate(sizes)]
    micro = collate(scenes, point_limit=limit)
    assert [s.name for batch in micro for s in batch.scenes] == [s.name for s in scenes]
    for batch in micro:
        assert len(batch.scenes) > 0
        assert len(batch.coordinates) == sum(len(s) for s in batch.scenes)
        assert len(batch.coordinates) <= limit or len(batch.scenes) == 1
    for one, two in pairwise(micro):  # no batch is cut before it is full
        assert len(one.coordinates) + len(two.scenes[0]) > limit


def test_a_scene_above_the_limit_runs_alone_and_is_reported_once(capsys):
    scenes = [scene_of(3), scene_of(50, "hall"), scene_of(3), scene_of(60, "aula")]
    for _ in range(3):
        assert [len(batch.coordinates) for batch in collate(scenes, point_limit=10)] == [3, 50, 3, 60]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "hall has 50 voxels" in lines[0]
