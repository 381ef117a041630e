"""Semantic scores: ScanNet's evaluator, sums over scenes and processes, both means, what is printed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.labels import load_labels
from lground.metrics import confusion_matrix, semantic_scores, sum_over_processes

FOLDER = Path(__file__).parents[1] / "golden" / "metrics"
FILES = sorted(FOLDER.glob("semantic_*.npz"))


def golden_scenes(z, labels):
    """(target, prediction) class indices of every scene of a file; ids outside the label set become -1."""
    for i in range(int(z["n_scenes"])):
        yield tuple(_indices(z[f"scene{i}_{kind}"], z["class_ids"]) for kind in ("gt", "pred"))


def _indices(raw, class_ids):
    place = np.searchsorted(class_ids, raw).clip(max=len(class_ids) - 1)
    return np.where(class_ids[place] == raw, place, -1)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_equal_to_scannets_evaluator(path):
    labels = load_labels("scannet200")
    with np.load(path, allow_pickle=False) as z:
        assert np.array_equal(z["class_ids"], labels.ids)
        matrix = sum(confusion_matrix(t, p, 200) for t, p in golden_scenes(z, labels))
        assert matrix.dtype == torch.int64
        assert np.array_equal(matrix, z["confusion"])
        iou = semantic_scores(matrix, labels).iou
        assert iou.tobytes() == z["iou"].tobytes() or np.array_equal(iou, z["iou"], equal_nan=True)
        assert np.array_equal(np.isnan(iou), z["denom"] == 0)


def test_there_are_golden_files():
    assert len(FILES) == 40


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint16, np.int64])
def test_integer_types_lists_and_tensors_agree(kind):
    target, prediction = [-1, 0, 1, 2, 2, 5], [0, 0, 7, 2, -1, 1]
    expected = [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]]
    arrays = np.array(target).astype(kind), np.array(prediction).astype(kind)
    tensors = torch.tensor(target), torch.tensor(prediction, dtype=torch.int32)
    for pair in (arrays, tensors, (target, prediction)):
        assert confusion_matrix(*pair, 3).tolist() == expected


def test_unequal_lengths_and_wrong_matrices_are_refused():
    with pytest.raises(ValueError, match="3 predictions for 2 targets"):
        confusion_matrix([0, 1], [0, 1, 1], 2)
    with pytest.raises(ValueError, match="must be integers"):
        confusion_matrix([0, 1], [0.0, 1.5], 2)
    with pytest.raises(ValueError, match="scannet200 needs"):
        semantic_scores(np.zeros((20, 21)), load_labels("scannet200"))


@given(st.data())
@settings(max_examples=40)
def test_the_matrix_is_the_count_and_adds_up_over_parts(data):
    n = data.draw(st.integers(0, 60))
    values = st.lists(st.integers(-2, 6), min_size=n, max_size=n)
    target, prediction = data.draw(values), data.draw(values)
    matrix = confusion_matrix(target, prediction, 4)
    expected = np.zeros((4, 5), np.int64)
    for t, p in zip(target, prediction, strict=True):
        if 0 <= t < 4:
            expected[t, p if 0 <= p < 4 else 4] += 1
    assert np.array_equal(matrix, expected)
    cut = data.draw(st.integers(0, n))
    parts = confusion_matrix(target[:cut], prediction[:cut], 4) + confusion_matrix(
        target[cut:], prediction[cut:], 4
    )
    assert torch.equal(matrix, parts)


def scores_of_val_like_truth():
    """Every class but 11 has ten points; half of the points of every class are right, the rest unknown."""
    labels = load_labels("scannet200")
    target = np.repeat(np.flatnonzero(labels.in_val), 10)
    prediction = np.where(np.arange(len(target)) % 2, target, -1)
    return labels, semantic_scores(confusion_matrix(target, prediction, 200), labels)


def test_the_two_means():
    _, scores = scores_of_val_like_truth()
    assert scores.mean_iou() == pytest.approx(0.5) and scores.mean_accuracy() == pytest.approx(0.5)
    assert scores.mean_iou_all() == pytest.approx(0.5 * 189 / 200)
    assert scores.accuracy == 0.5
    for split, present, size in (("head", 66, 66), ("common", 65, 68), ("tail", 58, 66)):
        assert scores.mean_iou(split) == pytest.approx(0.5)
        assert scores.mean_iou_all(split) == pytest.approx(0.5 * present / size)


def test_a_class_predicted_but_absent_scores_zero_and_hurts_only_the_victims():
    labels, _ = scores_of_val_like_truth()
    absent = int(np.flatnonzero(~labels.in_val)[0])
    scores = semantic_scores(confusion_matrix([0, 0, 1, 1], [0, absent, 1, 1], 200), labels)
    assert scores.iou[[0, 1, absent]].tolist() == [0.5, 1.0, 0.0]
    assert np.isnan(scores.class_accuracy[absent])
    assert scores.mean_iou() == 0.75  # the absent class is not among those present


def test_nothing_annotated():
    labels = load_labels("scannet20")
    scores = semantic_scores(confusion_matrix([-1, -1], [3, 4], 20), labels)
    assert np.isnan(scores.mean_iou()) and np.isnan(scores.accuracy) and scores.mean_iou_all() == 0
    assert scores.as_dict()["means"]["all"]["mean_iou"] is None
    assert "-" in scores.lines()[1]


def test_json_and_table_say_the_same():
    labels, scores = scores_of_val_like_truth()
    told = json.loads(json.dumps(scores.as_dict(), allow_nan=False))
    assert told["means"]["tail"] == {
        "classes": 66,
        "classes_present": 58,
        "mean_iou": 0.5,
        "mean_iou_all": pytest.approx(0.5 * 58 / 66),
        "mean_accuracy": 0.5,
    }
    assert [c["name"] for c in told["classes"]] == list(labels.names)
    assert sum(c["iou"] is None for c in told["classes"]) == 11
    table = scores.table().splitlines()
    assert table[1].split() == ["wall", "50.00", "50.00", "10"]
    assert any(line.split() == ["all", "50.00", "47.25", "50.00", "189", "of", "200"] for line in table)


WORKER = """
import sys, torch, torch.distributed as dist
from lground.metrics import confusion_matrix, sum_over_processes
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
g = torch.Generator().manual_seed(rank)
target, prediction = (torch.randint(low, 6, (100 + rank,), generator=g) for low in (-1, 0))
mine = confusion_matrix(target, prediction, 5)
before = mine.clone()
total = sum_over_processes(mine)
assert torch.equal(mine, before), "the own matrix must stay what it was"
torch.save((mine, total), sys.argv[3])
dist.destroy_process_group()
"""


def test_two_processes_see_the_same_sum(tmp_path):
    outputs = [tmp_path / "0.pt", tmp_path / "1.pt"]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "store"), str(outputs[rank])]
        )
        for rank in (0, 1)
    ]
    assert [w.wait(60) for w in workers] == [0, 0]
    (a, total_a), (b, total_b) = (torch.load(o, weights_only=True) for o in outputs)
    assert not torch.equal(a, b)
    assert torch.equal(total_a, a + b) and torch.equal(total_b, a + b)


def test_one_process_keeps_its_matrix():
    matrix = confusion_matrix([0, 1], [1, 1], 2)
    assert torch.equal(sum_over_processes(matrix), matrix)
