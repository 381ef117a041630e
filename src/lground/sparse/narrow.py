"""Weights in half precision, made for a whole network by one launch instead of one for every layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from lground.sparse.engine import takes_over

HALF = torch.float16, torch.bfloat16
# By the identity of the weight:
_MADE: ContextVar[dict[int, Tensor] | None] = ContextVar("made", default=None)


@contextmanager
def narrowed(weights: Iterable[Tensor], device: torch.device) -> Iterator[None]:
    """Within it, in training, `narrow` finds float32 `weights` in autocast's type, if that is a half one.

    They must not change meanwhile.
    """
    halves = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) in HALF
    if not halves or not torch.is_grad_enabled() or not takes_over(device):
        yield
        return
    weights = [w for w in weights if w.dtype == torch.float32 and w.device == device and w.is_contiguous()]
    sizes = [w.numel() for w in weights]
    memory = torch.empty(sum(sizes), dtype=torch.get_autocast_dtype(device.type), device=device)
    made = [part.view(w.shape) for part, w in zip(memory.split(sizes), weights, strict=True)]
    if made:
        torch._foreach_copy_(made, [w.detach() for w in weights])
    token = _MADE.set({id(w): part for w, part in zip(weights, made, strict=True)})
    try:
        yield
    finally:
        _MADE.reset(token)


def narrow(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`weight.to(dtype)`, without gradient."""
    made = (_MADE.get() or {}).get(id(weight))
    return weight.detach().to(dtype) if made is None or made.dtype != dtype else made
