"""Contrast between the points of a batch, without text: the supervised contrastive baseline.

As `language.py`, with other points in the place of anchors.
"""

import torch
from torch import Tensor

from lground.losses.common import IGNORE, Reduction, in_float32, reduce
from lground.losses.distance import Distance, row_distances
from lground.losses.language import Hinge, Ignored, charge_ignored, hinge_terms


def _by_class(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points sorted by class: order (N,), and of each class the first place and the number of points (C,)."""
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels[labels >= 0], minlength=num_classes)
    return order, (labels < 0).sum() + counts.cumsum(0) - counts, counts


def _uniform(n: int, count: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else like.device
    # Just below 1, so that floor(u * n) < n and row + u stays inside its row after rounding.
    return torch.rand(n, count, generator=generator, device=device, dtype=torch.float64).to(like.device) * (
        1 - 1e-12
    )


def draw_same_class(labels: Tensor, count: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw for every point (N,) `count` points of its class, with replacement and possibly itself.

    Returns (N, count) int64 point indices, -1 for ignored points.
    """
    labelled = labels >= 0
    order, first, counts = _by_class(labels, int(labels.max().clamp(min=0)) + 1)
    own = labels.clamp(min=0)[:, None]
    place = first[own] + (_uniform(len(labels), count, labels, generator) * counts[own]).long()
    return torch.where(labelled[:, None], order[place.clamp(max=len(labels) - 1)], IGNORE)


def draw_confused(
    labels: Tensor, confusion: Tensor, count: int = 3, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw for every point (N,) `count` points of other classes, more of those often confused with its own.

    confusion (C, C): how often class `row` was predicted as `column`. A point of class c is drawn for a
    point of class y with probability proportional to confusion[y, c] + 1. Returns (N, count) int64 point
    indices, -1 for ignored points and where no other class is present.
    """
    order, first, counts = _by_class(labels, len(confusion))
    weight = (confusion.double() + 1) * counts  # of all points of class c together, (C, C)
    weight = weight.fill_diagonal_(0).cumsum(1)
    total = weight[:, -1:]
    rows = torch.arange(len(confusion), device=labels.device)[:, None]
    ladder = (weight / total.clamp(min=1) + rows).flatten()  # row y climbs from y to y + 1
    own = labels.clamp(min=0)
    step = torch.searchsorted(
        ladder, own[:, None] + _uniform(len(labels), count, labels, generator), right=True
    )
    drawn = (step - own[:, None] * len(confusion)).clamp(0, len(confusion) - 1)  # the class drawn
    place = first[drawn] + (_uniform(len(labels), count, labels, generator) * counts[drawn]).long()
    possible = (labels >= 0) & (total[own, 0] > 0)
    return torch.where(possible[:, None], order[place.clamp(max=len(labels) - 1)], IGNORE)


@in_float32
def point_supervised_contrastive(
    features: Tensor,
    labels: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    distance: Distance = "cos",
    positive_threshold: float = 0.0,
    negative_threshold: float = 0.6,
    negative_weight: float = 1.0,
    hinge: Hinge = "each",
    ignored: Ignored = "skip",
    reduction: Reduction = "mean",
) -> Tensor:
    """Near points of the same class, away from points of others (the paper's `supcon` baseline).

    features (N, d); labels (N,); positives (N, P) from `draw_same_class` and negatives (N, K) from
    `draw_confused` are rows of `features`, which are references only: no gradient flows into them. The same
    hinges, names and defaults as `language_contrastive_loss`; the original is hinge="mean",
    ignored="zero_distance".
    """
    labelled, references = labels >= 0, features.detach()
    pull, push = hinge_terms(
        row_distances(features, references, positives.clamp(min=0), distance),
        row_distances(features, references, negatives.clamp(min=0), distance),
        negatives >= 0,
        positive_threshold=positive_threshold,
        negative_threshold=negative_threshold,
        hinge=hinge,
    )
    loss, counted = charge_ignored(
        pull + negative_weight * push, labelled, negative_weight * max(negative_threshold, 0.0), ignored
    )
    return reduce(loss, counted, reduction)
