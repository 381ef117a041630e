"""The Lovász-Softmax loss: a smooth stand-in for 1 - mean IoU."""

import torch
from torch import Tensor

from lground.losses.common import in_float32

AT_ONCE = 1 << 23  # points times classes that are sorted together, at some 40 bytes each


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
    if not len(labels):
        return logits.sum() * 0
    present = torch.unique(labels)
    slopes = _slopes(p.detach(), labels, present)
    # The loss is linear in p while the order of the errors lasts: one product, and nothing kept per class.
    return (torch.dot(slopes.flatten(), p.flatten()) - slopes.gather(1, labels[:, None]).sum()) / len(present)


@torch.no_grad()
def _slopes(p: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """Derivative (N, C) of the sum over the classes `present` by p (N, C): some classes at a time, for the memory."""
    slopes = torch.zeros_like(p)
    rank = torch.arange(1, len(labels) + 1, device=labels.device)
    for classes in present.split(max(1, AT_ONCE // len(labels))):
        own = labels == classes[:, None]  # (c, N)
        mine = p.t()[classes]
        order = torch.where(own, 1 - mine, mine).argsort(dim=1, descending=True, stable=True)
        hit = own.gather(1, order)
        seen = hit.cumsum(1, dtype=torch.int32).to(p.dtype)  # counts: exact
        left = seen[:, -1:] - seen  # |A and B| with the first k points mistaken
        union = seen[:, -1:] + rank - seen
        # J_k - J_(k-1) in closed form: the difference of two nearly equal numbers has few digits left.
        step = torch.where(hit, -1.0 / union, left / (union * (union - 1)).clamp(min=1))
        slopes[:, classes] = torch.empty_like(step).scatter_(1, order, step).t()
    return slopes
