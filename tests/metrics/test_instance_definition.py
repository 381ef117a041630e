"""Average precision of objects equals ScanNet's evaluator, and its definition on ten thousand small cases.

The definition is stated vertex by vertex with sets and fractions, follows the description of ScanNet's evaluator
rule by rule, and shares nothing with the package.
"""

import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array, csr_matrix

from lground.metrics import instance_ap

FOLDER = Path(__file__).parents[1] / "golden" / "metrics"
FILES = sorted(FOLDER.glob("instance_[0-9]*.npz"))
CRASHES = sorted(FOLDER.glob("instance_crash_*.npz"))
THRESHOLDS = [Fraction(50 + 5 * i, 100) for i in range(9)] + [Fraction(1, 4)]


def golden_scenes(z):
    for i in range(int(z["n_scenes"])):
        _, vertices = z[f"scene{i}_mask_shape"]
        masks = np.unpackbits(z[f"scene{i}_masks"], axis=1, count=int(vertices)).astype(bool)
        yield z[f"scene{i}_gt"], masks, z[f"scene{i}_label"], z[f"scene{i}_conf"]


def test_there_are_golden_files():
    assert (len(FILES), len(CRASHES)) == (40, 4)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_equal_to_scannets_evaluator(path):
    with np.load(path, allow_pickle=False) as z:
        scores = instance_ap(golden_scenes(z), z["class_ids"])
        close = dict(rtol=0, atol=1e-12, equal_nan=True)
        np.testing.assert_allclose(scores.table, z["ap_table"][0], **close)
        np.testing.assert_allclose(scores.ap, z["class_ap"], **close)
        np.testing.assert_allclose(scores.ap50, z["class_ap50"], **close)
        np.testing.assert_allclose(scores.ap25, z["class_ap25"], **close)
        np.testing.assert_allclose(scores.mean(), [z["all_ap"], z["all_ap50"], z["all_ap25"]], **close)


@pytest.mark.parametrize("path", CRASHES, ids=lambda p: p.stem)
def test_objects_whose_predictions_are_all_ignored_score_zero(path):
    """ScanNet's evaluator fails on these inputs; all other classes keep their scores."""
    with np.load(path, allow_pickle=False) as z:
        assert str(z["official_error"]).startswith("IndexError")
        scenes = list(golden_scenes(z))
        table = instance_ap(scenes, z["class_ids"]).table
        lists = [tuple(part.tolist() for part in scene) for scene in scenes]
        expected = np.array(slow_table(lists, z["class_ids"].tolist(), 100), dtype=float)
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-12)
    assert (table == 0).any()


def slow_table(scenes, class_ids, min_vertices):
    """AP of each class at each threshold, None where undefined."""
    table = []
    for class_id in class_ids:
        sides = [sides_of_scene(*scene, class_id, class_ids, min_vertices) for scene in scenes]
        table.append([slow_ap(sides, threshold) for threshold in THRESHOLDS])
    return table


def slow_ap(sides, threshold):
    objects = sum(len(valid) for valid, *_ in sides)
    if objects == 0:
        return None
    rows = [row for side in sides for row in slow_rows(*side, threshold)]
    points = [(Fraction(0), Fraction(1))]
    for score in sorted({score for score, _ in rows}, reverse=True):
        positive = [right for other, right in rows if other >= score]
        points.append((Fraction(sum(positive), objects), Fraction(sum(positive), len(positive))))
    area = Fraction(0)
    for (recall, precision), (next_recall, next_precision) in pairwise(points):
        area += (next_recall - recall) * (precision + next_precision) / 2
    return float(area)


def sides_of_scene(gt_ids, masks, labels, scores, class_id, class_ids, min_vertices):
    """Of one class: valid and small true objects, predictions with scores, and the void vertices."""
    vertices = range(len(gt_ids))
    void = {v for v in vertices if gt_ids[v] == 0 or gt_ids[v] // 1000 not in class_ids}
    objects = [
        {v for v in vertices if gt_ids[v] == id_}
        for id_ in sorted(set(gt_ids))
        if id_ != 0 and id_ // 1000 == class_id
    ]
    valid = [thing for thing in objects if len(thing) >= min_vertices]
    small = [thing for thing in objects if len(thing) < min_vertices]
    predictions = []
    for mask, label, score in zip(masks, labels, scores, strict=True):
        members = {v for v in vertices if mask[v]}
        if label == class_id and len(members) >= min_vertices:
            predictions.append((members, score))
    return valid, small, predictions, void


def slow_rows(valid, small, predictions, void, threshold):
    """(score, right) for each point of the curve to be, of one class and scene."""
    rows, visited = [], set()
    for thing in valid:
        best = None
        for index, (mask, score) in enumerate(predictions):
            if index in visited or not overlaps(mask, thing, threshold):
                continue
            if best is None:
                best = score
                visited.add(index)
            else:
                rows.append((min(best, score), False))
                best = max(best, score)
        if best is not None:
            rows.append((best, True))
    for mask, score in predictions:
        if any(overlaps(mask, thing, threshold) for thing in valid + small):
            continue
        ignorable = len(mask & void) + sum(len(mask & thing) for thing in small)
        if Fraction(ignorable, len(mask)) <= threshold:
            rows.append((score, False))
    return rows


def overlaps(mask, thing, threshold):
    shared = len(mask & thing)
    return shared > 0 and Fraction(shared, len(mask) + len(thing) - shared) > threshold


def draw(r):
    """(scenes of lists, class ids, min_vertices): few vertices, ties, and every kind of id there is."""
    class_ids = r.sample([2, 5, 7, 1191], r.randint(1, 3))
    return [draw_scene(r) for _ in range(r.randint(1, 3))], class_ids, r.randint(1, 4)


def draw_scene(r):
    ids = [2000, 2001, 2002, 2003, 5000, 5001, 7007, 1191001, 0, 2, 7, 999, -1, -2001, 1001, 3001, 2500000]
    ids = r.sample(ids[: r.choice([4, 8, len(ids)])], r.randint(1, 4))
    gt_ids = [id_ for _ in range(r.randint(0, 5)) for id_ in [r.choice(ids)] * r.randint(1, 7)]
    masks = [draw_mask(r, gt_ids) for _ in range(r.randint(0, 6))]
    if masks:
        masks += r.choices(masks, k=r.randint(0, 2))  # the same vertices twice
    labels = r.choices(r.choice([[2], [2, 5], [2, 5, 7, 1191, 0, 1, -2]]), k=len(masks))
    scores = r.choices(r.choice([[0.5], [0.25, 0.75], [0.1, 0.2, 0.3, 0.4, 0.5, -1.0, 7.5]]), k=len(masks))
    return gt_ids, masks, labels, scores


def draw_mask(r, gt_ids):
    """The vertices of some ids, of which a few are lost and a few others added; or any; or none."""
    kind = r.random()
    if kind < 0.1:
        return [r.random() < 0.5 for _ in gt_ids]
    if kind < 0.15:
        return [False for _ in gt_ids]
    chosen = r.sample(sorted(set(gt_ids)), min(len(set(gt_ids)), r.choice([1, 1, 2, 3])))
    wrong = r.choice([0, 0.1, 0.3])
    return [(id_ in chosen) != (r.random() < wrong) for id_ in gt_ids]


FORMS = (
    lambda masks: masks,
    lambda masks: masks.astype(np.uint8) * 2,
    csr_array,
    lambda masks: coo_array(masks.astype(np.int8)),
    csr_matrix,
)


def as_arrays(scenes, form):
    for gt_ids, masks, labels, scores in scenes:
        dense = np.array(masks, dtype=bool).reshape(len(masks), len(gt_ids))
        yield (
            np.array(gt_ids, dtype=np.int32),
            form(dense),
            np.array(labels, dtype=np.int64),
            np.array(scores),
        )


CASES = 10_000


@pytest.mark.parametrize("part", range(10))
def test_equal_to_the_definition(part):
    seen = 0
    for seed in range(part, CASES, 10):
        scenes, class_ids, min_vertices = draw(random.Random(seed))
        expected = np.array(slow_table(scenes, class_ids, min_vertices), dtype=float)  # None becomes NaN
        arrays = as_arrays(scenes, FORMS[seed % 7 % len(FORMS)])
        table = instance_ap(arrays, np.array(class_ids), min_vertices=min_vertices).table
        np.testing.assert_allclose(table, expected, rtol=0, atol=1e-12, err_msg=f"seed {seed}")
        seen += 0 < np.nansum(expected) < np.isfinite(expected).sum()
    assert seen > CASES / 40, "too few cases between all right and all wrong"
