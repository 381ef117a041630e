"""A moving average of the weights, which generalises better than the last ones (Polyak & Juditsky, 1992)."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` whose weights follow it: average += (1 - d) (weights - average) after each update.

    d = min(decay, (1 + n) / (10 + n)) after n updates, so that a short run does not average in its start. The
    statistics of batch norm are averaged alike: they belong to the weights they were measured with.
    """

    @torch.no_grad()
    def follow(averages: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
        if not averages[0].is_floating_point():  # batch norm's count of batches
            torch._foreach_copy_(averages, weights)
            return
        n = int(count)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True).requires_grad_(False)
