import hashlib
import json
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lground.errors import InputError
from lground.labels import BUILT_IN, load_labels
from lground.labels.labelset import from_rows

SHA256 = {
    "scannet200": "0c62c83ba0637d9c5b7daf0038cbd73fd08031dcf6999e8b04fa3e74e077bdb1",
    "scannet20": "2b5ea4fa42abf2f4dc7ac6d4948ad8ec6677d07989cb42f08a9fb7390dacfd03",
    "nyu40": "fd1e34f6d16a90e8c1f737b8ca7975f43782cc05a180d16221e34d522c48a100",
}
TRAIN_ONLY = [121, 221, 286, 331, 399, 572, 581, 1174, 1178, 1183, 1190]


@pytest.mark.parametrize("name", BUILT_IN)
def test_shipped_tables_are_unchanged(name):
    data = (files("lground.labels") / "data" / f"{name}.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256[name]


@pytest.mark.parametrize(("name", "count"), [("scannet200", 200), ("scannet20", 20), ("nyu40", 40)])
def test_shipped_sets_have_ascending_ids_and_distinct_colours(name, count):
    labels = load_labels(name)
    assert len(labels) == len(set(labels.names)) == len(np.unique(labels.colors, axis=0)) == count
    assert (
        (np.diff(labels.ids) > 0).all() and labels.ids.dtype == np.int64 and labels.colors.dtype == np.uint8
    )
    outside = np.setdiff1d(np.arange(-5, 1500), labels.ids)
    assert (labels.index_of(labels.ids) == np.arange(count)).all() and (labels.index_of(outside) == -1).all()
    not_objects = [
        n for n, is_object in zip(labels.names, labels.instance_class, strict=True) if not is_object
    ]
    assert not_objects == ["wall", "floor"]


def test_scannet200_splits_cover_all_classes_once():
    labels = load_labels("scannet200")
    assert {name: len(index) for name, index in labels.splits.items()} == {
        "head": 66,
        "common": 68,
        "tail": 66,
    }
    assert (np.sort(np.concatenate(list(labels.splits.values()))) == np.arange(200)).all()
    assert labels.ids[~labels.in_val].tolist() == TRAIN_ONLY
    assert [int(labels.in_val[index].sum()) for index in labels.splits.values()] == [66, 65, 58]
    assert 1177 not in labels.ids and (labels.ids[0], labels.names[199], labels.ids[199]) == (
        1,
        "mattress",
        1191,
    )


def test_scannet20_is_the_benchmark_subset_of_nyu40():
    few, many = load_labels("scannet20"), load_labels("nyu40")
    assert few.ids.tolist() == [*range(1, 13), 14, 16, 24, 28, 33, 34, 36, 39]
    index = many.index_of(few.ids)
    assert (index >= 0).all() and (few.colors == many.colors[index]).all()
    assert [many.names[k] for k in index] == list(few.names)


def test_shared_sets_cannot_be_changed_by_a_caller():
    with pytest.raises(ValueError, match="read-only"):
        load_labels().ids[0] = 5


def test_index_of_keeps_the_shape_and_fits_int16():
    index = load_labels().index_of(np.array([[0, 1, 3], [1191, 5000, -4]], dtype=np.int64))
    assert index.tolist() == [[-1, 0, 2], [199, -1, -1]] and index.dtype == np.int16


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=50, unique=True), st.lists(st.integers(-3, 2001)))
def test_index_of_is_the_inverse_of_ids_in_any_order(ids, asked):
    labels = from_rows("mine", [{"id": id_, "name": f"class {id_}"} for id_ in ids], "mine.json")
    expected = [ids.index(id_) if id_ in ids else -1 for id_ in asked]
    assert labels.index_of(np.array(asked, dtype=np.int64)).tolist() == expected


def test_rows_rebuild_the_set():
    labels = load_labels()
    again = from_rows("scannet200", labels.rows(), "memory")
    assert again.names == labels.names and (again.ids == labels.ids).all()
    assert (again.in_val == labels.in_val).all() and (again.instance_class == labels.instance_class).all()
    assert all((again.splits[name] == index).all() for name, index in labels.splits.items())


def test_a_text_list_of_names(tmp_path):
    path = tmp_path / "kitchen.txt"
    path.write_text("\ufeffcoffee machine\n\n  Stuhl aus Holz \nスツール\n", encoding="utf-8")
    labels = load_labels(path)
    assert (labels.name, labels.names) == ("kitchen", ("coffee machine", "Stuhl aus Holz", "スツール"))
    assert labels.ids.tolist() == [1, 2, 3] and labels.splits == {} and labels.in_val.all()
    assert len(np.unique(labels.colors, axis=0)) == 3


def test_a_json_list_with_ids_colours_and_splits(tmp_path):
    path = tmp_path / "mine.json"
    rows = [
        {"id": 7, "name": "desk", "color": [1, 2, 3], "split": "head"},
        {"id": 4, "name": "mug", "split": "tail", "in_val": False},
        {"id": 9, "name": "wall", "split": "head", "instance_class": False},
    ]
    path.write_text(json.dumps(rows))
    labels = load_labels(str(path))
    assert labels.index_of(np.array([4, 7, 9, 1])).tolist() == [1, 0, 2, -1]
    assert labels.colors[0].tolist() == [1, 2, 3]
    assert {name: index.tolist() for name, index in labels.splits.items()} == {"head": [0, 2], "tail": [1]}
    assert labels.in_val.tolist() == [True, False, True] and labels.instance_class.tolist() == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("a.txt", b"", "holds no class names"),
        ("a.txt", b" \n\n", "holds no class names"),
        ("a.json", b"[]", "holds no class names"),
        ("a.txt", b"chair\ntable\nChair \n", "'chair' occurs more than once"),
        ("a.json", b'[{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]', "id 3 occurs more than once"),
        ("a.json", b'[{"name": "a"}, {"id": 1, "name": "b"}]', "id 1 occurs more than once"),
        ("a.json", b'["chair", "tab', "not valid JSON"),
        ("a.json", b'{"chair": 1}', "a JSON dict"),
        ("a.json", b'["chair", 5]', "entry 2 has no name"),
        ("a.json", b'[{"name": "a", "colour": [0, 0, 0]}]', "unknown key 'colour'"),
        ("a.json", b'[{"name": "a", "color": [0, 0, 256]}]', "color"),
        ("a.json", b'[{"name": "a", "id": 0}]', "id 0"),
        ("a.txt", b"\xff\xfe\x00chair", "is not text"),
        ("a.csv", b"chair", "not a label set"),
    ],
)
def test_bad_lists_are_told_in_one_line(tmp_path, file, content, says):
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_labels(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and says in message and "\n" not in message


def test_missing_files_and_unknown_sets_are_input_errors(tmp_path):
    with pytest.raises(InputError, match=r"none\.txt: cannot be read"):
        load_labels(tmp_path / "none.txt")
    with pytest.raises(InputError, match="scannet200, scannet20, nyu40"):
        load_labels("scannet100")
