"""Suppression and snapping against sets of points, one object after another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lground.instances import Objects
from lground.instances.masks import join, overlaps, snap, suppress


@st.composite
def some_objects(draw):
    """Objects with points, of which many share some and several have equal scores."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, number = draw(st.integers(1, 30)), draw(st.integers(0, 8))
    masks = rng.random((number, count)) < rng.random((number, 1))
    masks[np.arange(number), rng.integers(0, count, number)] = True
    if number > 1 and draw(st.booleans()):
        masks[1] = masks[0]
    return Objects.from_masks(masks, rng.integers(0, 3, number), rng.choice([0.1, 0.5, 0.9], number))


def sets(objects: Objects) -> list[set[int]]:
    return [set(objects.points_of(k).tolist()) for k in range(len(objects))]


@given(some_objects())
def test_overlaps_are_intersections_over_unions(objects):
    expected = [[len(a & b) / len(a | b) for b in sets(objects)] for a in sets(objects)]
    assert overlaps(objects).toarray().tolist() == expected


@given(some_objects(), st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0]))
def test_suppress_keeps_what_no_better_object_covers(objects, max_iou):
    masks, kept = sets(objects), []
    for k in sorted(range(len(objects)), key=lambda k: (-objects.scores[k], k)):
        if all(len(masks[k] & masks[j]) / len(masks[k] | masks[j]) <= max_iou for j in kept):
            kept.append(k)
    found = suppress(objects, max_iou)
    assert sets(found) == [masks[k] for k in kept]
    assert found.labels.tolist() == objects.labels[kept].tolist()
    assert found.scores.tolist() == objects.scores[kept].tolist()


@given(some_objects(), st.integers(0, 2**32 - 1))
def test_snap_takes_superpoints_held_by_more_than_half(objects, seed):
    superpoints = np.random.default_rng(seed).choice([-1, 3, 4, 2**40, 7], objects.count)
    patches = [set(np.flatnonzero(superpoints == k).tolist()) for k in (3, 4, 2**40, 7)]
    patches += [{k} for k in np.flatnonzero(superpoints == -1).tolist()]
    expected = [
        set().union(*(patch for patch in patches if 2 * len(patch & mask) > len(patch)))
        for mask in sets(objects)
    ]
    found = snap(objects, superpoints)
    assert sets(found) == expected
    assert found.labels.tolist() == objects.labels.tolist()
    assert found.scores.tolist() == objects.scores.tolist()


@given(some_objects())
def test_joined_parts_are_the_whole(objects):
    middle = len(objects) // 2
    whole = join([objects.select(slice(middle)), objects.select(slice(middle, None))])
    for name in ("starts", "members", "labels", "scores"):
        assert getattr(whole, name).tolist() == getattr(objects, name).tolist()
        assert getattr(whole, name).dtype == getattr(objects, name).dtype
