"""The Lovász-Softmax loss: a smooth stand-in for 1 - mean IoU."""

import torch
from torch import Tensor

from lground.losses.common import in_float32


@in_float32
def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Lovász-Softmax (Berman et al., CVPR 2018, eq. 11 to 13) over the classes present; a scalar.

    logits (N, C); labels (N,) int64, -1 ignored. With p the soft-max over classes and the error of a point
    for class c, e_i = 1 - p_ic if the point is of class c, else p_ic,

        L = mean over the classes present of sum_k e_(k) (J_k - J_(k-1)),

    where (k) runs over the labelled points by falling error and J_k is the Jaccard loss 1 - |A and B| / |A or B|
    of mistaking just the first k of them. 0 for a perfect prediction, and where no point is labelled.
    """
    labelled = labels >= 0
    labels, p = labels[labelled], logits[labelled].softmax(1)
    slopes = _slopes(p.detach(), labels)
    own = labels[:, None]
    # The loss is linear in p while the order of the errors lasts: one product, and nothing kept per class.
    loss = torch.dot(slopes.flatten(), p.flatten()) - slopes.gather(1, own).sum()
    return loss / torch.unique(labels).numel() if len(labels) else logits.sum() * 0


@torch.no_grad()
def _slopes(p: Tensor, labels: Tensor) -> Tensor:
    """Derivative (N, C) of the sum over classes by p (N, C): one class at a time, so in memory of order N."""
    slopes = torch.zeros_like(p)
    rank = torch.arange(1, len(labels) + 1, device=labels.device)
    for c in torch.unique(labels).tolist():
        own = labels == c
        order = torch.where(own, 1 - p[:, c], p[:, c]).argsort(descending=True, stable=True)
        hit = own[order]
        seen = hit.cumsum(0).to(p.dtype)  # counts: exact
        left = seen[-1] - seen  # |A and B| with the first k points mistaken
        union = seen[-1] + rank - seen
        # J_k - J_(k-1) in closed form: the difference of two nearly equal numbers has few digits left.
        step = torch.where(hit, -1.0 / union, left / (union * (union - 1)).clamp(min=1))
        slopes[order, c] = step
    return slopes
