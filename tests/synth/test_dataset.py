"""`lground synth`: the files that ScanNet ships, the same bytes for the same seed, one line for bad input."""

import hashlib
import json

import numpy as np
import pytest
from plyfile import PlyData

from lground.cli import main
from lground.labels import load_labels
from lground.synth import write_dataset

SMALL = ["--size", "small", "--spacing", "0.08"]


def digest(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("synth") / "raw"
    assert (
        main(
            [
                "synth",
                str(out),
                "--train",
                "2",
                "--val",
                "1",
                "--test",
                "1",
                "--seed",
                "5",
                *SMALL,
                "--workers",
                "1",
            ]
        )
        == 0
    )
    return out


def test_the_files_of_scannet_are_there(dataset):
    names = set(digest(dataset))
    expected = {
        "scannetv2_train.txt",
        "scannetv2_val.txt",
        "scannetv2_test.txt",
        "scannetv2-labels.combined.tsv",
    }
    for scene in ("scene0000_00", "scene0001_00", "scene0002_00"):
        expected |= {
            f"scans/{scene}/{scene}{end}" for end in (".txt", ".aggregation.json", "_vh_clean_2.ply")
        }
        expected.add(f"scans/{scene}/{scene}_vh_clean_2.0.010000.segs.json")
    test = "scans_test/scene0707_00/scene0707_00"
    assert names == expected | {f"{test}.txt", f"{test}_vh_clean_2.ply"}
    assert (dataset / "scannetv2_val.txt").read_text() == "scene0002_00\n"


def test_mesh_segments_and_objects_agree(dataset):
    home = dataset / "scans" / "scene0000_00"
    ply = PlyData.read(home / "scene0000_00_vh_clean_2.ply")
    vertex = ply["vertex"].data
    assert vertex.dtype.names == ("x", "y", "z", "red", "green", "blue", "alpha")
    assert (vertex["alpha"] == 255).all()
    faces = np.stack(ply["face"]["vertex_indices"])
    assert faces.shape[1] == 3 and faces.max() < len(vertex)
    segments = json.loads((home / "scene0000_00_vh_clean_2.0.010000.segs.json").read_text())
    assert len(segments["segIndices"]) == len(vertex)
    assert segments["sceneId"] == "scene0000_00"
    groups = json.loads((home / "scene0000_00.aggregation.json").read_text())["segGroups"]
    assert [g["id"] for g in groups] == [g["objectId"] for g in groups] == list(range(len(groups)))
    assert {s for g in groups for s in g["segments"]} <= set(segments["segIndices"])


def test_the_table_gives_every_label_its_id(dataset):
    header, *rows = [
        line.split("\t") for line in (dataset / "scannetv2-labels.combined.tsv").read_text().splitlines()
    ]
    assert header[:5] == ["id", "raw_category", "category", "count", "nyu40id"] and len(header) == 17
    assert all(len(row) == 17 for row in rows)
    labels = load_labels("scannet200")
    id_of = dict(zip(labels.names, labels.ids.tolist(), strict=True))
    assert all(int(row[0]) == id_of[row[2]] for row in rows)
    given = {row[1]: int(row[3]) for row in rows}
    seen = [
        group["label"]
        for path in dataset.glob("scans/*/*.aggregation.json")
        for group in json.loads(path.read_text())["segGroups"]
    ]
    assert {name: count for name, count in given.items() if count} == {
        name: seen.count(name) for name in seen
    }


def test_same_seed_same_bytes_with_more_workers(dataset, tmp_path):
    write_dataset(tmp_path / "again", 2, 1, 1, seed=5, size="small", spacing=0.08, workers=2)
    assert digest(tmp_path / "again") == digest(dataset)


def test_a_scene_depends_on_seed_and_number_only(dataset, tmp_path):
    write_dataset(tmp_path / "more", 1, 1, 0, seed=5, size="small", spacing=0.08, workers=1)
    write_dataset(tmp_path / "other", 1, 0, 0, seed=6, size="small", spacing=0.08, workers=1)
    first, more, other = digest(dataset), digest(tmp_path / "more"), digest(tmp_path / "other")
    scenes = [name for name in more if name.startswith("scans/")]
    assert len(scenes) == 8 and all(first[name] == more[name] for name in scenes)
    mesh = "scans/scene0000_00/scene0000_00_vh_clean_2.ply"
    assert other[mesh] != first[mesh]


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--train", "-1"], "--train"),
        (["--train", "0", "--val", "0", "--test", "0"], "--train"),
        (["--size", "huge"], "small"),
        (["--spacing", "0"], "--spacing"),
        (["--spacing", "nan"], "--spacing"),
        (["--seed", "-3"], "--seed"),
        (["--workers", "0"], "workers"),
    ],
)
def test_bad_options_are_told_in_one_line(arguments, word, tmp_path, capsys):
    assert main(["synth", str(tmp_path / "new"), *arguments]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and word in message
    assert not (tmp_path / "new").exists()


def test_a_folder_with_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "note.txt").write_text("mine")
    assert main(["synth", str(tmp_path), *SMALL]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    write_dataset(tmp_path / "empty", 0, 0, 1, size="small", spacing=0.1, workers=1)
    assert (tmp_path / "empty" / "scans_test" / "scene0707_00").is_dir()


def test_a_data_set_without_some_splits_can_be_prepared(tmp_path):
    line = ["synth", str(tmp_path / "raw"), "--train", "1", "--val", "0", "--test", "0", "--size", "small"]
    assert main([*line, "--spacing", "0.1"]) == 0
    assert main(["prepare", str(tmp_path / "raw"), str(tmp_path / "store")]) == 0
    assert [p.name for p in (tmp_path / "store" / "train").iterdir()] == ["scene0000_00"]
