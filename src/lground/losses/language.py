"""Losses that pull the feature of a point to the text anchor of its class (ECCV 2022, the pretraining stage).

N points, C classes, d channels, K negatives per point. Labels are (N,) int64 class indices, -1 where a
point is ignored. Anchors are (C, d), or (C, 9, d) with the plain name in slot 0 and its eight attributed
forms after it.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lground.losses.common import IGNORE, Reduction, in_float32, reduce
from lground.losses.distance import Distance, anchor_distances, cosine, pair_distance

Hinge = Literal["each", "mean"]
Ignored = Literal["skip", "zero_distance"]


def _category(labels: Tensor) -> Tensor:
    """(N,) class indices of labels (N,) or (N, 2)."""
    return labels[:, 0] if labels.ndim == 2 else labels


def draw_negatives(
    labels: Tensor,
    num_classes: int,
    count: int = 3,
    *,
    present_only: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw for every point `count` classes other than its own, uniformly and with replacement.

    labels (N,) or (N, 2) (class, attribute); returns (N, count) int64, -1 for ignored points and where
    there is no other class. `present_only` draws among the classes that occur in `labels` (the original's
    `clip_uniform_sampling False`). Drawn on the generator's device, so a CPU generator gives the same on
    every device.
    """
    labels = _category(labels)
    labelled = labels >= 0
    if present_only:
        classes = torch.unique(labels[labelled])
        own = torch.searchsorted(classes, labels.clamp(min=0))
    else:
        classes = torch.arange(num_classes, device=labels.device)
        own = labels
    if len(classes) < 2:
        return labels.new_full((len(labels), count), IGNORE)
    device = generator.device if generator is not None else labels.device
    drawn = torch.randint(len(classes) - 1, (len(labels), count), generator=generator, device=device).to(
        labels.device
    )
    drawn = classes[drawn + (drawn >= own[:, None])]  # skip the own class
    return drawn.masked_fill(~labelled[:, None], IGNORE)


def hinge_terms(
    positive: Tensor,
    negative: Tensor,
    valid: Tensor,
    *,
    positive_threshold: float,
    negative_threshold: float,
    hinge: Hinge,
) -> tuple[Tensor, Tensor]:
    """Distances to positives (N, P) and negatives (N, K) to the two terms (N,) of a contrastive loss.

    `valid` (N, K) bool: the negatives that exist. hinge "each": max(0, t - d) of every negative, then their
    mean; "mean": max(0, t - mean of d), as the original computes.
    """
    share = valid.to(negative) / valid.sum(1, keepdim=True).clamp(min=1)
    if hinge == "each":
        pull = F.relu(positive - positive_threshold).mean(1)
        push = (F.relu(negative_threshold - negative) * share).sum(1)
    elif hinge == "mean":
        pull = F.relu(positive.mean(1) - positive_threshold)
        push = F.relu(negative_threshold - (negative * share).sum(1)) * valid.any(1)
    else:
        raise ValueError(f"hinge '{hinge}' is not one of each, mean")
    return pull, push


def charge_ignored(loss: Tensor, labelled: Tensor, cost: float, ignored: Ignored) -> tuple[Tensor, Tensor]:
    """Losses (N,) and which of them count (N,); "zero_distance" books `cost` for ignored points."""
    if ignored == "skip":
        return loss, labelled
    if ignored == "zero_distance":
        return torch.where(labelled, loss, cost), torch.ones_like(labelled)
    raise ValueError(f"ignored '{ignored}' is not one of skip, zero_distance")


@in_float32
def language_contrastive_terms(
    features: Tensor,
    labels: Tensor,
    anchors: Tensor,
    negatives: Tensor,
    *,
    distance: Distance = "cos",
    positive_threshold: float = 0.0,
    negative_threshold: float = 0.6,
    hinge: Hinge = "each",
) -> tuple[Tensor, Tensor]:
    """The two terms (N,) of `language_contrastive_loss` for every point, unweighted, 0 where ignored."""
    category = _category(labels)
    labelled, valid = category >= 0, negatives >= 0
    own, others = category.clamp(min=0), negatives.clamp(min=0)
    names = anchors[:, 0] if anchors.ndim == 3 else anchors
    if labels.ndim == 2:
        positive = pair_distance(features, anchors[own, labels[:, 1].clamp(min=0)], distance)[:, None]
        negative = anchor_distances(features, names, others, distance)
    else:
        distances = anchor_distances(features, names, torch.cat([own[:, None], others], 1), distance)
        positive, negative = distances[:, :1], distances[:, 1:]
    pull, push = hinge_terms(
        positive,
        negative,
        valid,
        positive_threshold=positive_threshold,
        negative_threshold=negative_threshold,
        hinge=hinge,
    )
    return torch.where(labelled, pull, 0.0), torch.where(labelled, push, 0.0)


def language_contrastive_loss(
    features: Tensor,
    labels: Tensor,
    anchors: Tensor,
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
    """The paper's language-grounded contrastive loss: near the own anchor, away from a few others.

    With f_i the feature, a_c the anchors, y_i the class and n_ik the drawn negatives of a point,

        L_i = max(0, d(f_i, a_{y_i}) - t_pos) + w * mean_k max(0, t_neg - d(f_i, a_{n_ik})),   d = 1 - cosine.

    features (N, d); labels (N,), or (N, 2) for (class, attribute); anchors (C, d) or (C, 9, d), may need
    gradients; negatives (N, K) from `draw_negatives`. Negatives always use the plain name.

    The original code differs from the paper as relayed; its choices go by name:
    hinge="mean"              one hinge on the mean distance of the negatives, not one per negative
    ignored="zero_distance"   ignored points count with all distances 0, that is the constant w * t_neg
    reduction="mean_all"      its trainer's objective, sum over labelled points / all points
    distance="l1_signed"      its "l1", which misses the absolute value
    """
    pull, push = language_contrastive_terms(
        features,
        labels,
        anchors,
        negatives,
        distance=distance,
        positive_threshold=positive_threshold,
        negative_threshold=negative_threshold,
        hinge=hinge,
    )
    labelled = _category(labels) >= 0
    loss, counted = charge_ignored(
        pull + negative_weight * push, labelled, negative_weight * max(negative_threshold, 0.0), ignored
    )
    return reduce(loss, counted, reduction)


@in_float32
def anchor_similarity(features: Tensor, anchors: Tensor, distance: Distance = "cos") -> Tensor:
    """Similarity (N, C) of every feature (N, d) with every anchor (C, d); its arg-max is the predicted class.

    "cos": cosine. "l2": minus the squared distance. "l1": minus the distance. "l1_signed": minus the sum of
    signed differences, as the original's "l1" (it ranks the anchors alike for every point).
    """
    if distance == "cos":
        return cosine(features, anchors)
    if distance == "l2":
        return -_squared_distances(features, anchors)
    if distance == "l1":
        return -torch.cdist(features, anchors, p=1)
    if distance == "l1_signed":
        return anchors.sum(1) - features.sum(1, keepdim=True)
    raise ValueError(f"distance '{distance}' is not one of cos, l2, l1, l1_signed")


def _squared_distances(features: Tensor, anchors: Tensor) -> Tensor:
    squares = features.square().sum(1, keepdim=True) + anchors.square().sum(1)
    return (squares - 2 * features @ anchors.T).clamp(min=0)


@in_float32
def language_cross_entropy(
    features: Tensor,
    labels: Tensor,
    anchors: Tensor,
    temperature: float | Tensor = 0.07,
    *,
    similarity: Literal["cos", "l2", "l2_inverted"] = "cos",
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy over the similarities of each point with all C anchors, divided by `temperature`.

    features (N, d); labels (N,), or (N, 2) for (class, attribute): the attributed form then takes the place
    of the own name; anchors (C, d) or (C, 9, d). "cos": cosine; "l2": minus the distance to the normalised
    anchors, of plain names. The default temperature is CLIP's initial one, which the original's signature
    names but never applies: its `contrast_ce` is temperature=1 (cosines span 2, so 200 classes can never be
    told apart well), and its "l2" uses the distance itself as logit, so that far is likely:
    similarity="l2_inverted".
    """
    category = _category(labels)
    if similarity == "cos":
        logits = _own_form_cosines(features, labels, anchors)
    elif similarity in ("l2", "l2_inverted") and labels.ndim == 1:
        sign = -1 if similarity == "l2" else 1
        logits = sign * (_squared_distances(features, F.normalize(anchors, dim=1)) + 1e-7).sqrt()
    else:
        raise ValueError(f"similarity '{similarity}' is not one of cos, l2, l2_inverted (plain names)")
    loss = F.cross_entropy(logits / temperature, category, ignore_index=IGNORE, reduction="none")
    return reduce(loss, category >= 0, reduction)


def _own_form_cosines(features: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
    """Cosines (N, C) with the plain names, but at a point's own class with the form that its label says."""
    names = anchors[:, 0] if anchors.ndim == 3 else anchors
    cosines = cosine(features, names)
    if labels.ndim == 1:
        return cosines
    own, attribute = labels.clamp(min=0).unbind(1)
    positive = 1 - pair_distance(features, anchors[own, attribute])
    return cosines.scatter_(1, own[:, None], positive[:, None])


COLDEST = 0.01  # CLIP's bound of a learned temperature


def temperature_of(log_scale: Tensor) -> Tensor:
    """The temperature that a learned number stands for: `log_scale` = -ln(temperature).

    As CLIP learns it (Radford et al., ICML 2021, section 2.5), which after every update takes `log_scale` back to where
    this is `COLDEST`: there its gradient is not lost, as it would be beyond a clamp. A fixed temperature bounds how far
    names that lie close together can be told apart: at cosines of c between two anchors their logits differ by at most
    (1 - c) / temperature.
    """
    return torch.exp(-log_scale)


@in_float32
def embedding_regression(
    features: Tensor, labels: Tensor, anchors: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Mean squared difference of features (N, d) and the anchors of their classes (original: `l2`).

    labels (N,), or (N, 2) for (class, attribute); anchors (C, d) or (C, 9, d).
    """
    category = _category(labels)
    forms = anchors if anchors.ndim == 3 else anchors[:, None]
    form = labels[:, 1].clamp(min=0) if labels.ndim == 2 else 0
    difference = features - forms[category.clamp(min=0), form]
    return reduce(difference.square().mean(1), category >= 0, reduction)


@in_float32
def feature_norm_loss(features: Tensor, target: float = 1.0, *, rescale_to: float | None = None) -> Tensor:
    """Mean squared difference of the feature norms (N, d) from `target`.

    `rescale_to` divides the loss by its own detached value, so that it always reads `rescale_to` and only the
    direction of its gradient counts; the original does so with 0.2 (`normalize_features`).
    """
    loss = (torch.linalg.vector_norm(features, dim=1) - target).square().mean()
    return loss if rescale_to is None else loss * (rescale_to / loss.detach().clamp(min=1e-12))
