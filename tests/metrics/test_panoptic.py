"""Panoptic quality equals its definition stated vertex by vertex; its properties; means and bad input."""

import json
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.labels import from_rows, load_labels
from lground.metrics import PanopticEvaluator

SPLITS = {1: "head", 2: "head", 3: "tail"}
LABELS = from_rows(
    "rooms",
    [
        {"name": name, "instance_class": index not in (0, 2)} | ({"split": SPLITS[index]} if index else {})
        for index, name in enumerate(["wall", "chair", "floor", "table"])
    ],
    "rooms.json",
)


def evaluated(scenes, label_set=LABELS):
    evaluator = PanopticEvaluator(label_set)
    for scene in scenes:
        evaluator.add(*map(np.array, scene))
    return evaluator.scores()


def slow_scores(scenes, label_set):
    """(TP, sum of IoUs, FP, FN) of each class, after section 4 of the paper."""
    result = []
    for class_ in range(len(label_set)):
        found, iou_sum, surplus, missed = 0, Fraction(0), 0, 0
        for target_labels, target_instances, labels, instances in scenes:
            stuff = not label_set.instance_class[class_]
            truth = slow_segments(target_labels, target_instances, class_, stuff)
            predicted = slow_segments(labels, instances, class_, stuff)
            void = {
                v
                for v, (label, number) in enumerate(zip(target_labels, target_instances, strict=True))
                if label < 0 or (label_set.instance_class[label] and number < 0)
            }
            pairs = []
            for t in truth:
                for p in predicted:
                    iou = Fraction(len(t & p), len(t | (p - void)))
                    if iou > Fraction(1, 2):
                        pairs.append((t, p, iou))
            found += len(pairs)
            iou_sum += sum(iou for *_, iou in pairs)
            missed += sum(all(t is not other for other, *_ in pairs) for t in truth)
            for p in predicted:
                matched = any(p is other for _, other, _ in pairs)
                surplus += not matched and not Fraction(len(p & void), len(p)) > Fraction(1, 2)
        result.append((found, iou_sum, surplus, missed))
    return result


def slow_segments(labels, instances, class_, stuff):
    vertices = {v for v, label in enumerate(labels) if label == class_}
    if stuff:
        return [vertices] if vertices else []
    numbers = {instances[v] for v in vertices if instances[v] >= 0}
    return [{v for v in vertices if instances[v] == number} for number in sorted(numbers)]


def draw_scene(r):
    """Runs of a few segments; the prediction is the truth, of which runs are changed and numbers renamed."""
    kinds = [(r.randint(-1, 3), r.choice([-1, 0, 1, 2, 10**9])) for _ in range(r.randint(1, 5))]
    runs = [(r.choice(kinds), r.randint(1, 5)) for _ in range(r.randint(0, 6))]
    truth = [kind for kind, length in runs for _ in range(length)]
    wrong = r.choice([0, 0.1, 0.3, 0.6])
    prediction = [r.choice(kinds) if r.random() < wrong else kind for kind in truth]
    step = r.choice([0, 3])
    prediction = [(label, number + step if number >= 0 else number) for label, number in prediction]
    columns = zip(*truth, strict=True), zip(*prediction, strict=True)
    return [list(column) for pair in columns for column in pair] or [[], [], [], []]


@pytest.mark.parametrize("part", range(4))
def test_equal_to_the_definition(part):
    partly = 0
    for seed in range(part, 4000, 4):
        r = random.Random(seed)
        scenes = [draw_scene(r) for _ in range(r.randint(1, 3))]
        scores = evaluated(scenes)
        for class_, (found, iou_sum, surplus, missed) in enumerate(slow_scores(scenes, LABELS)):
            counts = scores.hits[class_], scores.surplus[class_], scores.missed[class_]
            assert counts == (found, surplus, missed), f"seed {seed}, class {class_}"
            total = found + Fraction(surplus + missed, 2)
            expected = (
                [iou_sum / total, iou_sum / found if found else 0, found / total] if total else [np.nan] * 3
            )
            actual = [scores.pq[class_], scores.sq[class_], scores.rq[class_]]
            np.testing.assert_allclose(actual, np.array(expected, float), rtol=0, atol=1e-12)
            partly += bool(total) and 0 < iou_sum < total
    assert partly > 400, "too few classes between all right and all wrong"


seeds = st.integers(0, 10**6)


@given(seeds)
@settings(max_examples=60)
def test_the_truth_itself_scores_one(seed):
    labels, instances, *_ = draw_scene(random.Random(seed))
    scores = evaluated([[labels, instances, labels, instances]])
    for score in (scores.pq, scores.sq, scores.rq):
        assert set(score[scores.present].tolist()) <= {1.0}
    real = {
        label for label, n in zip(labels, instances, strict=True) if label in (0, 2) or (label > 0 and n >= 0)
    }
    assert set(np.flatnonzero(scores.present).tolist()) == real


@given(seeds)
@settings(max_examples=60)
def test_numbers_of_instances_and_those_of_stuff_mean_nothing(seed):
    r = random.Random(seed)
    scene = draw_scene(r)
    names = {
        number: new for number, new in zip([*range(6), 10**9, 10**9 + 3], r.sample(range(99), 8), strict=True)
    }
    renamed = [names.get(number, number) for number in scene[3]]
    numbered_stuff = [
        r.randint(-5, 5) if label in (0, 2) else n for label, n in zip(scene[2], renamed, strict=True)
    ]
    one, other = evaluated([scene]), evaluated([[*scene[:3], numbered_stuff]])
    for name in ("hits", "iou_sum", "surplus", "missed"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


@given(st.lists(seeds, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_the_order_of_scenes_changes_no_bit(chosen, random_):
    scenes = [draw_scene(random.Random(seed)) for seed in chosen]
    one, other = evaluated(scenes), evaluated(random_.sample(scenes, len(scenes)))
    assert one.pq.tobytes() == other.pq.tobytes()
    assert one.mean() == other.mean() or not one.present.any()


def test_a_sum_that_depends_on_its_order_does_not():
    scenes = [[[1] * n, [0] * n, [1] * (n - 1) + [-1], [0] * n] for n in range(3, 8)]
    ious = np.array([(n - 1) / n for n in range(3, 8)])
    assert np.cumsum(ious)[-1] != np.cumsum(ious[::-1])[-1]
    assert evaluated(scenes).pq[1] == evaluated(scenes[::-1]).pq[1] == pytest.approx(np.mean(ious))


def test_void_leaves_the_union_and_excuses_more_than_half():
    chair = [1] * 4 + [-1] * 6
    assert evaluated([[chair, [0] * 10, [1] * 10, [0] * 10]]).pq[1] == 1
    # A second chair of 6 vertices: with 3 of them on void it is surplus, with 4 it is excused.
    for void, surplus in ((3, 1), (4, 0)):
        truth = [1] * 4 + [-1] * void + [0] * (6 - void)
        scores = evaluated([[truth, [0] * 10, [1] * 10, [0] * 4 + [1] * 6]])
        assert (scores.hits[1], scores.surplus[1], scores.missed[0]) == (1, surplus, 1)
    # Things without a number are void.
    assert evaluated([[[1] * 10, [0] * 4 + [-1] * 6, [1] * 10, [0] * 10]]).pq[1] == 1


def test_half_is_no_match():
    assert evaluated([[[1, 1], [0, 0], [1, -1], [0, -1]]]).pq[1] == 0
    assert evaluated([[[1, 1, 1], [0] * 3, [1, 1, -1], [0] * 3]]).pq[1] == pytest.approx(2 / 3)


def test_means_json_and_lines_say_the_same():
    # Wall right, chair one of two, floor missed, table nowhere.
    truth = [[0, 0, 1, 1, 2], [-1, -1, 0, 1, -1]]
    scores = evaluated([[*truth, [0, 0, 1, 3, -1], [-1, -1, 4, -1, -1]]])
    assert scores.groups == ("all", "things", "stuff", "head", "tail")
    assert np.array_equal(scores.pq, [1, 2 / 3, 0, np.nan], equal_nan=True)
    assert scores.mean("stuff") == (0.5, 0.5, 0.5)
    assert scores.mean("things") == (2 / 3, 1, 2 / 3)
    assert scores.mean() == pytest.approx((5 / 9, 2 / 3, 5 / 9)) and scores.mean("head").pq == pytest.approx(
        1 / 3
    )
    assert np.isnan(scores.mean("tail")).all()
    told = json.loads(json.dumps(scores.as_dict(), allow_nan=False))
    assert told["means"]["stuff"] == {"classes": 2, "classes_present": 2, "pq": 0.5, "sq": 0.5, "rq": 0.5}
    assert told["means"]["tail"]["pq"] is None
    assert told["classes"][1] == {
        "name": "chair", "hits": 1, "surplus": 0, "missed": 1, "pq": 2 / 3, "sq": 1.0, "rq": 2 / 3
    }  # fmt: skip
    lines = [line.split() for line in scores.text().splitlines()]
    assert ["chair", "66.67", "100.00", "66.67", "1", "0", "1"] in lines
    assert ["stuff", "50.00", "50.00", "50.00", "2", "of", "2"] in lines
    assert not any(line[:1] == ["table"] for line in lines)


def test_tensors_and_small_integers_are_taken():
    scene = [[0, 0, 1, 1, 1, -1], [-1, 9, 3, 3, 4, 4], [0, 0, 1, 1, 3, 3], [-1, -1, 0, 0, 1, 1]]
    expected = evaluated([scene])
    assert expected.hits.tolist() == [1, 1, 0, 0]
    for kind in (torch.int32, torch.int16):
        evaluator = PanopticEvaluator(LABELS)
        evaluator.add(*(torch.tensor(part, dtype=kind) for part in scene))
        assert evaluator.merged().scores().pq.tobytes() == expected.pq.tobytes()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, [0, 1], r"target_instances have the shape \(3,\), not \(2,\)"),
        (2, [0, 1], r"labels have the shape \(2,\), not \(3,\)"),
        (3, [[0, 1, 2]], r"instances have the shape \(1, 3\), not \(3,\)"),
        (1, [0.0, 1.0, 2.0], "target_instances must be whole numbers, not float64"),
        (0, [0, 4, 1], "class index 4: rooms has 4 classes, 0 ... 3"),
        (2, [0, 1, 9], "class index 9: rooms has 4 classes, 0 ... 3"),
    ],
)
def test_bad_input_is_refused_and_counts_nothing(place, value, message):
    evaluator = PanopticEvaluator(LABELS)
    scene = [[0, 1, 2]] * 4
    with pytest.raises(ValueError, match=message):
        evaluator.add(*(np.array(value if i == place else part) for i, part in enumerate(scene)))
    assert not evaluator.scores().present.any()


def test_stuff_of_scannet_is_wall_and_floor():
    labels = load_labels("scannet200")
    everything = np.arange(200)
    scores = evaluated([[everything, everything, everything, everything]], labels)
    told = scores.as_dict()["means"]
    assert [told[group]["classes"] for group in scores.groups] == [200, 198, 2, 66, 68, 66]
    assert all(told[group]["pq"] == 1 for group in scores.groups)
