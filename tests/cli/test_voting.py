"""`--views` and `--superpoints` as a user gives them, to `lground segment` and `lground evaluate`."""

import json
import shutil

import numpy as np
import pytest
import torch

from lground import predict
from lground.cli import main
from lground.labels import load_labels
from lground.metrics import semantic_scores
from lground.models import Model, save_model
from lground.scannet import list_scenes, open_scene
from lground.scans import Scan, read_scan, write_scan


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A made-up room raw and prepared, and a model with random weights."""
    folder = tmp_path_factory.mktemp("room")
    counts = "--train 0 --val 2 --test 0 --size small --spacing 0.1 --workers 1"
    assert main(["synth", str(folder / "raw"), *counts.split()]) == 0
    assert main(["prepare", str(folder / "raw"), str(folder / "data"), "--workers", "1"]) == 0
    torch.manual_seed(0)
    save_model(Model.fresh("Res16UNet14A", load_labels("scannet200"), 0.1), folder / "model.safetensors")
    return folder


def evaluated(room, out, *options):
    line = ["evaluate", room / "model.safetensors", room / "data", "--out", out, "--device", "cpu", *options]
    assert main([str(word) for word in line]) == 0
    return json.loads((out / "metrics.json").read_text())


def labelled(room, out, *options):
    name = "scene0000_00"
    scan = room / "raw" / "scans" / name / f"{name}_vh_clean_2.ply"
    line = ["segment", scan, "-m", room / "model.safetensors", "-o", out, "--device", "cpu", *options]
    assert main([str(word) for word in line]) == 0
    return read_scan(out)


def test_evaluate_with_votes_counts_what_segment_answers(room, tmp_path):
    model = predict.load_model(room / "model.safetensors")
    for number, (views, superpoints) in enumerate([(3, False), (1, True), (2, True)]):
        options = ["--views", views] + ["--superpoints"] * superpoints
        found = evaluated(room, tmp_path / str(number), *options)
        matrix = np.zeros((200, 201), np.int64)
        for folder in list_scenes(room / "data", "val"):
            scene = open_scene(folder)
            scan = Scan(np.array(scene.coord), np.array(scene.color))
            patches = scene.superpoint if superpoints else None
            labels = predict.segment(model, scan, views=views, superpoints=patches).labels
            truth = scene.segment("scannet200").astype(np.int64)
            np.add.at(matrix, (truth[truth >= 0], labels[truth >= 0]), 1)
        expected = semantic_scores(matrix, model.label_set)
        assert found["vertex"]["points"] == matrix.sum() > found["voxel"]["points"] > 0
        assert found["vertex"]["accuracy"] == pytest.approx(expected.accuracy, abs=2e-3)  # but for ties
        assert found["vertex"]["means"]["all"]["mean_iou"] == pytest.approx(expected.mean_iou(), abs=2e-3)


def test_workers_do_not_change_the_votes(room, tmp_path):
    options = ("--views", 2, "--superpoints")
    assert evaluated(room, tmp_path / "a", *options) == evaluated(
        room, tmp_path / "b", *options, "--workers", 2
    )


def test_segment_by_superpoints_of_either_file_or_of_the_mesh(room, tmp_path):
    name = "scene0000_00"
    segs = room / "raw" / "scans" / name / f"{name}_vh_clean_2.0.010000.segs.json"
    indices = np.array(json.loads(segs.read_text())["segIndices"])
    np.save(tmp_path / "patches.npy", indices)
    by_json = labelled(room, tmp_path / "a.ply", "--superpoints", segs, "--views", 2)
    by_npy = labelled(room, tmp_path / "b.ply", "--superpoints", tmp_path / "patches.npy", "--views", 2)
    np.testing.assert_array_equal(by_json.extras["label"], by_npy.extras["label"])
    assert len(set(zip(indices, by_json.extras["label"], strict=True))) == len(set(indices))
    auto = labelled(room, tmp_path / "c.ply", "--superpoints", "auto")
    patches = predict.mesh_superpoints(auto)
    assert len(set(zip(patches, auto.extras["label"], strict=True))) == len(set(patches)) < len(patches) / 5


def test_refusals(room, tmp_path, capsys):
    np.save(tmp_path / "few.npy", np.arange(3))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "bad.json").write_text('{"segIndices": [1, 2')
    (tmp_path / "patches.txt").touch()
    write_scan(Scan(np.random.default_rng(0).random((50, 3))), tmp_path / "cloud.ply")
    cases = [("few.npy", "few.npy"), ("objects.npy", "objects.npy"), ("bad.json", "truncated")]
    cases += [("patches.txt", ".npy and .json"), ("none.npy", "no such file"), ("auto", "no faces")]
    for value, words in cases:
        patches = value if value == "auto" else tmp_path / value
        line = ["segment", tmp_path / "cloud.ply", "-m", room / "model.safetensors", "--superpoints", patches]
        assert main([str(word) for word in line]) == 2
        assert words in capsys.readouterr().err
    line = ["evaluate", room / "model.safetensors", room / "data", "--views", 0, "--out", tmp_path / "e"]
    assert main([str(word) for word in line]) == 2
    assert "--views 0" in capsys.readouterr().err
    shutil.copytree(room / "data", tmp_path / "data", ignore=shutil.ignore_patterns("superpoint.npy"))
    line[2] = tmp_path / "data"
    assert main([str(word) for word in [*line[:3], "--superpoints", "--out", tmp_path / "e"]]) == 2
    assert "no superpoints" in capsys.readouterr().err and not (tmp_path / "e").exists()
