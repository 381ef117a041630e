"""Descriptions of objects: boxes that hold their points, counts that add up."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lground.instances import Objects
from lground.predict import found_objects, oriented_box, segment, write_objects
from lground.scans import Scan


@st.composite
def point_sets(draw):
    """Clouds, sheets, lines and single points, with repetitions, anywhere in a room."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, dimensions = draw(st.integers(1, 40)), draw(st.integers(0, 3))
    if draw(st.booleans()):  # on a grid, where many corners are in line
        points = rng.integers(-4, 5, (count, dimensions)) * 0.25
    else:
        points = rng.normal(0, draw(st.sampled_from([1e-3, 0.3, 5])), (count, dimensions))
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0] if draw(st.booleans()) else np.eye(3)
    return points @ axes[:dimensions] + rng.uniform(-20, 20, 3)


def inside(box, points):
    """The points in the frame of the box, from -1 to 1 along each of its sides."""
    cos, sin = np.cos(box.yaw), np.sin(box.yaw)
    x, y, z = (points - box.center).T
    return np.abs([x * cos + y * sin, y * cos - x * sin, z]) - box.size[:, None] / 2


@given(point_sets())
def test_a_box_holds_its_points_and_touches_them(points):
    box = oriented_box(points)
    outside = inside(box, points)
    assert outside.max() < 1e-9
    np.testing.assert_allclose(outside.max(axis=1), 0, atol=1e-9)  # no side could move in
    assert box.size[0] >= box.size[1] and -np.pi / 2 <= box.yaw < np.pi / 2


@given(point_sets())
def test_a_box_is_the_smallest(points):
    box = oriented_box(points)
    area, height = np.prod(box.size[:2]), np.ptp(points[:, 2])
    assert box.size[2] == pytest.approx(height)
    extent = np.ptp(points - points.mean(axis=0), axis=0)
    assert np.prod(box.size) <= np.prod(extent) * (1 + 1e-9) + 1e-12
    for angle in np.linspace(0, np.pi / 2, 60):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        assert area <= np.prod(np.ptp(points[:, :2] @ turn, axis=0)) + 1e-9


@given(point_sets(), st.floats(-np.pi, np.pi), st.integers(0, 999))
def test_a_box_moves_and_turns_with_its_points(points, angle, seed):
    shift = np.random.default_rng(seed).uniform(-50, 50, 3)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    before, moved, turned = (oriented_box(p) for p in (points, points + shift, points @ turn.T))
    area = np.prod(before.size[:2])  # of several smallest rectangles any may be taken
    assert np.prod(moved.size[:2]) == pytest.approx(area, abs=1e-9)
    assert np.prod(turned.size[:2]) == pytest.approx(area, abs=1e-9)
    assert inside(moved, points + shift).max() < 1e-9 and inside(turned, points @ turn.T).max() < 1e-9


@given(st.floats(-1.57, 1.57), st.floats(1.1, 4), st.floats(0.2, 1))
def test_a_turned_box_is_found_again(yaw, length, width):
    corners = (
        np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * (length, width, 1) / 2
    )
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y, z = corners.T
    box = oriented_box(np.stack([x * cos - y * sin + 3, x * sin + y * cos - 4, z + 1], axis=1))
    np.testing.assert_allclose(box.size, (length, width, 1), rtol=1e-6)
    np.testing.assert_allclose(box.center, (3, -4, 1), atol=1e-9)
    assert np.sin(box.yaw - yaw) == pytest.approx(0, abs=1e-6)


def test_one_vertex_and_lines():
    one = oriented_box(np.array([[1.0, 2, 3]]))
    np.testing.assert_array_equal(one.center, [1, 2, 3])
    np.testing.assert_array_equal(one.size, 0)
    line = oriented_box(np.outer(np.linspace(0, 1, 1000), [3.0, 4, 1]))
    np.testing.assert_allclose(line.size, [5, 0, 1], atol=1e-12)
    assert line.yaw == pytest.approx(np.arctan2(4, 3))
    pole = oriented_box(np.array([[1.0, 2, 0], [1, 2, 5]]))
    np.testing.assert_array_equal(pole.size, [0, 0, 5])


@pytest.fixture
def result(pointing, scan):
    """Two objects that share vertices, one that is all another's, one of a single vertex."""
    members = [np.arange(10), np.arange(6, 12), np.arange(2, 5), np.array([99])]
    objects = Objects.of(len(scan), members, [2, 3, 2, 3], [0.9, 0.8, 0.5, 0.4])
    return replace(segment(pointing, scan), objects=objects)


def test_objects_are_described_as_the_ply_counts_them(result, scan):
    offset = np.array([4e6, 0, -7])
    far = Scan(scan.points, scan.colors, scan.faces, offset=offset)
    found = found_objects(far, result)
    # Of the second a third is free, of the third nothing: each vertex is one object's.
    assert [entry.id for entry in found] == [0, 3]
    for entry in found:
        own = scan.points[result.instances == entry.id].astype(np.float64) + offset
        assert entry.vertices == len(own) == {0: 10, 3: 1}[entry.id]
        np.testing.assert_allclose(entry.centroid, own.mean(axis=0), atol=1e-8)
        np.testing.assert_allclose([entry.low, entry.high], [own.min(axis=0), own.max(axis=0)], atol=1e-8)
        assert inside(entry.oriented_box, own).max() < 1e-8
        assert entry.superpoints is None and "superpoints" not in entry.as_dict()
    assert [(e.name, e.label, e.class_id) for e in found] == [("chair", 2, 3), ("lamp", 3, 4)]


def test_superpoints_of_which_an_object_has_most(result, scan):
    patches = np.full(len(scan), -1)
    patches[:4], patches[4:7], patches[7:14], patches[99:101] = 2**40, 7, 3, 5
    found = found_objects(scan, result, patches)
    assert [entry.superpoints for entry in found] == [[7, 2**40], []]  # 3 of 7, and 1 of 2: no more than half


def test_no_object_is_an_empty_list(result, scan, tmp_path):
    nothing = replace(result, objects=result.objects.select(np.zeros(4, bool)))
    for patches in (None, np.zeros(len(scan), int)):
        write_objects(found_objects(scan, nothing, patches), tmp_path / "o.json")
        assert json.loads((tmp_path / "o.json").read_text()) == []


def test_an_object_without_class_has_no_name(result, scan):
    unnamed = replace(result, objects=replace(result.objects, labels=np.full(4, -1)))
    assert {(e.name, e.label, e.class_id) for e in found_objects(scan, unnamed)} == {("object", -1, -1)}
