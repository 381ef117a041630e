"""Each point is one object's, stuff, or void."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lground.errors import InputError
from lground.instances import Objects, panoptic

INSTANCE_CLASS = np.array([False, True, True])  # class 0 is stuff


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, number = draw(st.integers(0, 30)), draw(st.integers(0, 6))
    masks = rng.random((number, count)) < rng.random((number, 1))
    objects = Objects.from_masks(masks, rng.integers(-1, 3, number), rng.choice([0.1, 0.5, 0.9], number))
    return objects, rng.integers(-1, 3, count)


@given(cases())
def test_equals_the_definition_point_by_point(case):
    objects, labels = case
    owner: dict[int, int] = {}
    for k in sorted(range(len(objects)), key=lambda k: (-objects.scores[k], k)):
        points = objects.points_of(k).tolist()
        free = [point for point in points if point not in owner]
        if len(free) >= len(points) / 2:
            owner |= dict.fromkeys(free, k)
    found, instances = panoptic(objects, labels, INSTANCE_CLASS)
    assert found.dtype == instances.dtype == np.int64
    for point, label in enumerate(labels.tolist()):
        if point in owner:
            expected = objects.labels[owner[point]], owner[point]
        else:
            expected = (0 if label == 0 else -1), -1
        assert (found[point], instances[point]) == expected


def test_an_object_given_up_leaves_its_points_to_the_next():
    masks = np.array([[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0]], dtype=bool)
    objects = Objects.from_masks(masks, np.array([1, 2, 2]), np.array([0.9, 0.8, 0.7]))
    labels, instances = panoptic(objects, np.array([0, 1, 1, 1, 0, 1]), INSTANCE_CLASS)
    assert instances.tolist() == [0, 0, 0, 2, 2, -1]
    assert labels.tolist() == [1, 1, 1, 2, 2, -1]


def test_labels_of_other_points_are_refused():
    with pytest.raises(InputError, match="among 4 points"):
        panoptic(Objects.of(4, [], [], []), np.zeros(3, int), INSTANCE_CLASS)
