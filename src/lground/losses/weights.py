"""Class weights from how many points each class has: pure functions of counts (C,).

The paper's weights come as a file that was not published; its formula, as relayed, is `log_frequency`. It
favours frequent classes although it is described as favouring rare ones, so `inverse_log_frequency` is what
this package trains with.
"""

import torch
from torch import Tensor


def inverse_log_frequency(counts: Tensor) -> Tensor:
    """Weights (C,) float32 1 / ln(1.02 + f_c) with f_c the share of class c (ENet, Paszke et al. 2016).

    Ours, not the paper's. Scaled to average 1 over the points, so that rare classes weigh more and the loss
    keeps its size.
    """
    share = counts.double() / counts.sum().clamp(min=1)
    weights = 1 / torch.log(1.02 + share)
    average = (weights * share).sum()
    return (weights / torch.where(average > 0, average, weights.mean())).float()


def log_frequency(counts: Tensor) -> Tensor:
    """Weights (C,) float32 log n_c / sum_j log n_j, the paper's formula as relayed, summing to 1.

    It gives frequent classes more, against its stated purpose, and makes the loss about C times smaller; here
    for reproduction. A class with at most one point gets 0.
    """
    logs = torch.log(counts.double().clamp(min=1))
    return (logs / logs.sum().clamp(min=1e-12)).float()


def log_prior(counts: Tensor) -> Tensor:
    """Log of the share of each class in the training labels (C,) float32; that of one point for a class without any.

    Added to logits while training, times tau, it lets a classifier learn what speaks for a class apart from how
    frequent it is: the prior is taken out where the classifier is used, and rare classes gain (Menon et al., Long-tail
    learning via logit adjustment, ICLR 2021, eq. 10).
    """
    return torch.log(counts.double().clamp(min=1) / counts.sum().clamp(min=1)).float()
