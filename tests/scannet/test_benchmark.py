"""ScanNet's benchmark files: what is written reads back, and what is wrong is named."""

import time
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.errors import InputError
from lground.labels import load_labels
from lground.scannet import Submission, check_submission, ground_truth_ids
from lground.scannet.benchmark import (
    ids_text,
    instance_texts,
    mask_text,
    parse_ids,
    parse_instances,
    parse_mask,
)

LABELS = load_labels("scannet200")
CHAIR, WALL = LABELS.names.index("chair"), LABELS.names.index("wall")


def test_truth_counts_objects_from_one_and_leaves_the_rest_void():
    ids = ground_truth_ids(np.int16([CHAIR, CHAIR, WALL, -1, CHAIR]), np.int32([0, 7, 3, 2, -1]), LABELS)
    assert ids.tolist() == [2001, 2008, 1004, 0, 0] and ids.dtype == np.int64
    assert ground_truth_ids(np.int16([CHAIR]), np.int32([998]), LABELS).tolist() == [2999]
    with pytest.raises(InputError, match="number 999"):
        ground_truth_ids(np.int16([CHAIR]), np.int32([999]), LABELS)
    assert len(ground_truth_ids(np.int16([]), np.int32([]), LABELS)) == 0


def test_the_files_are_those_of_the_benchmark():
    masks = np.array([[1, 0, 1], [0, 0, 0]], bool)
    assert list(instance_texts("scene0707_00", masks, np.array([2, 28]), np.float32([0.5, 0.1]))) == [
        (
            "scene0707_00.txt",
            b"predicted_masks/scene0707_00_000.txt 2 0.5\n"
            b"predicted_masks/scene0707_00_001.txt 28 0.10000000149011612\n",
        ),
        ("predicted_masks/scene0707_00_000.txt", b"1\n0\n1\n"),
        ("predicted_masks/scene0707_00_001.txt", b"0\n0\n0\n"),
    ]
    assert ids_text(np.array([3, 1191, 0])) == b"3\n1191\n0\n"


@given(st.lists(st.integers(-(10**17), 10**17), max_size=50), st.booleans(), st.booleans())
def test_ids_read_back(values, carriage_return, last_newline):
    text = ids_text(np.array(values, np.int64))
    text = text.replace(b"\n", b"\r\n") if carriage_return else text
    assert parse_ids(text if last_newline else text.rstrip(), "x").tolist() == values


@given(st.lists(st.booleans(), max_size=50))
def test_masks_read_back(values):
    text = mask_text(np.array(values, bool))
    assert text == ids_text(np.array(values, np.int64))
    assert parse_mask(text, "x").tolist() == values
    assert parse_mask(text.replace(b"\n", b"\r\n"), "x").tolist() == values


@pytest.mark.parametrize(
    "parse,text,words",
    [
        (parse_ids, b"1\n2.5\n", "line 2 is not a whole number: '2.5'"),
        (parse_ids, b"1\n\n2\n", "line 2 is not a whole number: ''"),
        (parse_ids, b"\xff\n", "line 1 is not"),
        (parse_ids, b"12345678901234567890\n", "line 1 is not"),
        (parse_ids, b"1_0\n", "line 1 is not"),
        (parse_mask, b"1\n0\n2\n", "line 3 is neither"),
        (parse_mask, b"1\n0\n-1\n", "line 3 is neither"),
        (parse_mask, b"1\nx\n", "line 2 is neither"),
        (parse_mask, b"10\n", "line 1 is neither"),
        (parse_instances, b"a.txt 2\n", "line 1 is not 'mask class confidence': 'a.txt 2'"),
        (parse_instances, b"a.txt 2 0.5\nb.txt chair 0.5\n", "line 2 is not"),
        (parse_instances, b"a.txt 2 0.5 7\n", "line 1 is not"),
        (parse_instances, b"a.txt 2 0.5\n\n", "line 2 is not"),
        (parse_instances, b"a.txt 2 nan\n", "line 1 has the confidence nan"),
        (parse_instances, b"a.txt 2 inf\n", "confidence inf"),
        (parse_instances, b"/a.txt 2 1\n", "outside"),
        (parse_instances, b"../a.txt 2 1\n", "outside"),
        (parse_instances, b"a.txt 2 1\na.txt 3 1\n", "more than once"),
    ],
)
def test_wrong_lines_are_named(parse, text, words):
    with pytest.raises(InputError) as error:
        parse(text, "here.txt")
    assert words in str(error.value) and str(error.value).startswith("here.txt: ")


def write(path, files, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, text in files:
            archive.writestr(name, text)
    return path


VERTICES = {"scene0707_00": 40, "scene0708_00": 3}


def instance_files():
    rng = np.random.default_rng(0)
    for scene, count in VERTICES.items():
        number = 3 if count > 3 else 0  # no object found in the second scene
        yield from instance_texts(
            scene, rng.random((number, count)) < 0.5, LABELS.ids[[1, 3, 5]][:number], rng.random(number)
        )


@given(st.integers(0, 6), st.integers(1, 30), st.integers(0, 999))
@settings(max_examples=25)
def test_objects_read_back_from_a_zip(tmp_path_factory, number, count, seed):
    rng = np.random.default_rng(seed)
    masks, scores = rng.random((number, count)) < 0.3, rng.random(number).astype(np.float32)
    ids = rng.choice(LABELS.ids[LABELS.instance_class], number)
    path = tmp_path_factory.mktemp("zip") / "s.zip"
    write(path, instance_texts("a", masks, ids, scores))
    check_submission(path, "instance", {"a": count}, LABELS)
    with Submission(path) as submission:
        found = submission.instances("a", count)
    np.testing.assert_array_equal(found[0].toarray(), masks)
    np.testing.assert_array_equal(found[1], ids)
    np.testing.assert_array_equal(found[2], scores.astype(np.float64))


def test_a_semantic_zip_is_checked(tmp_path):
    rng = np.random.default_rng(0)
    ids = {scene: rng.choice(LABELS.ids, count) for scene, count in VERTICES.items()}
    files = {f"{scene}.txt": ids_text(values) for scene, values in ids.items()}
    path = write(tmp_path / "s.zip", files.items())
    check_submission(path, "semantic", VERTICES, LABELS)
    with Submission(path) as submission:
        np.testing.assert_array_equal(submission.semantic("scene0707_00"), ids["scene0707_00"])
    wrong = [
        ({"scene0708_00.txt": b"1\n1\n"}, "scene0708_00.txt: has 2 lines for 3 vertices"),
        ({"scene0708_00.txt": b"1\n1\n0\n"}, "scene0708_00.txt: line 3 has the id 0, no semantic class"),
        ({"scene0708_00.txt": b"1\n1\n1177\n"}, "line 3 has the id 1177"),
        ({"scene0708_00.txt": None}, "scene0708_00.txt is missing"),
        ({"scene0709_00.txt": b"1\n"}, "holds scene0709_00.txt, which belongs to no scene"),
    ]
    for change, words in wrong:
        changed = {name: text for name, text in (files | change).items() if text is not None}
        with pytest.raises(InputError, match=words):
            check_submission(write(tmp_path / "wrong.zip", changed.items()), "semantic", VERTICES, LABELS)


def test_an_instance_zip_is_checked(tmp_path):
    files = dict(instance_files())
    mask, scene = "predicted_masks/scene0707_00_001.txt", "scene0707_00.txt"
    check_submission(write(tmp_path / "s.zip", files.items()), "instance", VERTICES, LABELS)
    wall = files[scene].replace(b"002.txt %d " % LABELS.ids[5], b"002.txt %d " % LABELS.ids[WALL])
    assert wall != files[scene]
    wrong = [
        ({mask: files[mask][2:]}, f"{mask}: has 39 lines for 40 vertices"),
        ({mask: files[mask].replace(b"1", b"7")}, "neither 0 nor 1"),
        ({mask: None}, f"{mask} is missing"),
        ({scene: wall}, f"{scene}: line 3 has the id 1, no instance class"),
        (
            {scene: b"\n".join(files[scene].split(b"\n")[:2])},
            "holds predicted_masks/scene0707_00_002.txt, which",
        ),
        ({"scene0708_00.txt": None}, "scene0708_00.txt is missing"),
    ]
    for change, words in wrong:
        changed = {name: text for name, text in (files | change).items() if text is not None}
        with pytest.raises(InputError, match=words):
            check_submission(write(tmp_path / "wrong.zip", changed.items()), "instance", VERTICES, LABELS)
    with pytest.warns(UserWarning, match="Duplicate"):
        write(tmp_path / "twice.zip", [*files.items(), (mask, files[mask])])
    with pytest.raises(InputError, match="holds predicted_masks"):
        check_submission(tmp_path / "twice.zip", "instance", VERTICES, LABELS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("zip") / "s.zip", instance_files(), compression=zipfile.ZIP_DEFLATED)


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_zip_is_one_clear_line(whole, data):
    """Any byte changed or any part cut off: it still says the same, or it is refused."""
    content = bytearray(whole.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = whole.with_name("damaged.zip")
    damaged.write_bytes(content)
    try:
        check_submission(damaged, "instance", VERTICES, LABELS)
        with Submission(damaged) as submission, Submission(whole) as intact:
            for scene, count in VERTICES.items():
                np.testing.assert_array_equal(
                    submission.instances(scene, count)[0].toarray(),
                    intact.instances(scene, count)[0].toarray(),
                )
    except InputError as error:
        assert "damaged.zip" in str(error)


def test_masks_of_a_large_scene_are_written_in_no_time():
    masks = np.random.default_rng(0).random((20, 150_000)) < 0.1
    start = time.process_time()
    size = sum(len(text) for _, text in instance_texts("a", masks, np.full(20, 2), np.ones(20)))
    assert time.process_time() - start < 1 and size > 20 * 300_000  # row by row text takes 4 s
