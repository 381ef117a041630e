"""Sets of points: the same whichever way they are looked at."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lground.instances import Objects


@st.composite
def some_objects(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, number = draw(st.integers(1, 30)), draw(st.integers(0, 6))
    masks = rng.random((number, count)) < rng.random((number, 1))
    scores = rng.choice([0.1, 0.5, 0.9], number)
    return masks, Objects.of(count, [np.flatnonzero(m) for m in masks], rng.integers(0, 5, number), scores)


@given(some_objects())
def test_masks_and_members_say_the_same(case):
    masks, objects = case
    assert (objects.masks.toarray() == masks).all()
    assert objects.sizes.tolist() == masks.sum(1).tolist()


@given(some_objects(), st.data())
def test_selected_objects_keep_their_points(case, data):
    masks, objects = case
    chosen = data.draw(st.lists(st.integers(0, max(len(objects) - 1, 0)), max_size=5)) if len(objects) else []
    chosen = np.array(chosen, dtype=np.int64)
    selected = objects.select(chosen)
    assert (selected.masks.toarray() == masks[chosen]).all()
    assert (selected.labels == objects.labels[chosen]).all()
    assert (selected.scores == objects.scores[chosen]).all()


@given(some_objects(), st.integers(0, 2**32 - 1))
def test_vertices_belong_to_the_objects_of_their_voxel(case, seed):
    masks, objects = case
    inverse = np.random.default_rng(seed).integers(0, objects.count, 40)
    assert (objects.on_vertices(inverse).masks.toarray() == masks[:, inverse]).all()


@given(some_objects())
def test_a_shared_point_goes_to_the_best_object(case):
    masks, objects = case
    expected = [
        min(np.flatnonzero(column), key=lambda p: (-objects.scores[p], p)) if column.any() else -1
        for column in masks.T
    ]
    assert objects.instance_of_points().tolist() == expected
