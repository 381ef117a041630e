"""Every working loss of the original: values and gradients equal to its own (tests/golden/losses)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lground import losses

FOLDER = Path(__file__).parents[1] / "golden" / "losses"
INDEX = json.loads((FOLDER / "index.json").read_text())
ORIGINAL = {"hinge": "mean", "ignored": "zero_distance"}
CLOSE = {"rtol": 2e-6, "atol": 2e-6}


def load(name: str) -> dict[str, torch.Tensor]:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as z:
        return {k: torch.from_numpy(np.array(z[k])) for k in z.files}


def cases(loss: str, key: str = "loss") -> list[str]:
    return [n for n, c in INDEX.items() if c.get(key) == loss and "error" not in c]


def check(value: torch.Tensor, of: torch.Tensor, gold: dict, gradient: str) -> None:
    """Equal value, and equal gradient of the mean over all points or of the sum (as the files were made)."""
    expected = gold["loss"]
    torch.testing.assert_close(value, expected, **CLOSE)
    (grad,) = torch.autograd.grad(value.sum(), of)
    torch.testing.assert_close(grad, gold[gradient], **CLOSE)


@pytest.mark.parametrize("name", cases("ContrastiveLanguageLoss"))
def test_language_contrastive(name):
    gold, case = load(name), INDEX[name]
    features = gold["features"].requires_grad_()
    distance = {"l1": "l1_signed"}.get(case["distance"], case["distance"])
    common = dict(
        distance=distance,
        positive_threshold=case["pos_thresh"],
        negative_threshold=case["neg_thresh"],
    )
    value = losses.language_contrastive_loss(
        features,
        gold["labels"],
        gold["anchors"],
        gold["neg_anchor_index"],
        negative_weight=case["neg_weight"],
        reduction=case["reduction"],
        **ORIGINAL,
        **common,
    )
    check(value, features, gold, "grad_features")
    pull, push = losses.language_contrastive_terms(
        features, gold["labels"], gold["anchors"], gold["neg_anchor_index"], hinge="mean", **common
    )
    labels = gold["labels"]
    labelled = (labels[:, 0] if labels.ndim == 2 else labels) >= 0
    torch.testing.assert_close(pull, gold["pos_loss"], **CLOSE)
    torch.testing.assert_close(push[labelled], gold["neg_loss"][labelled], **CLOSE)


@pytest.mark.parametrize("name", cases("ContrastiveLanguageCELoss"))
def test_language_cross_entropy(name):
    gold, case = load(name), INDEX[name]
    features = gold["features"].requires_grad_()
    value = losses.language_cross_entropy(
        features,
        gold["labels"],
        gold["anchors"],
        temperature=1,
        similarity={"l2": "l2_inverted"}.get(case["distance"], case["distance"]),
        reduction=case["reduction"],
    )
    check(value, features, gold, "grad_features")


@pytest.mark.parametrize("name", cases("PointSupConLoss"))
def test_point_supervised_contrastive(name):
    gold, case = load(name), INDEX[name]
    features = gold["features"].requires_grad_()
    value = losses.point_supervised_contrastive(
        features,
        gold["labels"],
        gold["pos_point_index"],
        gold["neg_point_index"],
        distance=case["distance"],
        positive_threshold=case["pos_thresh"],
        negative_threshold=case["neg_thresh"],
        negative_weight=case["neg_weight"],
        reduction=case["reduction"],
        **ORIGINAL,
    )
    check(value, features, gold, "grad_features")


@pytest.mark.parametrize("name", cases("FocalLoss"))
def test_focal(name):
    gold, case = load(name), INDEX[name]
    logits = gold["logits"].requires_grad_()
    weights = gold["alpha"] if gold["alpha"].numel() else None
    value = losses.focal_loss(
        logits, gold["labels"], gamma=case["gamma"], weights=weights, reduction=case["reduction"]
    )
    if case["reduction"] == "none":  # the original returns the labelled points alone
        assert not value[gold["labels"] < 0].any()
        value = value[gold["labels"] >= 0]
    check(value, logits, gold, "grad_logits")


@pytest.mark.parametrize("name", cases("RecallCrossEntropy"))
def test_recall_cross_entropy(name):
    gold, case = load(name), INDEX[name]
    logits = gold["logits"].requires_grad_()
    reduction = {"mean": "mean_all"}.get(case["reduction"], case["reduction"])
    check(
        losses.recall_cross_entropy(logits, gold["labels"], reduction=reduction), logits, gold, "grad_logits"
    )


def test_soft_iou_per_point():
    gold = load("soft_iou")
    logits, labels = gold["logits"].requires_grad_(), gold["labels"]
    labels = labels.where(labels != INDEX["soft_iou"]["ignore_label"], -1)
    check(losses.soft_iou_loss_per_point(logits, labels), logits, gold, "grad_logits")


@pytest.mark.parametrize("name", cases("sample_categories_for_balancing", "fn"))
def test_balancing(name):
    gold, case = load(name), INDEX[name]
    labels = gold["labels"]
    splits = {s: gold["freq"][:, i].nonzero()[:, 0] for i, s in enumerate(("head", "common", "tail"))}
    ratios = losses.keep_ratios(splits, 12, head=case["head_ratio"], common=case["common_ratio"])
    kept = losses.sample_for_balancing(labels, ratios, generator=torch.Generator().manual_seed(0))
    theirs = gold["grad_point_loss"] != 0  # which points the original drew
    assert not kept[labels < 0].any()
    valid = labels >= 0
    for points in (theirs & valid, kept):  # as many of every class
        points = torch.bincount(labels[points], minlength=12)
        if name == "balancing_0":
            assert torch.equal(points, torch.bincount(labels[valid], minlength=12))
    assert torch.equal(
        torch.bincount(labels[kept], minlength=12), torch.bincount(labels[theirs & valid], minlength=12)
    )


@pytest.mark.parametrize("name", ["baseline_semantic_loss_0", "baseline_semantic_loss_1"])
def test_balanced_cross_entropy(name):
    gold = load(name)
    logits = gold["logits"].requires_grad_()
    kept = gold["grad_logits"].abs().sum(1) > 0  # the points the original drew
    value = losses.cross_entropy(logits, gold["labels"], kept=kept, reduction="mean_all")
    check(value, logits, gold, "grad_logits")


def test_embedding_regression():
    gold = load("embedding_l2")
    value = losses.embedding_regression(gold["features"], gold["labels"], gold["anchors"], reduction="none")
    torch.testing.assert_close(value[gold["labels"] >= 0], gold["loss"], **CLOSE)


@pytest.mark.parametrize("name", cases("feature_sim", "fn"))
def test_anchor_similarity(name):
    gold = load(name)
    distance = {"l1": "l1_signed"}.get(INDEX[name]["distance"], INDEX[name]["distance"])
    value = losses.anchor_similarity(gold["features"], gold["anchors"], distance)
    torch.testing.assert_close(value, gold["sim"], rtol=3e-6, atol=3e-6)


def test_simsiam():
    gold = load("point_simsiam")
    torch.testing.assert_close(
        losses.point_simsiam(gold["z1"], gold["z2"], gold["corrs1"]), gold["loss"], **CLOSE
    )
    gold = load("supervised_simsiam")
    views = {k: (gold[f"{k}1"], gold[f"{k}2"]) for k in ("p", "z", "corrs", "labels")}
    value = losses.supervised_simsiam(
        views["p"], views["z"], views["corrs"], views["labels"], gold["anchors"], simsiam_weight=0
    )
    torch.testing.assert_close(value, gold["loss"], **CLOSE)


def test_offsets():
    gold = load("insseg_offsets")
    offsets = gold["offsets"].requires_grad_()
    targets = losses.offset_targets(
        gold["coords"][:, 1:], gold["centers"], INDEX["insseg_offsets"]["voxel_size"]
    )
    norm = losses.offset_norm_loss(offsets, targets, gold["instance_ids"])
    direction = losses.offset_direction_loss(offsets, targets, gold["instance_ids"])
    torch.testing.assert_close(norm, gold["offset_norm_loss"], **CLOSE)
    torch.testing.assert_close(direction, gold["offset_dir_loss"], **CLOSE)
    (grad,) = torch.autograd.grad(norm + direction, offsets)
    torch.testing.assert_close(grad, gold["grad_offsets"], **CLOSE)


def test_attribute_projections():
    gold = load("attribute_model")
    model = losses.AttributeProjections(16, 8)
    state = {}
    for k in range(8):
        state |= {
            f"attr_linears.{k}.weight": gold["weight"][k],
            f"attr_linears.{k}.bias": gold["bias"][k],
        }
    model.load_state_dict(state, strict=True)
    torch.testing.assert_close(model(gold["features"]), gold["out"], **CLOSE)


def test_every_golden_loss_is_covered():
    """A file added to the folder must be tested here."""
    known = {
        *("ContrastiveLanguageLoss", "ContrastiveLanguageCELoss", "PointSupConLoss", "FocalLoss"),
        *("RecallCrossEntropy", "SoftIoULoss", "SupervisedSimSiam", "PointSimSiamLoss"),
    }
    functions = {
        "sample_categories_for_balancing",
        "CrossEntropyLoss(none, ignore -1) + sample_categories_for_balancing",
        "embedding_loss with MSELoss(reduction=none)",
        "feature_sim",
        "offset_norm_loss, offset_dir_loss",
    }
    for name, case in INDEX.items():
        if "error" not in case:
            assert case.get("loss") in known or case.get("fn") in functions or "model" in case, name
