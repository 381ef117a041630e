"""A scene looks scanned: surfaces that nothing saw are missing, and the annotation goes by segments."""

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lground.synth import make_scene
from lground.synth.fusion import Mesh, edges_of, extract, fill
from lground.synth.materials import ceramic
from lground.synth.oversegment import min_vertices, oversegment
from lground.synth.parts import box
from lground.synth.scannet_format import classes
from lground.synth.sensor import look


def aligned(scene):
    return scene.points @ scene.alignment[:3, :3].T + scene.alignment[:3, 3]


def test_arrays_belong_together(scenes):
    for scene in scenes:
        count = len(scene.points)
        assert 3000 < count < 80000
        assert scene.points.dtype == np.float32 and np.isfinite(scene.points).all()
        assert scene.colors.shape == (count, 3) and scene.colors.dtype == np.uint8
        assert scene.faces.min() == 0 and scene.faces.max() == count - 1
        assert scene.segments.shape == scene.objects.shape == (count,)


def test_vertices_are_about_spacing_apart():
    scene = make_scene(1, 0, "small", 0.04)
    edges = edges_of(scene.faces, len(scene.points))
    length = np.linalg.norm(scene.points[edges[:, 0]] - scene.points[edges[:, 1]], axis=1)
    assert 0.03 < np.median(length) < 0.065
    assert np.percentile(length, 95) > 1.8 * np.percentile(length, 20)  # uneven


def test_alignment_undoes_the_turn(scenes):
    turned = 0
    for scene in scenes:
        assert scene.alignment[:3, :3] @ scene.alignment[:3, :3].T == pytest.approx(np.eye(3), abs=1e-5)
        names = np.array(scene.names)[scene.objects]
        normals = Mesh(aligned(scene).astype(np.float32), scene.faces, scene.objects).normals()[
            names == "wall"
        ]
        along = np.abs(normals[:, :2]).max(axis=1) > 0.94
        assert along.mean() > 0.8  # walls look along x or y once aligned
        raw = Mesh(scene.points, scene.faces, scene.objects).normals()[names == "wall"]
        turned += (np.abs(raw[:, :2]).max(axis=1) > 0.94).mean() < along.mean() - 0.3
        floor = aligned(scene)[names == "floor"][:, 2]
        assert abs(np.median(floor)) < 0.02
    assert turned >= 3  # the others happen to be turned by nearly a right angle


def test_segments_are_connected_and_not_small(scenes):
    for scene in scenes:
        count = len(scene.points)
        edges = edges_of(scene.faces, count)
        inner = edges[scene.segments[edges[:, 0]] == scene.segments[edges[:, 1]]]
        graph = coo_matrix((np.ones(len(inner)), inner.T), shape=(count, count))
        pieces, _ = connected_components(graph, directed=False)
        _, size = np.unique(scene.segments, return_counts=True)
        assert pieces == len(size)
        assert size.min() >= min_vertices(0.05)


def test_annotation_goes_by_segments(scenes):
    wrong = total = 0
    for scene in scenes:
        ids = set(scene.segments.tolist())
        used = [segment for _, segments in scene.groups for segment in segments]
        assert len(used) == len(set(used)) and set(used) <= ids
        class_of = {word: name for name, (_, words) in classes().items() for word in words}
        label = {segment: class_of[word] for word, segments in scene.groups for segment in segments}
        given = np.array([label.get(segment, "") for segment in scene.segments.tolist()])
        true = np.array(scene.names)[scene.objects]
        wrong += ((given != true) & (given != "")).sum()
        total += len(true)
    assert wrong / total < 0.06  # coarse meshes; finer ones do better


def test_some_objects_are_not_annotated():
    groups = objects = 0
    for index in range(8):
        scene = make_scene(11, index, "small", 0.08)
        groups += len(scene.groups)
        objects += len(np.unique(scene.objects))
    assert 0.7 < groups / objects < 1.0


def test_nobody_sees_the_underside(scenes):
    down = up = 0
    for scene in scenes:
        points = aligned(scene).astype(np.float32)
        normals = Mesh(points, scene.faces, scene.objects).normals()
        low = (points[:, 2] > 0.1) & (points[:, 2] < 0.5)
        down += (low & (normals[:, 2] < -0.9)).sum()
        up += (low & (normals[:, 2] > 0.9)).sum()
    assert down < 0.1 * up


def test_a_screen_hides_what_is_behind_it():
    white = ceramic(np.random.default_rng(0))
    parts = [box((2, 0.1, 2), (0, 1.0, -1), white), box((0.6, 0.1, 0.6), (0, 2.0, -0.3), white)]
    mesh = extract(fill(parts, np.array([-1.23, 0.77, -1.23]), np.array([1.27, 2.27, 1.27]), 0.05))
    seen, nearest = look(np.random.default_rng(0), mesh, np.zeros((1, 3)), 0.05, up=1.5)
    assert (seen[mesh.part == 0] > 0).mean() > 0.3
    assert (seen[mesh.part == 1] == 0).all()
    assert nearest[seen > 0].min() == pytest.approx(0.95, abs=0.05)


def test_oversegmentation_finds_the_faces_of_a_box():
    white = ceramic(np.random.default_rng(0))
    mesh = extract(fill([box((1, 0.8, 0.6), (0, 0, 0), white)], np.full(3, -0.63), np.full(3, 0.83), 0.02))
    segments = oversegment(mesh.points, mesh.faces, mesh.normals(), 0.05, 20)
    normals = mesh.normals()
    for axis in range(3):
        for sign in (-1, 1):
            _, size = np.unique(segments[sign * normals[:, axis] > 0.999], return_counts=True)
            assert size.max() > 0.95 * size.sum()
    assert np.array_equal(segments, oversegment(mesh.points, mesh.faces, mesh.normals(), 0.05, 20))


def test_colour_does_not_give_the_class_away(scenes):
    chairs = [
        scene.colors[scene.objects == number].mean(axis=0)
        for scene in scenes
        for number, name in enumerate(scene.names)
        if name == "chair" and (scene.objects == number).sum() > 30
    ]
    assert np.std(chairs, axis=0).min() > 15
