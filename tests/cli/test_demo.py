"""The demo, whole, on a handful of rooms and updates: every step is the real command."""

import contextlib
import json

import pytest

from lground.cli import main
from lground.demo import run_demo
from lground.errors import InputError


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "run"
    with open(out.parent / "screen.txt", "w") as screen, contextlib.redirect_stdout(screen):
        run_demo(out, seed=3, rooms=(3, 2), epochs=(2, 1, 1))
    return out


def test_it_leaves_pictures_metrics_weights_and_the_labelled_scan(demo):
    assert {p.name for p in (demo / "pictures").iterdir()} == {
        "room.png",
        "objects.png",
        "classes-ours.png",
        "classes-scratch.png",
    }
    metrics = json.loads((demo / "metrics.json").read_text())
    assert set(metrics["means"]) == {"pretrained", "ours", "scratch"}
    assert all(0 <= means["all"] <= 1 for means in metrics["means"].values())
    assert set(metrics["objects"]) == {"ap", "ap50", "ap25", "pq"}
    objects = json.loads((demo / "objects.objects.json").read_text())
    assert f"{len(objects)} objects in objects.objects.json" in (demo / "log.txt").read_text()
    assert (demo / "ours" / "best.safetensors").exists() and (demo / "labelled.json").exists()


def test_it_ends_with_the_answer_and_a_table(demo):
    screen = (demo.parent / "screen.txt").read_text()
    assert '"where to sleep"' in screen and "best at (" in screen
    rows = {line.split()[0]: line.split()[1:] for line in screen.splitlines() if line.strip()}
    assert len(rows["ours"]) == len(rows["scratch"]) == len(rows["pretrained"]) == 4


def test_the_labelled_scan_has_a_label_for_every_vertex_of_the_input(demo):
    from lground.scans import read_scan

    labelled = read_scan(demo / "labelled.ply")
    (scene,) = (
        s
        for s in (demo / "raw" / "scans").iterdir()
        if len(read_scan(next(s.glob("*_2.ply")))) == len(labelled)
    )
    raw = read_scan(next(scene.glob("*_2.ply")))
    assert (raw.points == labelled.points).all() and (raw.faces == labelled.faces).all()
    assert labelled.extras["label"].min() >= 0 and labelled.extras["label"].max() < 200


def test_evaluate_repeats_what_the_demo_reports(demo, tmp_path, capsys):
    assert main(["evaluate", str(demo / "ours"), str(demo / "data"), "--out", str(tmp_path)]) == 0
    again = json.loads((tmp_path / "metrics.json").read_text())
    means = json.loads((demo / "metrics.json").read_text())["means"]["ours"]
    assert again["vertex"]["means"]["all"]["mean_iou"] == means["all"]
    assert again["voxel"]["points"] < again["vertex"]["points"]
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.json", "classes.csv", "classes.png"}
    assert "wall" in capsys.readouterr().out


def test_test_scenes_cannot_be_evaluated(demo, tmp_path, capsys):
    assert (
        main(
            [
                "evaluate",
                str(demo / "ours"),
                str(demo / "data"),
                "--split",
                "test",
                "--out",
                str(tmp_path / "t"),
            ]
        )
        == 2
    )
    assert "annot" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


def test_a_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="--out"):
        run_demo(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
