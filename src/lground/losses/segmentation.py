"""Losses of the segmentation stage: (N, C) logits against (N,) labels, -1 where a point is ignored."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lground.losses.common import IGNORE, Reduction, in_float32, reduce


@in_float32
def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weights: Tensor | None = None,
    kept: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy over the labelled points, or those of them that are `kept` (N,) bool.

    Each point counts times the weight (C,) of its class. Unlike torch's, the mean divides by the number of
    points, not by their weights, and is 0 when no point counts.
    """
    weights = None if weights is None else weights.to(logits)
    loss = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORE, reduction="none")
    labelled = labels >= 0
    return reduce(loss, labelled if kept is None else labelled & kept, reduction)


@in_float32
def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    weights: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017, eq. 5, over C classes): w_y (1 - p_y)^gamma (-log p_y).

    `weights` (C,) are the class weights (alpha); the mean is over labelled points and not divided by the
    weights, as in the original, so choose weights whose average over points is 1 (`inverse_log_frequency`)
    to keep the step size.
    """
    surprise = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")  # -log p_y
    doubt = -torch.expm1(-surprise)  # 1 - p_y without cancellation
    doubt = doubt.clamp(min=1e-12)  # a finite slope at p_y = 1 also for gamma < 1
    loss = doubt**gamma * surprise
    if weights is not None:
        loss = loss * weights.to(loss)[labels.clamp(min=0)]
    return reduce(loss, labels >= 0, reduction)


def keep_ratios(
    splits: Mapping[str, Any], num_classes: int, *, head: float = -1.0, common: float = -1.0
) -> Tensor:
    """Fraction (C,) of the points of each class to keep in the loss, from head/common/tail class indices.

    A ratio of 0 or less keeps all, as the original's `balanced_sample_{head,common}_ratio`; the tail is
    always kept.
    """
    ratios = torch.ones(num_classes)
    for name, ratio in (("head", head), ("common", common)):
        ratios[torch.as_tensor(splits[name])] = ratio if ratio > 0 else 1.0
    return ratios


def sample_for_balancing(
    labels: Tensor, ratios: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Choose at random, of the points of every class c, round(ratios[c] * number) of them; (N,) bool.

    labels (N,), ratios (C,) in 0..1. Feed the result to `cross_entropy(..., kept=...)`; the original
    divides by all points, ignored and dropped ones included: reduction="mean_all".
    """
    device = generator.device if generator is not None else labels.device
    shuffled = torch.randperm(len(labels), generator=generator, device=device).to(labels.device)
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]  # by class, random inside a class
    grouped = labels[order]
    counts = torch.bincount(labels[labels >= 0], minlength=len(ratios))
    first = (labels < 0).sum() + counts.cumsum(0) - counts
    quota = torch.round(ratios.to(labels.device, torch.float64) * counts).long()
    place = torch.arange(len(labels), device=labels.device)
    own = grouped.clamp(min=0)
    kept = torch.zeros_like(labels, dtype=torch.bool)
    kept[order] = (grouped >= 0) & (place - first[own] < quota[own])
    return kept


def recall_weights(logits: Tensor, labels: Tensor) -> Tensor:
    """Weights (C,) false negatives / points of each class in this batch (Tian et al., Recall Loss).

    A class whose points are all right counts one false negative, so it never drops out; one that is absent
    gets 1. Ignored points do not enter; no gradient. (The original counts them as points of class 1, or
    fails, and fails when at most one class has an error.)
    """
    labelled, classes = labels >= 0, logits.shape[1]
    missed = labelled & (logits.detach().argmax(1) != labels)
    points = torch.bincount(labels[labelled], minlength=classes)
    misses = torch.bincount(labels[missed], minlength=classes)
    return misses.clamp(min=1) / points.clamp(min=1)


def recall_cross_entropy(logits: Tensor, labels: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy weighted by how much of each class the present prediction misses (`recall_weights`).

    The original averages over all points, ignored ones included: reduction="mean_all".
    """
    return cross_entropy(
        logits, labels, weights=recall_weights(logits, labels).to(logits), reduction=reduction
    )


@in_float32
def soft_iou_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - mean over the classes present of the soft IoU of the labelled points (Rahman, Wang, ISVC 2016).

    Soft IoU of class c with p the soft-max and t one-hot: sum_i p_ic t_ic / sum_i (p_ic + t_ic - p_ic t_ic).
    """
    labelled = labels >= 0
    p = logits.softmax(1) * labelled[:, None]
    own = labels.clamp(min=0)
    hit = p.gather(1, own[:, None])[:, 0]
    per_class = p.new_zeros(logits.shape[1])
    intersection = per_class.index_add(0, own, hit)
    points = per_class.index_add(0, own, labelled.to(p))
    union = p.sum(0) + points - intersection
    present = points > 0
    return reduce(1 - intersection / union.clamp(min=1e-12), present, "mean")


@in_float32
def soft_iou_loss_per_point(logits: Tensor, labels: Tensor) -> Tensor:
    """The original's soft IoU, which takes every point for a picture: 1 - mean_i p_{i, y_i} / C.

    Over labelled points. It cannot fall below 1 - 1 / C: for comparison only, use `soft_iou_loss`.
    """
    p = logits.softmax(1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return 1 - reduce(p, labels >= 0) / logits.shape[1]
