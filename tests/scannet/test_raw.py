import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.errors import InputError
from lground.labels import load_labels
from lground.scannet import read_label_table, read_raw_scene

TURN = np.array([[0.6, -0.8, 0, 1.5], [0.8, 0.6, 0, -2.0], [0, 0, 1, 0.25], [0, 0, 0, 1]])


@pytest.fixture
def read(tmp_path, make_table):
    table = read_label_table(make_table(tmp_path / "labels.tsv"))

    def go(raw, **options):
        return read_raw_scene(raw.write(tmp_path / "scans"), table, **options)

    return go


def test_alignment_moves_the_vertices_and_can_be_left_out(read, make_raw):
    moved = read(make_raw("scene0000_00", alignment=TURN))
    left = read(make_raw("scene0000_01", alignment=TURN), align=False)
    raw = make_raw()
    homogeneous = np.c_[raw.points.astype(float), np.ones(len(raw.points))]
    np.testing.assert_allclose(moved.coord, (homogeneous @ TURN.T)[:, :3], atol=1e-6)
    assert (left.coord == raw.points).all() and (moved.color == raw.colors).all()
    assert moved.coord.dtype == np.float32 and (moved.alignment == TURN).all()


def test_labels_objects_and_superpoints_follow_the_segments(read, make_raw):
    raw = make_raw(objects=[("chair", [4]), ("desk lamp", [0, 9]), ("sliding door", [2])])
    said = read(raw).annotation
    assert set(said.raw_id[raw.segment == 4]) == {2} and set(said.nyu40_id[raw.segment == 9]) == {35}
    assert set(said.raw_id[raw.segment == 2]) == {1357}  # in the table, not among the 200 classes
    nobody = ~np.isin(raw.segment, [0, 2, 4, 9])
    assert (said.raw_id[nobody] == 0).all() and (said.instance[nobody] == -1).all()
    assert (said.instance[raw.segment == 4] == 0).all() and (said.instance[raw.segment == 0] == 1).all()
    same_segment = raw.segment[:, None] == raw.segment
    assert ((said.superpoint[:, None] == said.superpoint) == same_segment).all()
    assert sorted(set(said.superpoint.tolist())) == list(range(12))


def test_a_fully_annotated_scene_has_no_minus_one(read, make_raw):
    said = read(make_raw(objects=[("wall", list(range(6))), ("floor", list(range(6, 12)))])).annotation
    assert sorted(set(said.instance.tolist())) == [0, 1]


def test_later_objects_take_segments_from_earlier_ones_without_leaving_gaps(read, make_raw):
    raw = make_raw(objects=[("wall", [0, 1]), ("chair", [3]), ("floor", [1]), ("desk lamp", [3])])
    said = read(raw).annotation
    assert set(said.raw_id[raw.segment == 1]) == {3} and set(said.raw_id[raw.segment == 3]) == {28}
    assert [set(said.instance[raw.segment == s].tolist()) for s in (0, 1, 3)] == [{0}, {1}, {2}]


def test_unknown_categories_are_objects_without_a_label_and_are_counted(read, make_raw):
    raw = make_raw(objects=[("flux capacitor", [0]), ("chair", [1]), ("flux capacitor", [2]), ("wal", [3])])
    said = read(raw).annotation
    assert said.unknown == {"flux capacitor": 2, "wal": 1}
    assert (said.raw_id[raw.segment == 0] == 0).all() and (said.instance[raw.segment == 2] == 2).all()


def test_a_category_without_nyu40_id_is_labelled_in_the_200_only(read, make_raw):
    raw = make_raw(objects=[("potted plant", [5])])
    said = read(raw).annotation
    index = load_labels("scannet200").index_of(said.raw_id)
    assert (index[raw.segment == 5] == load_labels().names.index("potted plant")).all()
    assert (load_labels("scannet20").index_of(said.nyu40_id) == -1).all() and said.unknown == {}


def test_test_scenes_have_neither_labels_nor_superpoints(tmp_path, make_raw, make_table):
    table = read_label_table(make_table(tmp_path / "labels.tsv"))
    folder = make_raw("scene0707_00").write(tmp_path, annotated=False)
    said = read_raw_scene(folder, table, annotated=False).annotation
    assert said.kind is None and (said.instance == -1).all() and (said.superpoint == -1).all()
    with pytest.raises(InputError, match=r"aggregation\.json: is missing"):
        read_raw_scene(folder, table)


def test_labels_ply_gives_the_20_classes_and_its_bad_ids_are_counted(tmp_path, make_raw, make_table):
    raw = make_raw("scene0270_00")
    folder = raw.write(tmp_path, annotated=False)
    painted = np.array([0, 1, 2, 5, 40, 50, 149], dtype=np.uint16)[np.arange(raw.vertices) % 7]
    raw.write_mesh(folder / "scene0270_00_vh_clean_2.labels.ply", {"label": painted})
    said = read_raw_scene(folder, read_label_table(make_table(tmp_path / "labels.tsv"))).annotation
    index = load_labels("scannet20").index_of(said.nyu40_id)
    assert (index == np.array([-1, 0, 1, 4, -1, -1, -1])[np.arange(raw.vertices) % 7]).all()
    assert said.unknown == {
        "NYU40 id 50": int((painted == 50).sum()),
        "NYU40 id 149": int((painted == 149).sum()),
    }
    assert (said.raw_id == 0).all() and (said.instance == -1).all() and said.kind == "labels.ply"


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from(["wall", "chair", "nonsense"]), st.sets(st.integers(0, 11))), max_size=8
    )
)
def test_every_vertex_belongs_to_the_last_object_that_names_its_segment(tmp_path_factory, objects):
    from lground.scannet.raw import _from_groups
    from lground.scannet.table import LabelTable

    folder = tmp_path_factory.mktemp("groups")
    segment = np.arange(60) * 7 % 12
    (folder / "s.json").write_text(json.dumps({"segIndices": (segment * 3 + 1000).tolist()}))
    groups = [{"label": label, "segments": [s * 3 + 1000 for s in members]} for label, members in objects]
    (folder / "g.json").write_text(json.dumps({"segGroups": groups}))
    table = LabelTable({"wall": 1, "chair": 2}, {"wall": 1, "chair": 5}, "")
    said = _from_groups(folder / "s.json", folder / "g.json", 60, table)
    owner = np.array([max((k for k, (_, m) in enumerate(objects) if s in m), default=-1) for s in segment])
    ids = {"wall": 1, "chair": 2, "nonsense": 0}
    assert said.raw_id.tolist() == [ids[objects[k][0]] if k >= 0 else 0 for k in owner]
    kept = np.unique(owner[owner >= 0])
    assert said.instance.tolist() == [int(np.searchsorted(kept, k)) if k >= 0 else -1 for k in owner]
