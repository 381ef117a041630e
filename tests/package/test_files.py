import os
import stat

import pytest

from lground.files import atomic_dir, atomic_file


def test_a_finished_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    target = tmp_path / "new" / "result.json"
    for text in ("old", "new"):
        with atomic_file(target) as part:
            part.write_text(text)
            assert part.suffix == ".json" and part.parent == target.parent
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["result.json"]


def test_a_failed_file_leaves_the_old_one(tmp_path):
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(target) as part:
        part.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["result.txt"]


def test_results_can_be_read_by_others_as_any_file_can(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    with atomic_file(tmp_path / "result") as part:
        part.touch()
    assert stat.S_IMODE((tmp_path / "result").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_failed_folder_vanishes_and_a_finished_one_is_whole(tmp_path):
    with pytest.raises(RuntimeError), atomic_dir(tmp_path / "scene") as part:
        (part / "coord.npy").touch()
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with atomic_dir(tmp_path / "scene") as part:
        (part / "coord.npy").touch()
    assert os.listdir(tmp_path) == ["scene"] and os.listdir(tmp_path / "scene") == ["coord.npy"]
