import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lground.scannet import open_scene, prepare

ARRAYS = {
    "coord": (np.float32, 3),
    "color": (np.uint8, 3),
    "segment200": (np.int16, None),
    "segment20": (np.int16, None),
    "instance": (np.int32, None),
    "superpoint": (np.int32, None),
}


def content(root):
    """Every file of a store, byte for byte."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_command_writes_the_layout_and_says_what_it_found(raw_root, tmp_path, run):
    (raw_root / "scans" / "scene0900_00").mkdir()
    out = tmp_path / "store"
    code, text, err = run("prepare", raw_root, out)
    assert (code, err) == (0, [])
    assert "prepared 6 scenes, 0 were there; the store holds 4 train, 1 val, 1 test" in text
    assert "in no split list: 1 (scene0900_00)" in text and "listed but not found: 1607 scenes" in text
    found = sorted(str(p.relative_to(out)) for p in out.glob("*/*"))
    train = [f"train/scene000{k}" for k in ("0_00", "0_01", "1_00", "2_00")]
    assert found == ["test/scene0707_00", *train, "val/scene0011_00"]
    for folder in out.glob("*/*"):
        assert {p.name for p in folder.iterdir()} == {*(f"{name}.npy" for name in ARRAYS), "scene.json"}
        count = json.loads((folder / "scene.json").read_text())["counts"]["vertices"]
        for name, (dtype, columns) in ARRAYS.items():
            array = np.load(folder / f"{name}.npy", allow_pickle=False)
            assert array.dtype == dtype and array.shape == ((count,) if columns is None else (count, columns))


def test_a_scene_that_cannot_be_aligned_is_named(raw_root, tmp_path, run):
    info = raw_root / "scans" / "scene0001_00" / "scene0001_00.txt"
    info.unlink()
    code, _, err = run("prepare", raw_root, tmp_path / "store", "--workers", 1)
    assert (
        code == 0 and len(err) == 1 and err[0].startswith(f"{info}: is missing") and "not aligned" in err[0]
    )
    assert run("prepare", raw_root, tmp_path / "as scanned", "--no-align", "--workers", 1)[2] == []


def test_labels_of_both_sets_and_objects_are_written_in_one_pass(raw_root, tmp_path, make_raw):
    raw = make_raw(
        "scene0003_00", objects=[("floor", [0]), ("desk lamp", [1]), ("warp core", [2]), ("chairs", [3])]
    )
    raw.write(raw_root / "scans")
    report = prepare(raw_root, tmp_path / "store", workers=1)
    assert report.unknown == {"warp core": 1} and "warp core (1)" in str(report)
    scene = open_scene(tmp_path / "store" / "train" / "scene0003_00")
    expected = {0: (2, 1, 0), 1: (24, -1, 1), 2: (-1, -1, 2), 3: (1, 4, 3), 4: (-1, -1, -1)}
    for segment, values in expected.items():
        at = raw.segment == segment
        arrays = (scene.segment("scannet200"), scene.segment("scannet20"), scene.instance)
        assert tuple(int(v) for a in arrays for v in np.unique(a[at])) == values


def test_scenes_directly_under_raw_with_the_users_own_lists(tmp_path, run, make_raw, make_table):
    for name in ("kitchen", "attic", "hall"):
        make_raw(name).write(tmp_path / "raw", annotated=name != "hall")
    table = make_table(tmp_path / "table.tsv")
    for split, name in (("train", "kitchen"), ("val", "attic"), ("test", "hall")):
        (tmp_path / f"{split}.txt").write_text(f"{name}\n")
    lists = [f"--{split}={tmp_path / split}.txt" for split in ("train", "val", "test")]
    code, text, _ = run("prepare", tmp_path / "raw", tmp_path / "out", "--labels", table, *lists)
    assert code == 0 and "holds 1 train, 1 val, 1 test" in text and "not found" not in text
    assert (open_scene(tmp_path / "out" / "test" / "hall").segment("scannet200") == -1).all()


def test_a_second_run_changes_nothing_and_several_workers_write_the_same(raw_root, tmp_path, run):
    run("prepare", raw_root, tmp_path / "one", "--workers", 1)
    run("prepare", raw_root, tmp_path / "two", "--workers", 2)
    first = content(tmp_path / "one")
    assert first == content(tmp_path / "two")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "one").rglob("*.npy")}
    code, text, _ = run("prepare", raw_root, tmp_path / "one")
    assert code == 0 and "prepared 0 scenes, 6 were there" in text
    assert content(tmp_path / "one") == first and all(p.stat().st_mtime_ns == t for p, t in times.items())


def test_new_scenes_are_added_to_a_store(raw_root, tmp_path, run, make_raw):
    run("prepare", raw_root, tmp_path / "out")
    make_raw("scene0015_00").write(raw_root / "scans")
    code, text, _ = run("prepare", raw_root, tmp_path / "out")
    assert code == 0 and "prepared 1 scenes, 6 were there; the store holds 4 train, 2 val, 1 test" in text


def test_a_store_is_not_mixed_from_different_settings(raw_root, tmp_path, run):
    run("prepare", raw_root, tmp_path / "out")
    before = content(tmp_path / "out" / "train")
    code, _, err = run("prepare", raw_root, tmp_path / "out", "--no-align")
    assert code == 2 and len(err) == 6 and all("another label table, alignment or version" in e for e in err)
    assert content(tmp_path / "out" / "train") == before


def test_a_scene_never_lands_in_two_splits(raw_root, tmp_path, run):
    run("prepare", raw_root, tmp_path / "out")
    (raw_root / "scannetv2_val.txt").write_text("scene0000_00\nscene0011_00\n")
    code, _, err = run("prepare", raw_root, tmp_path / "out")
    assert code == 2 and len(err) == 1 and "scene0000_00: is in train but the lists say val" in err[0]
    assert not (tmp_path / "out" / "val" / "scene0000_00").exists()


def test_foreign_folders_are_not_touched(raw_root, tmp_path, run):
    mine = tmp_path / "out" / "train" / "scene0000_00"
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("precious")
    code, _, err = run("prepare", raw_root, tmp_path / "out")
    assert code == 2 and len(err) == 1 and "was not written by lground" in err[0]
    assert (mine / "notes.txt").read_text() == "precious"


def test_two_runs_do_not_write_to_one_store(raw_root, tmp_path, run, monkeypatch):
    monkeypatch.setattr("lground.scannet.writer.PATIENCE", 0.3)
    out = tmp_path / "out"
    out.mkdir()
    handle = os.open(out, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    code, _, err = run("prepare", raw_root, out)
    os.close(handle)
    assert code == 2 and len(err) == 1 and "another lground is writing" in err[0]
    assert list(out.iterdir()) == []


def test_a_full_disk_or_a_locked_folder_is_told_in_one_line(raw_root, tmp_path, run):
    if os.geteuid() == 0:
        target = tmp_path / "out" / "train"  # root may write anywhere: put a file where a folder must be
        target.parent.mkdir()
        target.write_text("")
    else:
        target = tmp_path / "out" / "train"
        target.mkdir(parents=True)
        target.chmod(0o500)
    code, text, err = run("prepare", raw_root, tmp_path / "out", "--workers", 1)
    assert code == 2 and len(err) == 4 and all(line.startswith("lground: ") for line in err)
    assert "the store holds 0 train, 1 val, 1 test" in text


def start_and_stop(command, out, blow):
    """Start a command, stop it when two scenes are there; its exit code and stderr."""
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, text=True
    )
    give_up = time.monotonic() + 60
    while len(list(out.glob("train/scene*"))) < 2 and time.monotonic() < give_up:
        time.sleep(0.002)
    if blow == signal.SIGKILL:
        process.kill()  # the workers are left to find out
    else:
        os.killpg(process.pid, blow)  # as a terminal does: to the workers too
    stderr = process.communicate()[1]
    return process.returncode, stderr


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_run_stopped_in_the_middle_goes_on_to_the_same_store(tmp_path, run, make_raw, make_table, blow):
    raw = tmp_path / "raw"
    for k in range(12):
        make_raw(f"scene{20 + k // 3:04d}_{k % 3:02d}", vertices=60_000, seed=k).write(raw / "scans")
    names = "".join(f"{p.name}\n" for p in (raw / "scans").iterdir())
    (raw / "scannetv2_train.txt").write_text(names)
    make_table(raw / "scannetv2-labels.combined.tsv")
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert run("prepare", raw, whole, "--workers", 1)[0] == 0

    command = [sys.executable, "-m", "lground", "prepare", str(raw), str(out), "--workers", "2"]
    for _ in range(5):  # on a busy machine the run may end before the blow falls
        code, stderr = start_and_stop(command, out, blow)
        finished = list(out.glob("train/scene*"))
        if len(finished) < 12:
            break
        shutil.rmtree(out)
    assert 2 <= len(finished) < 12 and code == (-9 if blow == signal.SIGKILL else 130)
    assert stderr == ("" if blow == signal.SIGKILL else "lground: interrupted\n")  # no traceback of a worker

    expected = content(whole)
    for folder in finished:
        assert all(data == expected[f"train/{folder.name}/{n}"] for n, data in content(folder).items())
        assert len(list(folder.iterdir())) == 7
    code, text, err = run("prepare", raw, out, "--workers", 2)
    assert (code, err) == (0, []) and f"prepared {12 - len(finished)} scenes" in text.replace("  ", " ")
    assert content(out) == expected


def test_what_a_killed_run_left_is_cleaned_up(raw_root, tmp_path, run):
    run("prepare", raw_root, tmp_path / "out")
    expected = content(tmp_path / "out")
    stale = tmp_path / "out" / "train" / ".scene0001_00.abc123.part"
    stale.mkdir()
    (stale / "coord.npy").write_bytes(b"half")
    (tmp_path / "out" / ".prepare.json.xyz.part.json").write_text("{")
    (tmp_path / "out" / "train" / "scene0000_00" / ".annotated.scene-20.npy.q.part.npy").write_bytes(b"half")
    assert run("prepare", raw_root, tmp_path / "out")[0] == 0
    assert content(tmp_path / "out") == expected and not stale.exists()
