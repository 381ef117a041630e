"""`lground segment` and `lground query` as a user runs them."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from lground.cli import main
from lground.predict import segment
from lground.scans import Scan, read_scan, write_scan


def test_segment(classifier, weights, scan, scan_file, tmp_path, capsys):
    out, features = tmp_path / "out.ply", tmp_path / "f.npz"
    line = ["segment", scan_file, "--model", weights, "-o", out, "--features", features, "--device", "cpu"]
    assert main([str(word) for word in line]) == 0
    expected = segment(classifier, scan, features=True)
    labelled = read_scan(out)
    np.testing.assert_array_equal(labelled.points, scan.points)
    np.testing.assert_array_equal(labelled.faces, scan.faces)
    np.testing.assert_array_equal(labelled.extras["label"], expected.labels)
    np.testing.assert_allclose(labelled.extras["score"], expected.scores, rtol=1e-5)
    np.testing.assert_array_equal(labelled.colors, classifier.label_set.colors[expected.labels])
    with np.load(features) as saved:
        np.testing.assert_allclose(saved["features"][saved["voxel"]], expected.features, rtol=1e-4, atol=1e-5)
    classes = json.loads((tmp_path / "out.json").read_text())
    printed = capsys.readouterr().out
    for entry in classes:
        assert entry["vertices"] == (expected.labels == entry["index"]).sum()
        assert entry["name"] in printed


def test_segment_in_millimetres_beside_the_scan(weights, scan, tmp_path, capsys):
    write_scan(Scan(scan.points * 1000, scan.colors), tmp_path / "mm.ply")
    run_folder = str(weights.parent)
    assert main(["segment", str(tmp_path / "mm.ply"), "-m", run_folder]) == 2
    assert "--units mm" in capsys.readouterr().err
    assert main(["segment", str(tmp_path / "mm.ply"), "-m", run_folder, "--units", "mm"]) == 0
    np.testing.assert_allclose(read_scan(tmp_path / "mm.labels.ply").points, scan.points, atol=1e-5)


def test_segment_with_instances(pointing, pointing_weights, scan, scan_file, tmp_path, capsys):
    out, patches = tmp_path / "out.ply", tmp_path / "patches.npy"
    np.save(patches, np.floor(scan.points / 0.42).astype(np.int64) @ (1, 10, 100))
    line = ["segment", scan_file, "-m", pointing_weights, "-o", out, "--device", "cpu", "--instances"]
    assert main([str(word) for word in line]) == 0
    expected = segment(pointing, scan, instances=True)
    labelled = read_scan(out)
    instance = labelled.extras["instance"]
    assert instance.dtype == np.int32
    np.testing.assert_array_equal(instance, expected.instances)
    np.testing.assert_array_equal(labelled.extras["label"], expected.labels)
    objects = json.loads((tmp_path / "out.objects.json").read_text())
    assert [entry["id"] for entry in objects] == np.unique(instance[instance >= 0]).tolist()
    assert objects and f"{len(objects)} objects in out.objects.json" in capsys.readouterr().out
    for entry in objects:
        points = labelled.points[instance == entry["id"]]
        assert entry["vertices"] == len(points) and entry["class"] in ("chair", "lamp")
        np.testing.assert_allclose(entry["centroid"], points.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(
            [entry["box"]["min"], entry["box"]["max"]], [points.min(0), points.max(0)], atol=1e-5
        )
        assert len(entry["oriented_box"]["center"]) == len(entry["oriented_box"]["size"]) == 3
        assert -2 < entry["oriented_box"]["yaw"] < 2 and 0 <= entry["score"] <= 1
        assert "superpoints" not in entry
    assert (tmp_path / "out.json").exists()
    picture = tmp_path / "found.png"
    assert main([str(word) for word in [*line, "--superpoints", patches, "--picture", picture]]) == 0
    assert imread(picture).shape[1] == 3 * 640  # the scan, its classes, its objects
    snapped = json.loads((tmp_path / "out.objects.json").read_text())
    assert any(entry["superpoints"] for entry in snapped)


def test_query(grounded_weights, scan, scan_file, tmp_path, capsys):
    out, picture = tmp_path / "q.ply", tmp_path / "q.png"
    texts = ["somewhere to sit", "a lamp"]
    line = ["query", scan_file, *texts, "--model", grounded_weights, "-o", out, "--picture", picture]
    assert main([str(word) for word in line]) == 0
    answered = read_scan(out)
    np.testing.assert_array_equal(answered.faces, scan.faces)
    assert answered.extras["score_0"].std() > 0 and answered.extras["score_1"].std() > 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    for text in texts:
        assert f'"{text}"' in printed


@pytest.fixture
def wrong(tmp_path, scan_file):
    (tmp_path / "text.safetensors").write_text("these are not weights")
    (tmp_path / "text.ckpt").write_text("nor these")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.ply").write_bytes(scan_file.read_bytes()[:500])
    return tmp_path


@pytest.mark.parametrize(
    "line,words",
    [
        ("segment {scan} --model {wrong}/text.safetensors", "text.safetensors"),
        ("segment {scan} --model {wrong}/text.ckpt", "text.ckpt"),
        ("segment {scan} --model {wrong}/empty", "no weights"),
        ("segment {scan} --model {wrong}/none.ckpt", "no such file"),
        ("segment {wrong}/broken.ply --model {weights}", "truncated"),
        ("segment {wrong}/none.ply --model {weights}", "none.ply: no such file"),
        ("segment {scan} --model {weights} -o {scan}", "overwrite the scan"),
        ("segment {scan} --model {weights} -o {wrong}/out.docx", "change the suffix"),
        ("segment {scan} --model {weights} -o {wrong}/a.npz --features {wrong}/a.npz", "another output"),
        ("segment {scan} --model {weights} -o {wrong}/broken.ply/out.ply", "is a file, not a folder"),
        (
            "segment {scan} --model {weights} --picture {wrong}/broken.ply/deep/p.png",
            "is a file, not a folder",
        ),
        ("query {scan} lamp --model {weights} --picture {wrong}/q.ply -o {wrong}/q.ply", "change the suffix"),
        ("evaluate {weights} {wrong}/empty -o {wrong}/broken.ply", "is a file; name a folder"),
        ("evaluate {weights} {wrong}/empty --workers -1", "--workers"),
        ("submit {weights} {wrong}/empty -o {wrong}/broken.ply/a.zip", "is a file, not a folder"),
        ("compare {wrong} -o {wrong}/broken.ply/c.png", "is a file, not a folder"),
        ("anchors {wrong}/broken.ply/a.safetensors", "is a file, not a folder"),
        ("convert {weights} {wrong}/m.safetensors", "a model of lground already"),
        ("convert {weights} {weights}", "overwrite the checkpoint"),
        ("convert {wrong}/empty {wrong}/m.safetensors", "is a folder; name a checkpoint"),
        ("synth /proc/nowhere --train 1 --val 0 --test 0", "/proc/nowhere"),
        ("segment {scan} --model {weights} --device warp", "--device warp"),
        ("segment {scan} --model {weights} --voxel-size 0", "voxel size"),
        ("segment {scan} --model {weights} --voxel-size -1", "voxel size"),
        ("segment {scan}", "--model"),
        ("segment {scan} --model {weights} --instances", "does not tell objects apart"),
        ("query {scan} lamp --model {weights}", "not grounded in language"),
        ("query {scan} --model {weights}", "TEXTS"),
    ],
)
def test_one_clear_line(line, words, wrong, weights, scan_file, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(line.format(scan=scan_file, wrong=wrong, weights=weights).split()) == 2
    error = capsys.readouterr().err
    assert words.lower() in error.lower() and error.count("\n") == 1, error
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(scan_file.parent.glob("*.labels.ply"))
