"""Objects of a scan: those of its voxels, on vertices, from one view or several."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lground.errors import InputError
from lground.instances import Grouping, find_objects, panoptic
from lground.predict import found_classes, object_colors, segment
from lground.predict.running import run, softmax
from lground.predict.views import View, views_of
from lground.scans import Scan

SIZE = 0.1  # metres, of the fixture's voxels


def same(a, b):
    """Whether two sets of objects are equal, score for score."""
    np.testing.assert_array_equal(a.masks.toarray(), b.masks.toarray())
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-4)


def tiles(scan: Scan) -> np.ndarray:
    """Superpoints of 42 cm, whose borders cross voxels; some vertices are in none."""
    ids = np.floor(scan.points / 0.42).astype(np.int64) @ (1, 10, 100)
    return np.where(np.arange(len(scan)) % 17 == 0, -1, ids)


def test_objects_are_those_of_the_voxels(pointing, scan):
    result = segment(pointing, scan, instances=True)
    voxels, offsets, logits, _ = run(pointing, scan, forward=pointing.with_offsets)
    centers = (voxels.coordinates + 0.5).astype(np.float32) * np.float32(SIZE)
    assert np.abs(scan.points - centers[voxels.inverse]).max() <= SIZE / 2 + 1e-6
    probabilities = logits.softmax(1).numpy()
    found = find_objects(
        centers, offsets.numpy(), probabilities, pointing.label_set.instance_class, Grouping.for_voxels(SIZE)
    )
    same(result.objects, found.on_vertices(voxels.inverse))
    assert len(found) > 5 and set(found.labels) == {2, 3}  # wall and floor are no objects
    np.testing.assert_array_equal(result.labels, segment(pointing, scan).labels)
    np.testing.assert_array_equal(result.scores, segment(pointing, scan).scores)


def test_objects_are_found_on_request_only(pointing, scan):
    assert segment(pointing, scan).objects is None
    few = segment(pointing, scan, instances=True, grouping=Grouping(radius=0.15, min_points=8))
    many = segment(pointing, scan, instances=True, grouping=Grouping(radius=0.15, min_points=1))
    assert 0 < len(few.objects) < len(many.objects)
    assert len(segment(pointing, scan, instances=True, grouping=Grouping(min_score=1)).objects) == 0


@given(st.integers(2, 9), st.integers(0, 8), st.integers(0, 999))
def test_a_view_is_undone(count, which, seed):
    view: View = views_of(count, SIZE)[which % count]
    points = np.random.default_rng(seed).normal(0, 5, (4, 3))
    np.testing.assert_allclose(view.undo((points + view.shift) @ view.matrix.T), points, atol=1e-12)


def test_views_agree_on_a_center(pointing, scan):
    """The mean of what the views point at, by hand: each view as a scan of its own."""
    result = segment(pointing, scan, instances=True, views=3)
    total, aims = 0, 0
    for view in views_of(3, SIZE):
        turned = Scan((scan.points + view.shift) @ view.matrix.T, scan.colors)
        voxels, offsets, logits, _ = run(pointing, turned, forward=pointing.with_offsets)
        ends = ((voxels.coordinates + 0.5) * SIZE + offsets.numpy())[voxels.inverse]
        aims = aims + (ends @ np.linalg.inv(view.matrix).T - view.shift) / 3
        total = total + logits.softmax(1).numpy()[voxels.inverse] / 3
    voxels, *_ = run(pointing, scan)
    centers, first = (voxels.coordinates + 0.5) * SIZE, voxels.index
    found = find_objects(
        centers.astype(np.float32),
        (aims[first] - centers).astype(np.float32),
        total[first],
        pointing.label_set.instance_class,
        Grouping.for_voxels(SIZE),
    )
    same(result.objects, found.on_vertices(voxels.inverse))
    assert len(found) > 5


@pytest.mark.parametrize("views", [1, 2])
def test_objects_are_made_of_whole_superpoints(pointing, scan, views):
    patches = tiles(scan)
    objects = segment(pointing, scan, instances=True, views=views, superpoints=patches).objects
    masks = objects.masks.toarray()
    assert len(objects) and (objects.sizes > 0).all()
    for patch in np.unique(patches[patches >= 0]):
        held = masks[:, patches == patch]
        np.testing.assert_array_equal(held.all(1), held.any(1))


def test_superpoints_of_one_vertex_change_nothing(pointing, scan):
    plain = segment(pointing, scan, instances=True)
    none = segment(pointing, scan, instances=True, superpoints=np.full(len(scan), -1))
    same(plain.objects, none.objects)


@pytest.mark.parametrize("views", [1, 2])
def test_labels_and_instances_of_the_ply_are_the_panoptic_answer(pointing, scan, views):
    """Each vertex is of one object, whose class it has, or stuff, or void; as `panoptic` has it."""
    result = segment(pointing, scan, instances=True, superpoints=tiles(scan), views=views)
    painted = result.paint(scan).extras
    label, instance = painted["label"], painted["instance"]
    things = pointing.label_set.instance_class
    expected, owner = panoptic(result.objects, result.labels, things)
    np.testing.assert_array_equal(instance, owner)
    np.testing.assert_array_equal(np.where(things[label] & (instance < 0), -1, label), expected)
    assert {0, 1} <= set(expected) and (instance >= 0).any()
    for number in np.unique(instance[instance >= 0]):
        assert set(label[instance == number]) == {result.objects.labels[number]}
    vertices = {entry.index: entry.vertices for entry in found_classes(scan, result)}
    assert vertices == {k: n for k, n in enumerate(np.bincount(label).tolist()) if n}


def test_every_vertex_is_of_one_object_at_most(pointing, scan):
    result = segment(pointing, scan, instances=True)
    classes = pointing.label_set.instance_class
    np.testing.assert_array_equal(result.instances, panoptic(result.objects, result.labels, classes)[1])
    painted = result.paint(scan)
    np.testing.assert_array_equal(painted.extras["instance"], result.instances)
    np.testing.assert_array_equal(painted.extras["label"], result.labels)
    assert painted.extras["instance"].dtype == np.int32
    looks = [result.instances, np.c_[result.instances, painted.colors], painted.colors]
    assert (
        len({len(np.unique(values, axis=0)) for values in looks}) == 1
    )  # a colour for each, and one for none
    assert len(np.unique(result.instances)) > 5


def test_colors_are_distinct_and_do_not_depend_on_the_number():
    colors = object_colors(600)
    assert len(np.unique(colors, axis=0)) == 601
    np.testing.assert_array_equal(object_colors(5)[:-1], colors[:5])
    np.testing.assert_array_equal(object_colors(0), colors[-1:])
    near = np.abs(colors[1:-1].astype(int) - colors[:-2]).sum(1)
    assert near.min() > 100  # neighbours in the list


def test_a_model_without_offsets_is_refused(classifier, scan):
    for views in (1, 2):
        with pytest.raises(InputError, match=r"Res16UNet14A does not tell objects apart.*lground instances"):
            segment(classifier, scan, instances=True, views=views)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 999))
def test_softmax_takes_the_memory_of_the_logits(rows, classes, seed):
    logits = torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))
    expected = logits.softmax(1)
    result = softmax(logits)
    assert torch.equal(result, expected) and result.data_ptr() == logits.data_ptr()
