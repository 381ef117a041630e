"""Every way a raw scene is broken: one line on stderr, exit code 2, and the other scenes are prepared."""

import json

import numpy as np
import pytest

NAME = "scene0001_00"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def poison(path, value):
    data = bytearray(path.read_bytes())
    start = data.index(b"end_header\n") + len(b"end_header\n")
    data[start + 4 : start + 8] = np.float32(value).tobytes()
    path.write_bytes(bytes(data))


def matrix(*values):
    return lambda path: path.write_text("axisAlignment = " + " ".join(map(str, values)) + "\n")


MESH, SEGS, GROUPS, INFO = "_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json", ".aggregation.json", ".txt"
STRETCH = (2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1)
MIRROR = (-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1)
LYING = b"element vertex 240", b"element vertex 999999999999"
CASES = {
    "no mesh": (MESH, lambda p: p.unlink(), "is missing"),
    "truncated mesh": (MESH, cut, "truncated"),
    "empty mesh": (MESH, lambda p: p.write_bytes(b""), "is not a PLY"),
    "lying mesh": (MESH, lambda p: p.write_bytes(p.read_bytes().replace(*LYING)), "promises 999999999999"),
    "no colours": (
        MESH,
        lambda p: p.write_bytes(p.read_bytes().replace(b"uchar red", b"uchar wed")),
        "colours",
    ),
    "NaN": (MESH, lambda p: poison(p, np.nan), "NaN or infinite"),
    "infinity": (MESH, lambda p: poison(p, np.inf), "NaN or infinite"),
    "no segments": (SEGS, lambda p: p.unlink(), "is missing"),
    "truncated segments": (SEGS, cut, "truncated or not JSON"),
    "segments a list": (SEGS, lambda p: p.write_text("[1, 2]"), "not a JSON object"),
    "segments without indices": (SEGS, lambda p: p.write_text("{}"), "segIndices"),
    "segments of another mesh": (
        SEGS,
        lambda p: edit(p, lambda d: d["segIndices"].pop()),
        "239 segment indices",
    ),
    "fractional segments": (SEGS, lambda p: edit(p, lambda d: d["segIndices"].append(0.5)), "whole numbers"),
    "huge segments": (SEGS, lambda p: edit(p, lambda d: d["segIndices"].append(1 << 70)), "whole numbers"),
    "nested segments": (SEGS, lambda p: edit(p, lambda d: d["segIndices"].append([1])), "whole numbers"),
    "named segments": (SEGS, lambda p: edit(p, lambda d: d["segIndices"].append("7")), "whole numbers"),
    "indices no list": (SEGS, lambda p: p.write_text('{"segIndices": 7}'), "whole numbers"),
    "no groups": (GROUPS, lambda p: p.unlink(), "is missing"),
    "truncated groups": (GROUPS, cut, "truncated or not JSON"),
    "groups missing": (GROUPS, lambda p: p.write_text('{"sceneId": "x"}'), "segGroups"),
    "group without label": (
        GROUPS,
        lambda p: edit(p, lambda d: d["segGroups"][1].pop("label")),
        "object 1 has no",
    ),
    "group is a number": (GROUPS, lambda p: p.write_text('{"segGroups": [5]}'), "object 0 has no"),
    "unknown segment": (
        GROUPS,
        lambda p: edit(p, lambda d: d["segGroups"][2]["segments"].append(77777)),
        "77777",
    ),
    "binary groups": (GROUPS, lambda p: p.write_bytes(b"\xff\xfe\x00"), "truncated or not JSON"),
    "stretched alignment": (INFO, matrix(*STRETCH), "not a rotation and a shift"),
    "mirrored alignment": (INFO, matrix(*MIRROR), "not a rotation and a shift"),
    "NaN alignment": (INFO, matrix("nan", *STRETCH[1:]), "not a rotation and a shift"),
    "short alignment": (INFO, matrix(1, 0, 0, 1), "not 16 numbers"),
    "worded alignment": (INFO, matrix(*"abcdefghijklmnop"), "not 16 numbers"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_scene_is_one_line_and_stops_nothing(raw_root, tmp_path, run, case):
    suffix, damage, says = CASES[case]
    path = raw_root / "scans" / NAME / f"{NAME}{suffix}"
    damage(path)
    code, out, err = run("prepare", raw_root, tmp_path / "out", "--workers", 1)
    assert code == 2 and len(err) == 1, err
    assert err[0].startswith(f"lground: {path}: ") and says in err[0]
    assert "prepared 5 scenes" in out and f"failed: 1 ({NAME})" in out
    assert not (tmp_path / "out" / "train" / NAME).exists()
    saved = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert list(saved["failed"]) == [NAME] and NAME not in saved["scenes"]["train"]
    assert not list((tmp_path / "out").rglob("*.part*"))


def test_a_mended_scene_is_prepared_by_the_next_run(raw_root, tmp_path, run):
    path = raw_root / "scans" / NAME / f"{NAME}{GROUPS}"
    whole = path.read_text()
    cut(path)
    assert run("prepare", raw_root, tmp_path / "out")[0] == 2
    path.write_text(whole)
    code, out, err = run("prepare", raw_root, tmp_path / "out")
    assert (code, err) == (0, []) and "prepared 1 scenes, 5 were there" in out


def test_several_broken_scenes_have_a_line_each(raw_root, tmp_path, run):
    for name in ("scene0000_00", NAME):
        cut(raw_root / "scans" / name / f"{name}{SEGS}")
    code, _, err = run("prepare", raw_root, tmp_path / "out", "--workers", 2)
    assert code == 2 and [line.split("/scans/")[1].split("/")[0] for line in err] == ["scene0000_00", NAME]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere", "out"), "is not a folder"),
        (("empty", "out"), "holds no scene folders"),
        (("raw",), "say where to write"),
        (("raw", "out", "--labels", "none.tsv"), "none.tsv: cannot be read"),
        (("raw", "out", "--train", "none.txt"), "none.txt: cannot be read"),
        (("raw", "out", "--train", "a.txt", "--val", "a.txt"), "a scene belongs to one split"),
        (("raw", "out", "--train", "b.txt", "--val", "a.txt", "--test", "c.txt"), "is in a split list"),
        (("raw", "out", "--limited", "object"), "--limited object: write"),
        (("raw", "out", "--limited", "object-1.5"), "fraction R up to 1"),
        (("raw", "out", "--limited", "object-0"), "fraction R up to 1"),
        (("raw", "out", "--limited", "scene-2.5"), "scene-N"),
        (("raw", "out", "--limited", "../scene-2"), "write object-R"),
        (("raw", "--limited", "object-0.05"), "holds no prepared scenes of train"),
        (("raw", "a.txt"), "cannot be written to"),
        (("raw", "out", "--workers", "0"), "workers"),
    ],
)
def test_a_wrong_command_line_is_one_line(raw_root, tmp_path, run, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name, scene in (("a.txt", "kitchen_1"), ("b.txt", "kitchen_2"), ("c.txt", "kitchen_3")):
        (tmp_path / name).write_text(scene + "\n")
    code, out, err = run("prepare", *arguments)
    assert (code, out, len(err)) == (2, "", 1) and says in err[0], err
    assert not (tmp_path / "out").exists()
