"""Objects' scores: sums over scenes and processes, means and what is printed, forms of masks, bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array, csr_array

from lground.instances import Objects
from lground.labels import load_labels
from lground.metrics import InstanceEvaluator, instance_ap
from lground.scannet.benchmark import ground_truth_ids

IDS = np.array([2, 5, 7])


def scene(seed, vertices=400):
    """Objects of three classes, wall and void in runs of vertices; masks of two thirds of them or of any run."""
    r = np.random.default_rng(seed)
    runs = r.integers(5, 60, 40)
    gt_ids = np.repeat(r.choice([0, 1000, 2000, 2001, 2002, 5001, 5002, 7001], 40), runs)[:vertices]
    masks = [(gt_ids == id_) & (r.random(vertices) < 0.67) for id_ in r.choice(gt_ids, 8)]
    starts = r.integers(0, vertices - 60, 4)[:, None]
    masks += list((np.arange(vertices) >= starts) & (np.arange(vertices) < starts + 50))
    labels = [max(gt_ids[mask.argmax()] // 1000, 2) for mask in masks]
    return gt_ids, np.array(masks), np.array(labels), r.choice([0.1, 0.5, 0.9], len(masks))


def evaluated(scenes, min_vertices=20):
    evaluator = InstanceEvaluator(IDS, min_vertices)
    for one in scenes:
        evaluator.add(*one)
    return evaluator


def test_the_made_up_scenes_are_neither_right_nor_wrong():
    table = evaluated(map(scene, range(9))).scores().table
    assert ((table > 0) & (table < 1)).sum() > 15


@given(st.lists(st.integers(0, 50), max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_the_order_of_scenes_changes_no_bit(seeds, random):
    shuffled = random.sample(seeds, len(seeds))
    one, other = (evaluated(map(scene, order)).scores() for order in (seeds, shuffled))
    assert one.table.tobytes() == other.table.tobytes()
    assert np.array_equal(one.objects, other.objects)
    assert np.array_equal(
        instance_ap(map(scene, seeds), IDS, min_vertices=20).table, one.table, equal_nan=True
    )


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_only_the_order_of_scores_counts(seed):
    gt_ids, masks, labels, scores = scene(seed)
    one = evaluated([(gt_ids, masks, labels, scores)]).scores().table
    other = evaluated([(gt_ids, masks, labels, np.exp(9 * scores) - 50)]).scores().table
    assert one.tobytes() == other.tobytes()


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_numbers_of_objects_and_the_order_of_predictions_count_at_a_quarter_only(seed):
    gt_ids, masks, labels, scores = scene(seed)
    renumbered = np.where(gt_ids >= 2000, gt_ids // 1000 * 1000 + 9 - gt_ids % 1000, gt_ids)
    order = np.random.default_rng(seed).permutation(len(masks))
    one = evaluated([(gt_ids, masks, labels, scores)]).scores().table
    other = evaluated([(renumbered, masks[order], labels[order], scores[order])]).scores().table
    assert one[:, :9].tobytes() == other[:, :9].tobytes()


@given(st.integers(0, 1000), st.integers(1, 60))
@settings(max_examples=25)
def test_the_truth_itself_scores_one(seed, min_vertices):
    gt_ids, *_ = scene(seed)
    ids = np.unique(gt_ids)
    masks = gt_ids == ids[:, None]
    scores = evaluated([(gt_ids, masks, ids // 1000, np.full(len(ids), 0.5))], min_vertices).scores()
    sizes = masks.sum(1)
    counted = [((ids // 1000 == c) & (sizes >= min_vertices)).sum() for c in IDS]
    assert scores.objects.tolist() == counted
    assert np.array_equal(scores.table, np.where(scores.objects[:, None] > 0, 1, np.nan) * np.ones(10), True)


def test_objects_of_the_package_against_stored_annotation():
    """As a prepared scene and a model have them: class indices and instances from 0."""
    labels = load_labels("scannet200")
    chair, floor, table = map(labels.names.index, ("chair", "floor", "table"))
    segment = np.repeat([chair, table, chair, floor, -1], 150)
    instance = np.repeat([0, 1, 2, 3, -1], 150)
    members = [np.arange(150), np.arange(150, 300), np.arange(400)]
    found = Objects.of(750, members, [chair, table, chair], [0.9, 0.8, 0.1])
    ids = labels.ids[labels.instance_class]
    truth = ground_truth_ids(segment, instance, labels)
    scores = instance_ap([(truth, found.masks, labels.ids[found.labels], found.scores)], ids)
    first, second = (int(np.flatnonzero(ids == labels.ids[c])[0]) for c in (chair, table))
    assert scores.objects[[first, second]].tolist() == [2, 1] and scores.objects.sum() == 3
    # The third mask is surplus: above a half it hits nothing, above a quarter the chair that the first has found.
    assert scores.ap[second] == 1
    assert np.allclose(scores.table[first], 0.5, rtol=0, atol=1e-15)


def test_forms_of_masks_and_numbers_agree():
    gt_ids, masks, labels, scores = scene(3)
    expected = evaluated([(gt_ids, masks, labels, scores)]).scores().table
    rows, columns = np.nonzero(np.ones_like(masks))
    zeros_written_out = csr_array((masks.ravel(), (rows, columns)), shape=masks.shape)
    assert zeros_written_out.nnz == masks.size
    rows, columns = np.nonzero(masks)
    twice = coo_array(
        (np.full(2 * len(rows), 128, np.uint8), (np.tile(rows, 2), np.tile(columns, 2))), shape=masks.shape
    )  # whose sums are 256, 0 in a byte
    plain = csr_array(masks)
    doubled = csr_array(
        (np.repeat(plain.data, 2), np.repeat(plain.indices, 2), 2 * plain.indptr), shape=masks.shape
    )
    for form in (masks.astype(np.uint8), torch.tensor(masks), zeros_written_out, twice, doubled):
        assert evaluated([(gt_ids, form, labels, scores)]).scores().table.tobytes() == expected.tobytes()
    tensors = torch.tensor(gt_ids), masks, torch.tensor(labels, dtype=torch.int32), torch.tensor(scores)
    assert evaluated([tensors]).scores().table.tobytes() == expected.tobytes()


def test_what_is_given_stays_as_it_was():
    gt_ids, masks, labels, scores = scene(3)
    plain = csr_array(masks)
    backwards = np.concatenate([row[::-1] for row in np.split(plain.indices, plain.indptr[1:-1])])
    unsorted = csr_array((plain.data, backwards, plain.indptr), shape=masks.shape)
    before = unsorted.indices.copy()
    table = evaluated([(gt_ids, unsorted, labels, scores)]).scores().table
    assert table.tobytes() == evaluated([(gt_ids, masks, labels, scores)]).scores().table.tobytes()
    assert np.array_equal(before, unsorted.indices) and not np.array_equal(before, plain.indices)


def test_nothing_predicted_nothing_true():
    gt_ids, masks, labels, scores = scene(1)
    none = masks[:0], labels[:0], scores[:0]
    table = evaluated([(gt_ids, *none)]).scores().table
    assert set(np.unique(table[~np.isnan(table)])) == {0.0}
    scores_of_void = evaluated([(np.zeros_like(gt_ids), masks, labels, scores)]).scores()
    assert np.isnan(scores_of_void.table).all() and np.isnan(scores_of_void.mean()).all()
    for nothing in (evaluated([]), evaluated([([], np.zeros((0, 0)), [], [])])):
        assert np.isnan(nothing.scores().table).all()
        assert np.isnan(nothing.merged().scores().mean().ap)


def test_means_json_and_lines_say_the_same():
    labels = load_labels("scannet200")
    ids = labels.ids[labels.instance_class]
    evaluator = InstanceEvaluator(ids, min_vertices=1)
    chosen = np.concatenate([labels.splits["tail"][:2], labels.splits["common"][:1]])
    truth = np.repeat(labels.ids[chosen] * 1000 + 1, 10)
    masks = truth == truth[[0, 10]][:, None]  # the second of the tail found, and the first
    evaluator.add(truth, masks[:1], labels.ids[chosen[:1]], [0.5])
    scores = evaluator.scores()
    assert scores.mean() == (1 / 3, 1 / 3, 1 / 3)
    assert scores.mean("tail", labels).ap50 == 0.5 and scores.mean("common", labels).ap25 == 0
    assert np.isnan(scores.mean("head", labels).ap)
    with pytest.raises(ValueError, match="needs the label set"):
        scores.mean("head")

    told = json.loads(json.dumps(scores.as_dict(labels), allow_nan=False))
    assert told["means"]["tail"] == {"classes": 66, "classes_present": 2, "ap": 0.5, "ap50": 0.5, "ap25": 0.5}
    assert told["means"]["head"]["ap"] is None and told["means"]["head"]["classes"] == 64  # no wall, no floor
    assert told["objects"] == 3 and len(told["classes"]) == 198
    assert [c["name"] for c in told["classes"] if c["ap"] == 1] == [labels.names[chosen[0]]]
    lines = [line.split() for line in scores.lines(labels)]
    assert ["all", "33.33", "33.33", "33.33", "3", "of", "198"] in lines
    assert ["head", "-", "-", "-", "0", "of", "64"] in lines
    named = [line for line in scores.text(labels).splitlines() if line.startswith(labels.names[chosen[0]])]
    assert named[0].split()[-4:] == ["100.00", "100.00", "100.00", "1"]
    with pytest.raises(ValueError, match="scannet20 has no class of the id"):
        scores.as_dict(load_labels("scannet20"))


GOOD = np.array([2000] * 5), np.ones((1, 5), bool), np.array([2]), np.array([0.5])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, np.zeros(5), "gt_ids must be whole numbers, not float64"),
        (0, np.zeros((5, 1), int), r"gt_ids have the shape \(5, 1\), not \(N,\)"),
        (0, np.zeros(4, int), r"masks have the shape \(1, 5\), not \(P, 4\)"),
        (1, np.ones((1, 6), bool), r"masks have the shape \(1, 6\), not \(P, 5\)"),
        (1, csr_array(np.ones((1, 6), bool)), r"masks have the shape \(1, 6\), not \(P, 5\)"),
        (1, np.ones(5, bool), r"masks have the shape \(5,\)"),
        (1, np.ones((1, 5)), "masks must be bool or whole numbers, not float64"),
        (1, csr_array(np.ones((1, 5))), "masks must be bool or whole numbers, not float64"),
        (1, np.ones((2, 5), bool), r"labels of the masks have the shape \(1,\), not \(2,\)"),
        (2, np.array([2, 5]), r"labels of the masks have the shape \(2,\), not \(1,\)"),
        (2, np.array([2.0]), "labels of the masks must be whole numbers, not float64"),
        (3, np.array([0.5, 0.5]), r"scores of the masks have the shape \(2,\), not \(1,\)"),
        (3, np.array([np.nan]), "scores of the masks must be finite; number 0 is not"),
        (3, np.array([np.inf]), "must be finite"),
        (3, np.array(["a"]), "scores of the masks must be numbers"),
    ],
)
def test_bad_input_is_refused_and_counts_nothing(place, value, message):
    evaluator = evaluated([GOOD], min_vertices=1)
    before = evaluator.scores().table
    with pytest.raises(ValueError, match=message):
        evaluator.add(*(value if i == place else part for i, part in enumerate(GOOD)))
    assert evaluator.scores().table.tobytes() == before.tobytes()
    assert evaluator.scores().objects.tolist() == [1, 0, 0]


@pytest.mark.parametrize("ids", [[2, 2], [0, 1], [-1], [2.5], [], [[2]]])
def test_bad_classes_are_refused(ids):
    with pytest.raises(ValueError, match="class"):
        InstanceEvaluator(np.array(ids))
    with pytest.raises(ValueError, match="min_vertices"):
        InstanceEvaluator(IDS, min_vertices=0)


WORKER = """
import sys
import numpy as np, torch.distributed as dist
from lground.labels import load_labels
from lground.metrics import InstanceEvaluator, PanopticEvaluator
rank, store, scenes, share, out = int(sys.argv[1]), *sys.argv[2:]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
objects, panoptic = InstanceEvaluator([2, 5, 7], 20), PanopticEvaluator(load_labels("scannet20"))
with np.load(scenes) as z:
    for i in map(int, filter(None, share.split(","))):
        gt_ids, masks, labels, scores = (z[f"{i}_{part}"] for part in range(4))
        objects.add(gt_ids, masks, labels, scores)
        instance = masks.argmax(0)
        panoptic.add(gt_ids // 1000, gt_ids % 1000, labels[instance], instance)
own = objects.scores().objects.copy()
table, pq = objects.merged().scores(), panoptic.merged().scores()
assert (objects.scores().objects == own).all(), "the own counts must stay what they were"
np.savez(out, table=table.table, objects=table.objects, own=own, hits=pq.hits, missed=pq.missed,
         surplus=pq.surplus, iou_sum=pq.iou_sum)
dist.destroy_process_group()
"""


def run_processes(folder, shares):
    """What the processes of WORKER write, each counting the scenes of its share."""
    folder.mkdir()
    common = sys.executable, "-c", WORKER
    workers = [
        subprocess.Popen([*common, str(rank), folder / "store", folder.parent / "scenes.npz", share, out])
        for rank, (share, out) in enumerate(zip(shares, (folder / "0.npz", folder / "1.npz"), strict=True))
    ]
    assert [w.wait(60) for w in workers] == [0, 0]
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]


def test_processes_score_as_one_however_scenes_are_shared(tmp_path):
    scenes = list(map(scene, range(7)))
    np.savez(
        tmp_path / "scenes.npz", **{f"{i}_{p}": a for i, s in enumerate(scenes) for p, a in enumerate(s)}
    )
    one = evaluated(scenes).scores()
    everything = run_processes(tmp_path / "all_in_one", ["0,1,2,3,4,5,6", ""])
    for share in (*everything, *run_processes(tmp_path / "uneven", ["6,2,0,3,5", "1,4"])):
        assert share["table"].tobytes() == one.table.tobytes()
        assert np.array_equal(share["objects"], one.objects)
        for name in ("hits", "missed", "surplus", "iou_sum"):
            assert share[name].tobytes() == everything[0][name].tobytes()
    assert everything[0]["own"].sum() == one.objects.sum() and not everything[1]["own"].any()
    assert everything[0]["hits"].sum() > 5 and everything[0]["iou_sum"].sum() > 2


def test_the_benchmark_tells_the_time_of_a_validation_set():
    folder = Path(__file__).parents[2] / "benchmarks" / "metrics"
    small = "--scenes", "2", "--vertices", "5000", "--objects", "8", "--predictions", "20"
    outputs = [
        subprocess.run(
            [sys.executable, folder, *small, "--masks", kind], capture_output=True, text=True, check=True
        )
        for kind in ("sparse", "dense")
    ]
    tables = [output.stdout.splitlines()[:4] for output in outputs]
    assert tables[0] == tables[1] and tables[0][1].startswith("all ")
    assert "s for 312 (312 times one)" in outputs[0].stdout
