"""Stores as people have them: this package's, Pointcept's, and the original system's files."""

import os
import zipfile
from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch

from lground.errors import InputError
from lground.labels import load_labels
from lground.scannet import list_scenes, open_scene, prepare

RAW_IDS = np.array([0, 1, 3, 2, 1357, 1191])  # none, wall, floor, chair, not among the 200, mattress
INDEX = np.array([-1, 0, 2, 1, -1, 199])


@pytest.fixture
def cloud():
    rng = np.random.default_rng(5)
    which = np.arange(120) % 6
    return rng.random((120, 3)).astype(np.float32), rng.integers(0, 256, (120, 3), dtype=np.uint8), which


def test_arrays_of_a_store_stay_on_disk(raw_root, tmp_path):
    prepare(raw_root, tmp_path / "out", workers=1)
    scene = open_scene(tmp_path / "out" / "train" / "scene0000_00")
    for array in (scene.coord, scene.color, scene.instance, scene.superpoint, scene.segment("scannet200")):
        assert isinstance(array, np.memmap) and not array.flags.writeable
    assert len(scene) == 200 and scene.name == "scene0000_00"


def test_lists_are_sorted_and_unfinished_scenes_are_not_in_them(raw_root, tmp_path):
    prepare(raw_root, tmp_path / "out", workers=1)
    half = tmp_path / "out" / "train" / ".scene0001_01.xyz.part"
    half.mkdir()
    np.save(half / "coord.npy", np.zeros((3, 3), np.float32))
    names = [path.name for path in list_scenes(tmp_path / "out", "train")]
    assert names == ["scene0000_00", "scene0000_01", "scene0001_00", "scene0002_00"]


@pytest.fixture
def pointcept(tmp_path, cloud):
    coord, color, which = cloud
    folder = tmp_path / "pc" / "train" / "scene0000_00"
    folder.mkdir(parents=True)
    arrays = {
        "coord": coord,
        "color": color,
        "normal": np.zeros((120, 3), np.float32),
        "segment200": INDEX[which].astype(np.int32),
        "segment20": np.where(which == 3, 4, -1).astype(np.int32),
        "instance": np.where(which > 0, which, -1).astype(np.int64),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_pointcepts_layout_is_read_as_it_is(pointcept, cloud):
    coord, color, which = cloud
    scene = open_scene(pointcept)
    assert (scene.coord == coord).all() and (scene.color == color).all()
    assert (scene.segment("scannet200") == INDEX[which]).all() and scene.segment(
        "scannet20"
    ).dtype == np.int16
    assert (scene.instance == np.where(which > 0, which, -1)).all() and scene.instance.dtype == np.int32
    assert (scene.superpoint == -1).all()
    assert list_scenes(pointcept.parent.parent, "train") == [pointcept]


def test_pointcept_scenes_take_limited_annotation(pointcept, run):
    code, _, err = run("prepare", pointcept.parent.parent, "--limited", "object-0.05")
    assert (code, err) == (0, [])
    assert open_scene(pointcept).annotated("object-0.05").sum() == 5 * 5


def test_pointcept_test_scenes_have_no_labels(pointcept):
    for name in ("segment200", "segment20", "instance"):
        (pointcept / f"{name}.npy").unlink()
    scene = open_scene(pointcept)
    assert (scene.segment("scannet200") == -1).all() and (scene.instance == -1).all()


def test_columns_and_255_as_other_writers_store_them(pointcept, cloud):
    values = np.where(INDEX < 0, 255, INDEX)[cloud[2]].astype(np.uint8).reshape(-1, 1)
    np.save(pointcept / "segment200.npy", values)
    np.save(pointcept / "color.npy", cloud[1].astype(np.float32))
    scene = open_scene(pointcept)
    assert (scene.segment("scannet200") == INDEX[cloud[2]]).all()
    assert scene.color.dtype == np.uint8 and (scene.color == cloud[1]).all()


def pickled(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("coord.npy", lambda p: p.unlink(), "is missing"),
        ("coord.npy", lambda p: p.write_bytes(p.read_bytes()[:200]), "damaged"),
        ("coord.npy", lambda p: p.write_bytes(b""), "damaged"),
        ("coord.npy", pickled, "damaged or not an array"),
        ("coord.npy", lambda p: np.save(p, np.zeros((120, 2), np.float32)), r"expected \(N, 3\) floats"),
        (
            "coord.npy",
            lambda p: np.save(p, np.zeros((0, 3), np.float32)),
            r"expected \(N, 3\) floats|damaged",
        ),
        ("color.npy", lambda p: np.save(p, np.zeros((119, 3), np.uint8)), "expected"),
        ("color.npy", lambda p: np.save(p, np.full((120, 3), 300.0)), "from 0 to 255"),
        ("segment200.npy", lambda p: np.save(p, np.zeros(119, np.int16)), "for 120 vertices"),
        ("segment200.npy", lambda p: np.save(p, np.zeros(120, np.float32)), "expected integers"),
        ("segment200.npy", lambda p: np.save(p, np.full(120, 200, np.int16)), "hold 200"),
        ("segment200.npy", lambda p: p.unlink(), "no labels of scannet200"),
        ("instance.npy", lambda p: np.save(p, np.zeros((60, 2), np.int32)), "for 120 vertices"),
        ("annotated.scene-20.npy", lambda p: np.save(p, np.zeros(120, np.int8)), "expected bool"),
        ("annotated.scene-20.npy", lambda p: p.unlink(missing_ok=True), "--limited scene-20"),
    ],
)
def test_a_damaged_store_is_told_in_one_line(pointcept, file, damage, says):
    damage(pointcept / file)
    with pytest.raises(InputError, match=says) as caught:
        scene = open_scene(pointcept)
        scene.segment("scannet200")
        scene.annotated("scene-20")
    assert str(pointcept) in str(caught.value) and "\n" not in str(caught.value)


def write_original_ply(path, cloud, instance):
    coord, color, which = cloud
    names = [*((n, "<f4") for n in "xyz"), *((n, "u1") for n in ("red", "green", "blue"))]
    vertex = np.zeros(len(coord), dtype=[*names, ("label", "<u4"), ("instance_id", "<u4")])
    for k in range(3):
        vertex["xyz"[k]], vertex[("red", "green", "blue")[k]] = coord[:, k], color[:, k]
    vertex["label"], vertex["instance_id"] = RAW_IDS[which], instance
    path.parent.mkdir(parents=True, exist_ok=True)
    plyfile.PlyData([plyfile.PlyElement.describe(vertex, "vertex")], byte_order="<").write(str(path))


def test_the_originals_ply_tells_the_first_object_from_none(tmp_path, cloud):
    coord, color, which = cloud
    path = tmp_path / "train" / "scene0000_00.ply"
    write_original_ply(path, cloud, np.array([0, 0, 3, 1, 7, 3])[which])
    scene = open_scene(path)
    assert (scene.coord == coord).all() and (scene.color == color).all() and scene.name == "scene0000_00"
    assert (scene.segment("scannet200") == INDEX[which]).all()
    assert (scene.instance == np.array([-1, 0, 2, 1, 3, 2])[which]).all()
    assert (scene.superpoint == -1).all() and scene.annotated(None) is None
    with pytest.raises(InputError, match="no labels of scannet20 "):
        scene.segment("scannet20")


def save_pth(path, cloud, **change):
    coord, color, which = cloud
    arrays = {
        "points": coord.astype(np.float64),
        "colors": color.astype(np.float64),
        "labels": RAW_IDS[which].astype(np.float64),
        "instances": np.array([0, 1, 4, 2, 6, 4], np.float64)[which],
    }
    torch.save(tuple((arrays | change).values()), path)


def test_the_originals_pth_counts_objects_from_one(tmp_path, cloud):
    coord, color, which = cloud
    save_pth(tmp_path / "scene0011_00.pth", cloud)
    scene = open_scene(tmp_path / "scene0011_00.pth")
    assert (scene.coord == coord).all() and (scene.color == color).all() and scene.coord.dtype == np.float32
    assert (scene.segment("scannet200") == INDEX[which]).all()
    assert (scene.instance == np.array([-1, 0, 2, 1, 3, 2])[which]).all()


def test_a_pth_written_with_numpy_1_is_read(tmp_path, cloud):
    new, old = tmp_path / "new.pth", tmp_path / "scene0011_00.pth"
    save_pth(new, cloud)
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for item in source.namelist():
            data = source.read(item)
            target.writestr(item.replace("new/", "old/"), data.replace(b"numpy._core.", b"numpy.core."))
    assert old.read_bytes().count(b"numpy.core.multiarray") >= 1
    assert (open_scene(old).segment("scannet200") == INDEX[cloud[2]]).all()


class Bomb:
    target = Path()

    def __reduce__(self):
        return os.mkdir, (str(Bomb.target),)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, cloud: path.write_bytes(b"not a zip"),
        lambda path, cloud: path.write_bytes(b""),
        lambda path, cloud: (save_pth(path, cloud), path.write_bytes(path.read_bytes()[:2000])),
        lambda path, cloud: torch.save((1, 2), path),
        lambda path, cloud: torch.save({"state_dict": {}}, path),
        lambda path, cloud: torch.save(Bomb(), path),
        lambda path, cloud: save_pth(path, cloud, labels=Bomb()),
        lambda path, cloud: save_pth(path, cloud, labels=np.zeros(7)),
        lambda path, cloud: save_pth(path, cloud, points=np.full((120, 3), np.nan)),
    ],
)
def test_other_pth_files_are_refused_and_never_executed(tmp_path, cloud, write):
    path, Bomb.target = tmp_path / "scene0000_00.pth", tmp_path / "blown"
    write(path, cloud)
    with pytest.raises(InputError, match=str(path)) as caught:
        open_scene(path)
    assert "\n" not in str(caught.value)
    assert not Bomb.target.exists()


def test_the_originals_data_roots_are_listed_by_their_lists_or_the_official_ones(tmp_path, cloud):
    for name in ("train/scene0000_00", "train/scene0011_00", "train/scene0001_00", "test/scene0707_00"):
        write_original_ply(tmp_path / f"{name}.ply", cloud, np.zeros(120))

    def names(split):
        return [path.stem for path in list_scenes(tmp_path, split)]

    assert names("train") == ["scene0000_00", "scene0001_00"] and names("val") == ["scene0011_00"]
    assert names("test") == ["scene0707_00"]
    (tmp_path / "train.txt").write_text("train/scene0011_00.ply\ntrain/scene0001_00.ply\n")
    assert names("train") == ["scene0001_00", "scene0011_00"]


def test_the_originals_files_take_no_masks(tmp_path, cloud, run):
    write_original_ply(tmp_path / "train" / "scene0000_00.ply", cloud, np.zeros(120))
    code, _, err = run("prepare", tmp_path, "--limited", "scene-20")
    assert code == 2 and len(err) == 1 and "masks lie in scene folders" in err[0]


def test_the_originals_instance_root_is_listed_by_its_splits_folder(tmp_path, cloud):
    for name in ("scene0000_00", "scene0001_00", "scene0011_00"):
        save_pth(tmp_path / f"{name}.pth", cloud)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "scannetv2_val.txt").write_text("scene0001_00\n")
    assert [p.stem for p in list_scenes(tmp_path, "val")] == ["scene0001_00"]
    assert [p.stem for p in list_scenes(tmp_path, "train")] == ["scene0000_00", "scene0001_00"]


@pytest.mark.parametrize(
    ("root", "split", "says"),
    [
        ("none", "train", "no such folder"),
        (".", "train", "holds no prepared scenes"),
        (".", "all", "not a split"),
    ],
)
def test_roots_without_scenes(tmp_path, root, split, says):
    with pytest.raises(InputError, match=says):
        list_scenes(tmp_path / root, split)
    with pytest.raises(InputError, match="no such scene"):
        open_scene(tmp_path / "scene0000_00")


def test_classes_of_the_store_are_those_of_the_label_set(pointcept):
    labels = load_labels("scannet200")
    segment = open_scene(pointcept).segment("scannet200")
    assert {labels.names[k] for k in segment[segment >= 0]} == {"wall", "chair", "floor", "mattress"}
