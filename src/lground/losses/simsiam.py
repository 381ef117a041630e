"""SimSiam (Chen, He, CVPR 2021) between the points of two views of a scene, also beside text anchors."""

from torch import Tensor

from lground.losses.common import in_float32, reduce
from lground.losses.distance import anchor_distances, row_distances


@in_float32
def point_simsiam(predictions: Tensor, targets: Tensor, correspondence: Tensor) -> Tensor:
    """Mean cosine distance of predictions (N, d) of one view to the matching targets (M, d) of the other.

    correspondence (N,) int64: row of `targets` for each prediction, -1 for none. No gradient flows into
    `targets`.
    """
    matched = correspondence >= 0
    rows = correspondence.clamp(min=0)[:, None]
    return reduce(row_distances(predictions, targets.detach(), rows, "cos")[:, 0], matched)


@in_float32
def supervised_simsiam(
    predictions: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    correspondences: tuple[Tensor, Tensor],
    labels: tuple[Tensor, Tensor],
    anchors: Tensor,
    *,
    simsiam_weight: float = 1.0,
) -> Tensor:
    """SimSiam of two views plus the cosine distance of their predictions to the text anchors (C, d).

    Each argument is a pair, one entry per view: predictions and targets (N_v, d), correspondences (N_v,)
    into the other view's targets, labels (N_v,). Value: simsiam_weight * mean over views of `point_simsiam`
    + 1/4 the sum over views of the mean distance to the own anchor. The original computes the SimSiam term
    and drops it: simsiam_weight=0.
    """
    own = [
        reduce(anchor_distances(p, anchors, y.clamp(min=0)[:, None], "cos")[:, 0], y >= 0)
        for p, y in zip(predictions, labels, strict=True)
    ]
    loss = (own[0] + own[1]) / 4
    if simsiam_weight:
        views = [point_simsiam(predictions[v], targets[1 - v], correspondences[v]) for v in (0, 1)]
        loss = loss + simsiam_weight * (views[0] + views[1]) / 2
    return loss
