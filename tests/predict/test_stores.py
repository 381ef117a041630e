"""`lground evaluate --instances` and `lground submit` as a user runs them, against `segment` scene by scene."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from lground.cli import main
from lground.data import voxelize
from lground.instances import Grouping
from lground.labels import load_labels
from lground.metrics import PanopticEvaluator, instance_ap
from lground.models import Model, save_model
from lground.predict import evaluate, found_objects, segment
from lground.predict.running import run
from lground.scannet import Submission, ground_truth_ids, list_scenes, open_scene
from lground.scans import Scan, read_scan, write_scan

LABELS = load_labels("scannet20")
WALL, CHAIR, SOFA = (LABELS.names.index(name) for name in ("wall", "chair", "sofa"))
VOXEL = 0.1


def words(*parts) -> list[str]:
    return [str(part) for part in parts]


def pointing(label_set, scan, favoured, by):
    """Random weights that see all classes in `scan`, one of them more often the larger `by`."""
    torch.manual_seed(0)
    model = Model.fresh("insseg_Res16UNet14A", label_set, VOXEL).eval()
    _, logits, _ = run(model, scan)
    with torch.no_grad():
        final = model.network.final
        final.kernel /= logits.std(dim=0)
        final.bias.copy_((final.bias - logits.mean(dim=0)) / logits.std(dim=0))
        final.bias[:, favoured] += by
        model.network.offsets.kernel *= 0.1
    return model


def write_scene(folder, scan, labels=None, instances=None):
    folder.mkdir(parents=True)
    patches = np.floor(scan.points / 0.42).astype(np.int32) @ np.int32([1, 10, 100])
    arrays = {"coord": scan.points, "color": scan.colors, "superpoint": patches.astype(np.int32)}
    if labels is not None:
        arrays |= {"segment20": labels.astype(np.int16), "instance": instances.astype(np.int32)}
        arrays["segment200"] = np.where(labels < 0, -1, 0).astype(np.int16)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


@pytest.fixture(scope="module")
def rooms(scan, tmp_path_factory):
    """A store whose truth is near what `objects.safetensors` finds; a room without objects; two test scenes.

    Chairs and one table of a single vertex are there, a sofa is not. `nothing.safetensors` sees wall alone.
    """
    root = tmp_path_factory.mktemp("rooms")
    model, nothing = pointing(LABELS, scan, CHAIR, 2.0), pointing(LABELS, scan, WALL, 100.0)
    save_model(model, root / "objects.safetensors")
    save_model(nothing, root / "nothing.safetensors")
    labels, instances = (values.copy() for values in segment(model, scan, instances=True).panoptic)
    lost = np.random.default_rng(0).random(len(scan)) < 0.1
    labels[(labels == SOFA) | lost] = WALL
    instances[labels == WALL] = -1
    labels[7], instances[7] = LABELS.names.index("table"), 900
    write_scene(root / "data" / "val" / "scene0000_00", scan, labels, instances)
    half = np.full(len(scan), WALL)
    write_scene(root / "data" / "val" / "scene0001_00", scan, half, np.zeros(len(scan)))
    write_scene(root / "bare" / "val" / "scene0001_00", scan, half, np.zeros(len(scan)))
    for name, count in (("scene0707_00", 3200), ("scene0708_00", 1700)):
        write_scene(root / "data" / "test" / name, Scan(scan.points[:count], scan.colors[:count]))
    return root


@pytest.fixture(scope="module")
def model(rooms):
    from lground.models import load_model

    return load_model(rooms / "objects.safetensors")


def answers(model, root, split, **options):
    """Every scene and what `segment` says of it."""
    for folder in list_scenes(root, split):
        scene = open_scene(folder)
        patches = np.array(scene.superpoint) if options.get("superpoints") else None
        room = Scan(np.array(scene.coord), np.array(scene.color))
        yield scene, segment(model, room, instances=True, **options | {"superpoints": patches})


@pytest.mark.parametrize(
    "options, line",
    [({}, ""), ({"views": 2, "superpoints": True}, "--views 2 --superpoints --workers 1")],
)
def test_evaluate_scores_the_objects_that_segment_finds(rooms, model, tmp_path, capsys, options, line):
    out = tmp_path / "e"
    command = ["evaluate", rooms / "objects.safetensors", rooms / "data", "--instances", "--out", out]
    assert main(words(*command, *line.split(), "--device", "cpu")) == 0
    printed = capsys.readouterr().out
    scenes, panoptic = [], PanopticEvaluator(LABELS)
    for scene, result in answers(model, rooms / "data", "val", **options):
        truth, objects = scene.segment("scannet20"), result.objects
        ids = ground_truth_ids(truth, scene.instance, LABELS)
        scenes.append((ids, objects.masks, LABELS.ids[objects.labels], objects.scores))
        painted = result.paint(Scan(scene.coord)).extras  # what the PLY says
        panoptic.add(truth, scene.instance, painted["label"], painted["instance"])
    ap = instance_ap(scenes, LABELS.ids[LABELS.instance_class])
    found = json.loads((out / "metrics.json").read_text())
    assert found["objects"] == ap.as_dict(LABELS) and found["panoptic"] == panoptic.scores().as_dict()
    assert (
        ap.mean().ap25 > 0 and panoptic.scores().mean("things").pq > 0
    )  # what is compared is not all nothing
    if not options:
        assert ap.mean().ap50 > 0.3
    means = found["objects"]["means"]["all"]
    assert f"{100 * means['ap']:.2f}" in printed and "AP50" in printed and "PQ" in printed
    with open(out / "objects.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(LABELS.names)
    assert rows["wall"]["ap"] == "" and float(rows["wall"]["pq"]) >= 0  # stuff has no average precision
    classes = {row["name"]: row for row in found["objects"]["classes"]}
    assert rows["chair"]["ap50"] == str(classes["chair"]["ap50"]) and int(rows["chair"]["objects"]) > 0
    assert classes["sofa"] == {"name": "sofa", "objects": 0, "ap": None, "ap50": None, "ap25": None}
    assert classes["table"]["objects"] == 0  # one vertex does not count
    assert (out / "objects.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_to_find_and_nothing_found(rooms, tmp_path, capsys):
    """Rooms without objects leave AP undefined, objects that nobody finds make it 0; both are answers."""
    for data, weights, expected in (
        ("bare", "objects", None),
        ("bare", "nothing", None),
        ("data", "nothing", 0.0),
    ):
        out = tmp_path / f"{data}-{weights}"
        line = ["evaluate", rooms / f"{weights}.safetensors", rooms / data, "--instances", "--out", out]
        assert main(words(*line, "--device", "cpu")) == 0
        found = json.loads((out / "metrics.json").read_text())
        assert found["objects"]["means"]["all"]["ap50"] == expected
        assert (out / "objects.png").exists()
    assert main(words(*line[:3], "--out", out, "--device", "cpu")) == 0
    assert not list(out.glob("objects.*"))  # they would seem to be of this evaluation
    assert found["panoptic"]["means"]["things"]["pq"] == 0
    assert found["panoptic"]["means"]["stuff"]["pq"] > 0
    scan = rooms / "room.ply"
    scene = open_scene(list_scenes(rooms / "data", "test")[0])
    write_scan(Scan(scene.coord, scene.color), scan)
    line = ["segment", scan, "-m", rooms / "nothing.safetensors", "--instances", "-o", tmp_path / "out.ply"]
    assert main(words(*line, "--device", "cpu")) == 0
    painted = read_scan(tmp_path / "out.ply")
    assert (painted.extras["instance"] == -1).all() and (painted.extras["label"] == WALL).all()
    assert json.loads((tmp_path / "out.objects.json").read_text()) == []
    assert "0 objects" in capsys.readouterr().out


def test_objects_of_one_vertex(model, scan, tmp_path):
    """Found and counted; too small for average precision alone."""
    rows = voxelize(scan.points, VOXEL).index
    thin = Scan(scan.points[rows], scan.colors[rows])
    write_scene(tmp_path / "val" / "scene0000_00", thin, np.full(len(rows), CHAIR), np.arange(len(rows)))
    alone = Grouping(radius=0.01, min_points=1, min_score=0, max_objects=10_000)
    ((_, result),) = answers(model, tmp_path, "val", grouping=alone)
    chairs = (result.labels == CHAIR).sum()
    assert chairs > 100 and (result.objects.sizes == 1).all()
    found = found_objects(thin, result)
    assert len(found) == len(result.objects) and all((box.low == box.high).all() for box in found)
    scores = evaluate(model, tmp_path, instances=True, grouping=alone).metrics()
    assert scores["objects"]["objects"] == 0 and scores["objects"]["means"]["all"]["ap25"] is None
    (row,) = (row for row in scores["panoptic"]["classes"] if row["name"] == "chair")
    assert row["hits"] == chairs and row["sq"] == 1 and row["missed"] == len(rows) - chairs


@pytest.mark.parametrize("options, line", [({}, ""), ({"superpoints": True}, "--superpoints --workers 1")])
def test_submit_writes_what_segment_says(rooms, model, tmp_path, capsys, options, line):
    scenes = list(answers(model, rooms / "data", "test", **options))
    for task in ("semantic", "instance"):
        out = tmp_path / f"{task}.zip"
        command = ["submit", rooms / "objects.safetensors", rooms / "data", "--out", out, "--task", task]
        assert main(words(*command, *line.split(), "--device", "cpu")) == 0
        printed = capsys.readouterr().out
        assert "2 scenes, 4900 vertices" in printed and out.name in printed
        with Submission(out) as submission:
            for scene, result in scenes:
                if task == "semantic":
                    ids = submission.semantic(scene.name)
                    np.testing.assert_array_equal(ids, LABELS.ids[result.labels])
                    continue
                objects = result.objects
                masks, ids, scores = submission.instances(scene.name, len(scene))
                np.testing.assert_array_equal(masks.toarray(), objects.masks.toarray())
                np.testing.assert_array_equal(ids, LABELS.ids[objects.labels])
                np.testing.assert_array_equal(scores, objects.scores)
    assert f"{sum(len(result.objects) for _, result in scenes)} objects" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["instance.zip", "semantic.zip"]


def test_submit_without_an_object_and_with_200_classes(rooms, scan, tmp_path):
    out = tmp_path / "none.zip"
    line = ["submit", rooms / "nothing.safetensors", rooms / "data", "--out", out, "--task", "instance"]
    assert main(words(*line, "--device", "cpu")) == 0
    labels = load_labels("scannet200")
    with Submission(out) as submission:
        assert submission.files == ["scene0707_00.txt", "scene0708_00.txt"]
        assert submission.objects("scene0707_00") == []
    many = pointing(labels, scan, 0, 0.0)
    save_model(many, tmp_path / "200.safetensors")
    line = ["submit", tmp_path / "200.safetensors", rooms / "data", "--split", "val", "--views", 2]
    assert main(words(*line, "--out", tmp_path / "many.zip", "--device", "cpu")) == 0
    with Submission(tmp_path / "many.zip") as submission:
        for scene, result in answers(many, rooms / "data", "val", views=2):
            np.testing.assert_array_equal(submission.semantic(scene.name), labels.ids[result.labels])


@pytest.mark.parametrize(
    "line, said",
    [
        ("evaluate {plain} {data} --instances --out {new}", "does not tell objects apart"),
        ("evaluate {objects} {data} --instances --split test --out {new}", "no annotation"),
        ("evaluate {mine} {data} --instances --out {new}", "the model knows the classes of mine"),
        ("submit {plain} {data} --task instance --out {new}/s.zip", "does not tell objects apart"),
        ("submit {mine} {data} --out {new}/s.zip", "the model knows the classes of mine"),
        ("submit {objects} {data} --out {new}/s.txt", "one .zip file"),
        ("submit {objects} {data} --out {new}/s.zip --task panoptic", "semantic, instance"),
        ("submit {objects} {data} --out {new}/s.zip --split all", "not a split"),
        ("submit {objects} {bare} --out {new}/s.zip", "no prepared scenes of test"),
        ("submit {objects} {empty} --out {new}/s.zip", "coord.npy: expected (N, 3) floats, found (0, 3)"),
        ("submit {objects} {patchless} --superpoints --out {new}/s.zip", "has no superpoints"),
        ("submit {objects} {few} --out {new}/s.zip --workers 1", "scene0708_00: holds one point"),
        ("submit {objects} {data} --out {new}/s.zip --views 0", "--views 0"),
        ("submit {objects} {data}", "--out"),
    ],
)
def test_one_clear_line(rooms, weights, pointing_weights, scan, tmp_path, capsys, line, said):
    """Nothing half-written is left where the first scene is right and the second is not."""
    places = {"plain": tmp_path / "plain.safetensors", "mine": pointing_weights, "new": tmp_path}
    places |= {"objects": rooms / "objects.safetensors", "data": rooms / "data", "bare": rooms / "bare"}
    if "{plain}" in line:
        save_model(Model.fresh("Res16UNet14A", LABELS, VOXEL), places["plain"])
    for name in ("empty", "patchless", "few"):
        if f"{{{name}}}" in line:
            places[name] = shutil.copytree(rooms / "data", tmp_path / name)
            second = places[name] / "test" / "scene0708_00"
            if name == "patchless":
                (second / "superpoint.npy").unlink()
            else:
                shutil.rmtree(second)
                count = {"empty": 0, "few": 1}[name]
                write_scene(second, Scan(scan.points[:count], scan.colors[:count]))
    before = sorted(tmp_path.rglob("*"))
    assert main([*line.format(**places).split(), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error
    assert sorted(tmp_path.rglob("*")) == before
