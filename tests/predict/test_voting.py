"""Views and superpoints: laws that averaging and voting obey."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.errors import InputError
from lground.predict import mesh_superpoints, segment
from lground.predict.running import run
from lground.predict.views import views_of
from lground.predict.votes import Votes, vertex_groups
from lground.scans import Scan


def patches_of(scan: Scan) -> np.ndarray:
    """Floor and wall in tiles of 40 cm, some vertices in none."""
    tiles = np.floor(scan.points / 0.4).astype(np.int64) @ (1, 10, 100)
    return np.where(np.arange(len(scan)) % 17 == 0, -1, tiles)


@given(st.integers(2, 12), st.floats(0.01, 0.5))
def test_views_are_distinct_rigid_and_start_with_the_plain_one(count, voxel_size):
    views = views_of(count, voxel_size)
    np.testing.assert_array_equal(views[0].matrix, np.eye(3))
    np.testing.assert_array_equal(views[0].shift, 0)
    matrices = np.array([view.matrix for view in views])
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.tile(np.eye(3), (count, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(matrices[:, 2], np.tile([0.0, 0, 1], (count, 1)), atol=1e-12)  # upright
    assert (np.linalg.det(matrices) < 0).sum() == count // 2  # mirrored
    shifts = np.array([view.shift for view in views])
    assert (shifts >= 0).all() and (shifts < voxel_size).all() and len(np.unique(shifts[:, 0])) == count


def test_one_view_is_the_scan_as_it_is(classifier, scan):
    plain, one = segment(classifier, scan, features=True), segment(classifier, scan, features=True, views=1)
    for name in ("labels", "scores", "voxel_features"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(one, name))
    alone = segment(classifier, scan, superpoints=np.arange(len(scan)))  # every vertex its own superpoint
    np.testing.assert_array_equal(plain.labels, alone.labels)
    np.testing.assert_array_equal(plain.scores, alone.scores)


def test_views_average_the_probabilities_of_each_vertex(classifier, scan):
    result = segment(classifier, scan, views=3, features=True)
    total = 0
    for view in views_of(3, classifier.voxel_size):  # by hand: the scan itself turned and moved
        turned = Scan((scan.points + view.shift) @ view.matrix.T, scan.colors)
        voxels, logits, _ = run(classifier, turned)
        total = total + logits.softmax(1).numpy()[voxels.inverse] / 3
    np.testing.assert_allclose(result.scores, total.max(1), rtol=1e-4)
    assert (total[np.arange(len(scan)), result.labels] > total.max(1) - 1e-5).all()
    plain = segment(classifier, scan, features=True)
    np.testing.assert_array_equal(result.voxel_features, plain.voxel_features)
    assert np.abs(result.scores - plain.scores).max() > 1e-4
    again = segment(classifier, scan, views=3)
    np.testing.assert_array_equal(again.scores, result.scores)


@pytest.mark.parametrize("views", [1, 3])
def test_the_vertices_of_a_superpoint_share_the_best_mean(classifier, scan, views):
    patches = patches_of(scan)
    result = segment(classifier, scan, views=views, superpoints=patches)
    each = segment(classifier, scan, views=views)
    for patch in np.unique(patches[patches >= 0]):
        members = patches == patch
        assert len(np.unique(result.labels[members])) == len(np.unique(result.scores[members])) == 1
    none = patches < 0
    np.testing.assert_array_equal(result.labels[none], each.labels[none])
    np.testing.assert_array_equal(result.scores[none], each.scores[none])
    assert (result.scores >= 0).all() and (result.scores <= 1).all()
    renamed = segment(classifier, scan, views=views, superpoints=np.where(none, -1, patches * 1000 + 7))
    np.testing.assert_array_equal(result.labels, renamed.labels)


def test_a_permutation_of_vertices_permutes_the_answer(classifier, scan):
    grey = Scan(
        scan.points, np.full((len(scan), 3), 90, np.uint8)
    )  # else another vertex may speak for a voxel
    order = np.random.default_rng(0).permutation(len(scan))
    patches = patches_of(scan)
    before = segment(classifier, grey, views=2, superpoints=patches)
    after = segment(classifier, Scan(grey.points[order], grey.colors), views=2, superpoints=patches[order])
    np.testing.assert_allclose(after.scores, before.scores[order], rtol=1e-3)
    assert (after.labels == before.labels[order]).mean() > 0.99  # all but ties


def test_a_constant_classifier_stays_constant(classifier, scan, monkeypatch):
    logits = torch.tensor([0.3, -1.0, 2.0, 0.1])
    monkeypatch.setattr(
        type(classifier), "forward", lambda self, x: (logits.expand(len(x.features), 4), x.features)
    )
    plain = segment(classifier, scan)
    voted = segment(classifier, scan, views=5, superpoints=patches_of(scan))
    np.testing.assert_array_equal(voted.labels, plain.labels)
    np.testing.assert_allclose(voted.scores, plain.scores, rtol=1e-5)


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 9), st.integers(1, 4), st.integers(0, 999))
def test_means_are_probabilities(vertices, voxels, classes, views, seed):
    rng = np.random.default_rng(seed)
    superpoints = rng.integers(-1, 6, vertices)
    group = vertex_groups(vertices, superpoints)
    votes = Votes(group, classes)
    expected = np.zeros((vertices, classes))
    for _ in range(views):
        logits = torch.from_numpy(rng.normal(0, 4, (voxels, classes)))
        inverse = rng.integers(0, voxels, vertices)
        votes.add(logits, inverse)
        expected += logits.softmax(1).numpy()[inverse] / views
    means = votes.sums / (views * np.bincount(group))[:, None]
    labels, scores = votes.winners()
    np.testing.assert_allclose(means.sum(1), 1, rtol=1e-5)
    assert (scores >= 0).all() and (scores <= 1).all()
    np.testing.assert_allclose(means[group].max(1), scores, rtol=1e-6)
    np.testing.assert_array_equal(means.argmax(1)[group], labels)
    for vertex in range(vertices):  # the vertices that are one with it, told without `vertex_groups`
        one = (
            superpoints == superpoints[vertex] if superpoints[vertex] >= 0 else np.arange(vertices) == vertex
        )
        np.testing.assert_array_equal(group == group[vertex], one)
        np.testing.assert_allclose(means[group[vertex]], expected[one].mean(0), rtol=1e-4, atol=1e-6)


def test_blocks_do_not_change_the_sums(monkeypatch):
    rng = np.random.default_rng(0)
    logits, inverse = torch.from_numpy(rng.normal(size=(30, 5))), rng.integers(0, 30, 200)
    whole, parts = (Votes(vertex_groups(200, None), 5) for _ in range(2))
    whole.add(logits, inverse)
    monkeypatch.setattr("lground.predict.votes.BLOCK", 35)
    parts.add(logits, inverse)
    np.testing.assert_array_equal(whole.sums, parts.sums)


def test_a_mesh_is_cut_where_it_bends(scan):
    patches = mesh_superpoints(scan)
    half = len(scan) // 2  # floor, then wall: two sheets that share no vertex
    assert not set(patches[:half]) & set(patches[half:])
    flat = scan.points[:half, 1] > 0.2
    assert len(np.unique(patches[:half][flat])) == 1
    # One sheet folded along x = 1: a cut there.
    side = np.arange(20) * 0.1
    x, y = (a.ravel() for a in np.meshgrid(side, side, indexing="ij"))
    folded = np.c_[np.minimum(x, 1), y, np.maximum(x - 1, 0)]
    corner = (np.arange(19)[:, None] * 20 + np.arange(19)).ravel()
    faces = np.concatenate(
        [np.c_[corner, corner + 20, corner + 1], np.c_[corner + 20, corner + 21, corner + 1]]
    )
    ids = mesh_superpoints(Scan(folded.astype(np.float32), None, faces))
    assert set(ids[x < 0.85]).isdisjoint(ids[x > 1.15])
    with pytest.raises(InputError, match="no faces"):
        mesh_superpoints(Scan(scan.points))


def test_refusals(classifier, scan):
    for wrong in (np.zeros(3, int), np.zeros(len(scan))):
        with pytest.raises(InputError, match="belong to another scan"):
            segment(classifier, scan, superpoints=wrong)
    with pytest.raises(InputError, match="--views 0"):
        segment(classifier, scan, views=0)


def test_no_memory_for_the_votes(classifier, scan, monkeypatch):
    monkeypatch.setattr("lground.scans.raw.available_memory", lambda: 1000)
    with pytest.raises(InputError, match="voting over 3200 vertices"):
        segment(classifier, scan, views=2)
