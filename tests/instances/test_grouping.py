"""From offsets to objects: what is found in scenes that are known, and a slow statement of the whole."""

import subprocess
import sys
from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lground.errors import InputError
from lground.instances import Grouping, Objects, find_objects

INSTANCE_CLASS = np.array([False, True, True, True])  # class 0: wall
CERTAIN = 0.9 * np.eye(4, dtype=np.float32) + 0.025


def sheet(x: float, y: float, width: int = 10, depth: int = 10) -> np.ndarray:
    """Points 2 cm apart from (x, y) on."""
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(depth), [0]), axis=-1).reshape(-1, 3)
    return (grid * 0.02 + [x, y, 0]).astype(np.float32)


def scene(*objects: tuple[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[set[int]]]:
    """Points, true offsets and probabilities of (class, points) objects, and the points of each."""
    points = np.concatenate([part for _, part in objects])
    offsets = np.concatenate([part.mean(axis=0) - part for _, part in objects])
    labels = np.repeat([label for label, _ in objects], [len(part) for _, part in objects])
    ends = np.cumsum([0, *(len(part) for _, part in objects)])
    return points, offsets, CERTAIN[labels], [set(range(*pair)) for pair in pairwise(ends)]


def sets(objects: Objects) -> list[set[int]]:
    return [set(objects.points_of(k).tolist()) for k in range(len(objects))]


def test_objects_apart_are_found_and_walls_are_not():
    points, offsets, probabilities, truth = scene(
        (1, sheet(0, 0)), (0, sheet(0.5, 0)), (1, sheet(1, 0)), (2, sheet(2, 0))
    )
    found = find_objects(points, offsets, probabilities, INSTANCE_CLASS)
    assert sets(found) == [truth[0], truth[2], truth[3]]
    assert found.labels.tolist() == [1, 1, 2] and found.count == 400
    assert found.scores.tolist() == pytest.approx([0.925] * 3, abs=1e-5)


def test_chairs_that_touch_are_two():
    points, offsets, probabilities, truth = scene((1, sheet(0, 0, 20)), (1, sheet(0.4, 0, 20)))
    assert sets(find_objects(points, offsets, probabilities, INSTANCE_CLASS)) == truth
    (both,) = sets(find_objects(points, offsets * 0, probabilities, INSTANCE_CLASS))
    assert both == truth[0] | truth[1]


def test_a_table_seen_in_two_parts_is_one():
    """The score decides: both parts are as purely a table as the whole is."""
    points, offsets, probabilities, truth = scene((1, np.concatenate([sheet(0, 0), sheet(0.5, 0)])))
    probabilities[:100, 1] = 0.97  # the left part is the purest of all
    assert sets(find_objects(points, offsets, probabilities, INSTANCE_CLASS)) == truth
    assert len(find_objects(points, offsets * 0, probabilities, INSTANCE_CLASS)) == 2


def test_touching_things_of_two_classes_are_two():
    points, offsets, probabilities, truth = scene((1, sheet(0, 0)), (2, sheet(0.2, 0)))
    found = find_objects(points, offsets, probabilities, INSTANCE_CLASS)
    assert sorted(map(sorted, sets(found))) == sorted(map(sorted, truth))


def test_superpoints_mend_an_edge():
    points, offsets, probabilities, truth = scene((1, sheet(0, 0, 20)), (0, sheet(0.4, 0, 20)))
    superpoints = np.repeat([5, 6], 200)
    probabilities[:7] = CERTAIN[0]  # a corner taken for wall
    probabilities[200:290] = CERTAIN[1]  # and less than half of the wall for the thing
    (cut,) = sets(find_objects(points, offsets * 0, probabilities, INSTANCE_CLASS))
    assert cut != truth[0]
    found = find_objects(points, offsets * 0, probabilities, INSTANCE_CLASS, superpoints=superpoints)
    assert sets(found) == truth[:1]
    probability = (193 * 0.925 + 7 * 0.025) / 200
    assert found.scores[0] == pytest.approx(probability * np.exp(-0.1), abs=1e-6)  # the offsets say nothing


@pytest.mark.parametrize("superpoints", [None, True])
@pytest.mark.parametrize("count", [0, 1])
def test_scenes_with_next_to_nothing(count, superpoints):
    points = np.zeros((count, 3), np.float32)
    superpoints = superpoints and np.zeros(count, np.int32)
    for label, number in ((0, 0), (1, count)):
        found = find_objects(
            points,
            points,
            CERTAIN[np.full(count, label)],
            INSTANCE_CLASS,
            Grouping(min_points=1),
            superpoints=superpoints,
        )
        assert len(found) == number and found.count == count
        assert found.scores.dtype == np.float32 and found.labels.dtype == np.int64
    assert len(find_objects(points, points, CERTAIN[np.full(count, 1)], INSTANCE_CLASS)) == 0  # too small


def test_most_objects_and_least_score():
    points, offsets, probabilities, truth = scene(*((1, sheet(k, 0)) for k in range(5)))
    probabilities[:, 1] = np.repeat([0.6, 0.9, 0.5, 0.8, 0.7], 100)

    def found(**changes):
        return sets(find_objects(points, offsets, probabilities, INSTANCE_CLASS, Grouping(**changes)))

    assert found() == [truth[k] for k in (1, 3, 4, 0, 2)]
    assert found(max_objects=2) == [truth[1], truth[3]]
    assert found(min_score=0.65) == [truth[k] for k in (1, 3, 4)]
    assert found(min_points=101) == []


def slowly(
    points, offsets, probabilities, grouping, superpoints, slow_groups
) -> list[tuple[set[int], int, float]]:
    """`find_objects` as it is described, object by object: points, label and score of each."""
    labels = [int(np.argmax(row)) for row in probabilities]
    grouped = np.array([label if INSTANCE_CLASS[label] else -1 for label in labels], dtype=np.int64)
    proposals = []
    for places in (points, points + offsets):
        groups = slow_groups(places, grouped, grouping.radius)
        proposals += [set(np.flatnonzero(groups == k).tolist()) for k in range(groups.max(initial=-1) + 1)]
    proposals = [(mask, labels[min(mask)]) for mask in proposals if len(mask) >= grouping.min_points]
    if superpoints is not None:
        patches = [set(np.flatnonzero(superpoints == k).tolist()) for k in np.unique(superpoints) if k >= 0]
        patches += [{k} for k in np.flatnonzero(superpoints < 0).tolist()]
        proposals = [
            (set().union(*(p for p in patches if 2 * len(p & mask) > len(p))), label)
            for mask, label in proposals
        ]
    scored = []
    for mask, label in proposals:
        if len(mask) < grouping.min_points:
            continue
        rows = sorted(mask)
        places = points[rows].astype(np.float64)
        extent = np.sqrt(((places - places.mean(0)) ** 2).sum(1).mean())
        missed = np.linalg.norm(offsets[rows].astype(np.float64).mean(0))
        spread = np.sqrt(((places + offsets[rows] - places.mean(0)) ** 2).sum(1).mean())
        score = probabilities[rows, label].astype(np.float64).mean()
        score *= np.exp(-(missed + 0.1 * spread) / max(extent, grouping.radius))
        if score >= grouping.min_score:
            scored.append((mask, label, score))
    kept = []
    for mask, label, score in sorted(scored, key=lambda found: -np.float32(found[2])):
        if all(len(mask & other) / len(mask | other) <= grouping.max_iou for other, _, _ in kept):
            kept.append((mask, label, score))
    return kept[: grouping.max_objects]


@st.composite
def predictions(draw):
    """Points, offsets and probabilities of a few things, more or less well predicted."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 100))
    owner = rng.integers(0, 4, count)
    centers = rng.random((4, 3)) * 0.3
    points = (centers[owner] + rng.normal(size=(count, 3)) * 0.03).astype(np.float32)
    offsets = ((centers[owner] - points) * 0.9 + rng.normal(size=(count, 3)) * 0.005).astype(np.float32)
    logits = rng.normal(size=(count, 4))
    logits[np.arange(count), rng.integers(0, 4, 4)[owner]] += 3
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    superpoints = rng.integers(-1, 6, count) if draw(st.booleans()) else None
    return points, offsets, probabilities.astype(np.float32), superpoints


groupings = st.builds(
    Grouping,
    radius=st.sampled_from([0.02, 0.03, 0.05]),
    min_points=st.integers(1, 8),
    max_iou=st.sampled_from([0.0, 0.3, 0.7]),
    min_score=st.sampled_from([0.0, 0.4]),
    max_objects=st.sampled_from([3, 500]),
)


@given(predictions(), groupings)
def test_equals_the_description_object_by_object(slow_groups, case, grouping):
    *arrays, superpoints = case
    found = find_objects(*arrays, INSTANCE_CLASS, grouping, superpoints=superpoints)
    expected = slowly(*arrays, grouping, superpoints, slow_groups)
    assert sets(found) == [mask for mask, _, _ in expected]
    assert found.labels.tolist() == [label for _, label, _ in expected]
    assert found.scores == pytest.approx([score for _, _, score in expected], rel=1e-6)
    assert all((np.diff(found.points_of(k)) > 0).all() for k in range(len(found)))


@given(predictions(), groupings, st.randoms(use_true_random=False))
def test_the_order_of_points_does_not_matter(case, grouping, random):
    *arrays, superpoints = case
    order = np.array(random.sample(range(len(arrays[0])), len(arrays[0])))
    found = find_objects(*arrays, INSTANCE_CLASS, grouping, superpoints=superpoints)
    permuted = find_objects(
        *(array[order] for array in arrays),
        INSTANCE_CLASS,
        grouping,
        superpoints=None if superpoints is None else superpoints[order],
    )
    assert [set(order[list(mask)].tolist()) for mask in sets(permuted)] == sets(found)
    assert permuted.labels.tolist() == found.labels.tolist()
    assert permuted.scores == pytest.approx(found.scores, rel=1e-6)


def test_defaults_follow_the_voxels():
    assert Grouping.for_voxels(0.02) == Grouping()
    coarse = Grouping.for_voxels(0.05, max_iou=0.5)
    assert astuple(coarse) == (pytest.approx(0.075), 8, 0.5, Grouping.min_score, Grouping.max_objects)
    assert Grouping.for_voxels(1.0).min_points == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"radius": 0},
        {"radius": np.nan},
        {"min_points": 0},
        {"max_objects": 0},
        {"max_iou": 1.1},
        {"min_score": -0.1},
    ],
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(InputError, match=f"grouping.{next(iter(wrong))}="):
        Grouping(**wrong)
    with pytest.raises(InputError, match=f"grouping.{next(iter(wrong))}="):
        Grouping.for_voxels(0.05, **wrong)


def test_impossible_voxels_are_refused():
    with pytest.raises(InputError, match="voxel size 0"):
        Grouping.for_voxels(0)


@pytest.mark.parametrize("name", ["offsets", "probabilities", "superpoints"])
def test_arrays_that_do_not_fit_are_refused(name):
    arrays = {"points": np.zeros((3, 3)), "offsets": np.zeros((3, 3)), "probabilities": CERTAIN[[1, 1, 1]]}
    arrays |= {"superpoints": np.zeros(3, int)}
    with pytest.raises(InputError, match=f"{name} of shape"):
        find_objects(**arrays | {name: arrays[name][:2]}, instance_class=INSTANCE_CLASS)


def test_damaged_offsets_are_refused():
    offsets = np.zeros((3, 3))
    offsets[1, 2] = np.inf
    with pytest.raises(InputError, match="offsets are NaN or infinite"):
        find_objects(np.zeros((3, 3)), offsets, CERTAIN[[1, 1, 1]], INSTANCE_CLASS)


MILLION = """
import numpy as np
from lground.instances import Grouping, find_objects
rng = np.random.default_rng(0)
count = 1_000_000
owner = np.arange(count) % 200
centers = np.stack([owner % 20, owner // 20, owner * 0], axis=1).astype(np.float32)
points = (centers + rng.random((count, 3), dtype=np.float32) * np.float32([0.8, 0.8, 0.02]))
offsets = (centers + np.float32([0.4, 0.4, 0.01]) - points) + rng.normal(0, 0.01, (count, 3)).astype(np.float32)
probabilities = np.full((count, 200), 0.1 / 199, dtype=np.float32)
probabilities[np.arange(count), owner % 10] = 0.9
found = find_objects(points, offsets, probabilities, np.arange(200) > 1, superpoints=owner)
print(len(found), found.sizes.min(), found.sizes.max())
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))  # the most memory it held
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_million_points_within_four_gigabytes():
    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *found, _, kilobytes, _ = done.stdout.split()
    assert found == ["160", "5000", "5000"]
    assert int(kilobytes) * 1024 < 4e9
