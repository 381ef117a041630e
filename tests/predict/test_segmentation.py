"""Labels per vertex: exact maps, the model's own rules, and clear refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import lground as lg
from lground.errors import InputError
from lground.models import Model
from lground.predict import best_spot, choose_device, found_classes, load_model, query, segment
from lground.predict.running import bytes_per_voxel
from lground.scans import Scan
from lground.sparse import SparseTensor


def test_every_vertex_gets_its_voxels_answer(classifier, scan):
    result = segment(classifier, scan, features=True)
    assert result.labels.dtype == np.int64 and result.scores.dtype == np.float32
    cells = np.floor(scan.points.astype(np.float64) / classifier.voxel_size).astype(np.int64)
    unique, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    assert len(unique) < len(scan)
    # The network by hand: the colour of the first vertex of each voxel, rows in another order.
    colors = torch.from_numpy(scan.colors[first]).float() / 255 - 0.5
    coordinates = torch.from_numpy(np.pad(unique, ((0, 0), (1, 0))).astype(np.int32))
    with torch.no_grad():
        logits, features = classifier.network(SparseTensor(colors, coordinates))
    probability = logits.features.softmax(1).numpy()[inverse.ravel()]
    np.testing.assert_allclose(result.scores, probability.max(1), rtol=1e-4)
    assert (probability[np.arange(len(scan)), result.labels] > probability.max(1) - 1e-5).all()
    np.testing.assert_allclose(
        result.features, features.features.numpy()[inverse.ravel()], rtol=1e-3, atol=1e-5
    )


def test_a_pretrained_model_names_the_nearest_anchor(grounded, scan):
    result = segment(grounded, scan, features=True)
    anchors = torch.nn.functional.normalize(grounded.anchors, dim=1)
    cosines = torch.nn.functional.normalize(torch.from_numpy(result.features), dim=1) @ anchors.T
    np.testing.assert_array_equal(result.labels, cosines.argmax(1))


def test_a_query_for_a_class_name_is_its_anchor(grounded, scan):
    scores = query(grounded, scan, ["chair", "a lamp", "lamp"])
    assert scores.shape == (len(scan), 3) and scores.dtype == np.float32
    assert np.abs(scores).max() <= 1 + 1e-5 and scores.std() > 0
    features = torch.from_numpy(segment(grounded, scan, features=True).features)
    expected = torch.cosine_similarity(features, grounded.anchors[2:3])
    np.testing.assert_allclose(scores[:, 0], expected, atol=1e-4)


def test_moving_the_scan_by_whole_voxels_changes_nothing(classifier, scan):
    step = 16 * classifier.voxel_size  # whole at every level of the network
    moved = Scan(scan.points + np.array((2 * step, -step, 0)), scan.colors, scan.faces)
    before, after = segment(classifier, scan), segment(classifier, moved)
    np.testing.assert_array_equal(before.labels, after.labels)
    np.testing.assert_allclose(before.scores, after.scores, rtol=1e-4)


def test_found_classes_count_vertices_and_surface(classifier, scan):
    result = segment(classifier, scan)
    classes = found_classes(scan, result)
    assert sum(entry.vertices for entry in classes) == len(scan)
    assert sum(entry.share for entry in classes) == pytest.approx(1)
    assert {entry.name for entry in classes} == {
        classifier.label_set.names[k] for k in np.unique(result.labels)
    }
    cloud = found_classes(Scan(scan.points, scan.colors), result)
    voxel_labels = result.labels[result.voxels.index]
    for entry in cloud:
        assert entry.share == pytest.approx((voxel_labels == entry.index).mean())


def test_a_scan_may_hold_no_class_at_all(classifier, scan):
    """As where a list of words names nothing in it."""
    result = segment(classifier, scan)
    unknown = replace(result, labels=np.full_like(result.labels, -1))
    assert found_classes(scan, unknown) == []


def test_paint_keeps_the_scan_and_colours_it(classifier, scan):
    result = segment(classifier, scan)
    painted = result.paint(scan)
    np.testing.assert_array_equal(painted.faces, scan.faces)
    np.testing.assert_array_equal(painted.colors, classifier.label_set.colors[result.labels])
    assert set(painted.extras) == {"normals", "label", "score"} and set(scan.extras) == {"normals"}


def test_without_colours_grey_and_a_warning(classifier, scan, capsys):
    plain = segment(classifier, Scan(scan.points))
    assert "no colours" in capsys.readouterr().err
    assert len(plain.labels) == len(scan)


def test_larger_voxels(classifier, scan):
    fine, coarse = segment(classifier, scan), segment(classifier, scan, voxel_size=0.25)
    assert len(coarse.voxels.index) < len(fine.voxels.index) and len(coarse.labels) == len(scan)


def test_refusals(classifier, grounded, scan, monkeypatch):
    with pytest.raises(InputError, match="NaN"):
        segment(classifier, Scan(np.full((9, 3), np.nan)))
    with pytest.raises(InputError, match="not grounded in language"):
        query(classifier, scan, ["a lamp"])
    for texts in ([], [" "], "a lamp"):
        with pytest.raises(InputError, match="list of one or more texts"):
            query(grounded, scan, texts)
    monkeypatch.setattr("lground.scans.raw.available_memory", lambda: 10 * bytes_per_voxel(classifier))
    with pytest.raises(InputError, match="--voxel-size"):
        segment(classifier, scan)
    with pytest.raises(InputError, match="--device warp"):
        choose_device("warp")
    assert choose_device("cpu").type == "cpu"


def test_anchors_of_another_width(weights, grounded_weights, tmp_path):
    from lground.text import Anchors, save_anchors

    names = ("wall", "floor", "chair", "lamp")
    save_anchors(Anchors(torch.randn(4, 96), names, "minilm", "{}"), tmp_path / "fits.safetensors")
    assert load_model(weights, tmp_path / "fits.safetensors").grounding["encoder"] == "minilm"
    save_anchors(Anchors(torch.randn(4, 50), names, "minilm", "{}"), tmp_path / "narrow.safetensors")
    with pytest.raises(InputError, match=r"50 wide.*needs 96"):
        load_model(weights, tmp_path / "narrow.safetensors")
    with pytest.raises(InputError, match=r"meet no text.*RUN/before"):
        load_model(weights, tmp_path / "narrow.safetensors")
    with pytest.raises(InputError, match=r"50 wide.*needs 384.*text encoder"):
        load_model(grounded_weights, tmp_path / "narrow.safetensors")
    save_anchors(Anchors(torch.randn(2, 96), names[:2], "minilm", "{}"), tmp_path / "few.safetensors")
    with pytest.raises(InputError, match="chair"):
        load_model(weights, tmp_path / "few.safetensors")


def test_best_spot_is_the_connected_region_with_most_score():
    rng = np.random.default_rng(0)
    floor = np.column_stack([rng.uniform(0, 5, (20000, 2)), np.zeros(20000)])
    near = [
        np.linalg.norm(floor[:, :2] - place, axis=1) < radius
        for place, radius in (((1, 1), 0.5), ((4, 4), 0.2))
    ]
    scores = rng.normal(0, 0.01, 20000) + 0.1 + 0.3 * (near[0] | near[1])
    scan = Scan(floor, offset=[1000.0, 0, 0])
    spot = best_spot(scan, scores.astype(np.float32))
    np.testing.assert_allclose(spot.center, [1001, 1, 0], atol=0.05)
    assert spot.score == pytest.approx(0.4, abs=0.01)
    assert near[0][spot.vertices].all() and len(spot.vertices) > 0.9 * near[0].sum()
    assert len(best_spot(scan, np.zeros(20000, np.float32)).vertices) > 0  # nothing stands out


def test_public_names(weights, scan):
    model = lg.load_model(weights)
    assert isinstance(model, Model)
    assert lg.segment(model, scan).labels.shape == (len(scan),)
