import hashlib

import pytest

from lground.errors import InputError
from lground.scannet import SPLITS, split_scenes
from lground.scannet.splits import choose_splits, read_scene_list


def test_official_lists_have_the_published_sizes_and_share_no_space():
    lists = {split: split_scenes(split) for split in SPLITS}
    assert {split: len(names) for split, names in lists.items()} == {"train": 1201, "val": 312, "test": 100}
    spaces = {split: {name[:9] for name in names} for split, names in lists.items()}
    everything = sorted(set().union(*spaces.values()))
    assert everything == [f"scene{space:04d}" for space in range(807)]
    assert sum(map(len, spaces.values())) == 807
    assert min(spaces["test"]) == "scene0707" and max(spaces["train"] | spaces["val"]) == "scene0706"


@pytest.mark.parametrize("split", SPLITS)
def test_official_lists_are_sorted_and_scans_of_a_space_count_up_from_zero(split):
    names = split_scenes(split)
    assert list(names) == sorted(set(names))
    for before, name in zip(("", *names), names, strict=False):
        follows = name[:9] == before[:9] and int(name[-2:]) == int(before[-2:]) + 1
        assert follows or name.endswith("_00")


def test_the_shipped_lists_are_unchanged():
    text = "\n".join(name for split in SPLITS for name in split_scenes(split))
    assert hashlib.sha256(text.encode()).hexdigest() == SHA256


SHA256 = "78742c820c6dab0f8ea584d054c255c33356393ff5078ea5cfae7da0265be328"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("scene0000_02", "train"),
        ("scene0191_00", "train"),
        ("scene0630_06", "train"),
        ("scene0567_01", "train"),
        ("scene0011_00", "val"),
        ("scene0568_02", "val"),
        ("scene0474_05", "val"),
        ("scene0685_02", "val"),
        ("scene0707_00", "test"),
        ("scene0806_00", "test"),
    ],
)
def test_scenes_known_from_the_benchmark(name, split):
    assert [s for s in SPLITS if name in split_scenes(s)] == [split]


def test_an_unknown_split_is_an_input_error():
    with pytest.raises(InputError, match="train, val, test"):
        split_scenes("trainval")


def test_scene_lists_may_hold_paths_as_the_original_writes_them(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("train/scene0000_00.ply\nscene0001_00\n\nscene0002_00.pth \n")
    assert read_scene_list(path) == ("scene0000_00", "scene0001_00", "scene0002_00")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\n \n", "lists no scenes"), (b"a\nb\na\n", "listed twice"), (b"\xff\xfe\xfa", "is not text")],
)
def test_bad_scene_lists(tmp_path, content, says):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_scene_list(path)


def test_lists_given_beat_lists_lying_in_raw_beat_official_ones(tmp_path):
    (tmp_path / "scannetv2_val.txt").write_text("scene0001_00\n")
    (tmp_path / "scannetv2_train.txt").write_text("scene0002_00\n")
    mine = tmp_path / "mine.txt"
    mine.write_text("scene0011_00\nscene0707_00\n")
    splits = choose_splits(tmp_path, {"train": mine})
    assert splits["train"] == {"scene0011_00", "scene0707_00"} and splits["val"] == {"scene0001_00"}
    assert splits["test"] == set(split_scenes("test")) - {"scene0707_00"}


def test_a_scene_in_two_given_lists_is_an_error(tmp_path):
    (tmp_path / "scannetv2_val.txt").write_text("scene0001_00\n")
    (tmp_path / "scannetv2_train.txt").write_text("scene0001_00\nscene0000_00\n")
    with pytest.raises(InputError, match="scene0001_00 is also in the"):
        choose_splits(tmp_path, {})
