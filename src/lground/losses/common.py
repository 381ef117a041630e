"""What every loss shares: full precision under autocast, one way to average over points, checked shapes."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

IGNORE = -1
"""Label of a point that nobody annotated."""

Reduction = Literal["mean", "mean_all", "sum", "none"]
"""How losses of points become one number.

mean      sum over the counted points / their number (0 with a zero gradient when there is none)
mean_all  sum over the counted points / number of all points: what the original's trainers minimise, so that
          the fewer points of a batch are annotated, the smaller its step
sum       sum over the counted points
none      (N,), 0 where a point is not counted
"""


def in_float32(loss: Callable[P, R]) -> Callable[P, R]:
    """Run a loss in float32 (float64 for float64 inputs) whatever autocast says: half precision has too few
    digits for sums over a million points and for 1 - cosine near 0."""

    def widen(value: Any) -> Any:
        half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if half else value

    @wraps(loss)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(*map(widen, args), **{k: widen(v) for k, v in kwargs.items()})

    return run


def reduce(loss: Tensor, counted: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Losses of points `loss` (N,) where `counted` (N,) bool, to a scalar or (N,); see `Reduction`."""
    loss = torch.where(counted, loss, 0.0)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.sum() / counted.sum().clamp(min=1)
    if reduction == "mean_all":
        return loss.sum() / max(len(loss), 1)
    raise ValueError(f"reduction '{reduction}' is not one of mean, mean_all, sum, none")
