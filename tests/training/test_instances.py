"""The instance stage: its labels and targets, its loss, its weights, its scores, and whole runs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lground.data import Sample
from lground.data.mixing import mix
from lground.data.scenes import voxelize_sample


def sample(points: np.ndarray, seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    n = len(points)
    colors = rng.integers(0, 256, (n, 3)).astype(np.uint8)
    return Sample(f"room{seed}", points, colors, rng.integers(-1, 2, n), rng.integers(-1, 3, n))


clouds = arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.floats(-1, 1, width=32))


@given(clouds, st.integers(0, 2**32))
def test_a_voxel_whose_vertices_disagree_is_ignored(points, seed):
    """In the very voxel where they do, and there alone; a mixed instance costs the instance, not the label."""
    made = sample(points, seed)
    first, agreed = (voxelize_sample(made, 0.5, reduce) for reduce in ("first", "agreed"))
    for name in ("coordinates", "colors", "attributes", "inverse", "vertex_labels", "vertex_instances"):
        assert np.array_equal(getattr(agreed, name), getattr(first, name))
    for voxel in range(len(agreed)):
        inside = agreed.inverse == voxel
        labels, instances = set(made.labels[inside].tolist()), set(made.instances[inside].tolist())
        label = labels.pop() if len(labels) == 1 else -1
        assert agreed.labels[voxel] == label
        assert agreed.instances[voxel] == (instances.pop() if label >= 0 and len(instances) == 1 else -1)


@given(clouds, clouds, st.integers(0, 2**32))
def test_instances_of_vertices_go_along_when_scenes_are_mixed(points, others, seed):
    """Of both scenes, and no two objects share a number; a voxel has the number of its first vertex."""
    one, other = (
        voxelize_sample(sample(p, s), 0.3, "first") for p, s in ((points, seed), (others, seed + 1))
    )
    mixed, count = mix(one, other), len(one.vertex_instances)
    assert np.array_equal(mixed.vertex_instances[:count], one.vertex_instances)
    moved = mixed.vertex_instances[count:]
    assert np.array_equal(moved < 0, other.vertex_instances < 0)
    shift = (moved - other.vertex_instances)[moved >= 0]
    assert len(set(shift.tolist())) <= 1 and (shift > one.vertex_instances.max(initial=-1)).all()
    vertices = np.unique(mixed.inverse, return_index=True)[1]
    assert np.array_equal(mixed.instances, mixed.vertex_instances[vertices])
