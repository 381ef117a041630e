"""Batch normalisation with residual and ReLU on Triton kernels, differentiable, bitwise reproducible.

Bound by memory: `y = relu((x - mean) * scale + bias + add)` reads x twice, for its statistics and for y, and
the backward pass reads x, y and the incoming gradient twice. Statistics are Welford's, one running mean per
lane, merged by Chan's formula: at most PROGRAMS partial results, then all of them at once, in fixed order.
Kept for the backward pass are x and the two statistics, and with a residual y, whose sign is the ReLU's. The
rest is computed again: x normalised, the gradient before the ReLU, and without a residual y itself. Where y
goes into a convolution, that one need not keep it either: it finds in `y.remake` how to make it again.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lground.sparse.engine import Remake
from lground.sparse.kernels.launch import cdiv, power_of_2
from lground.sparse.kernels.norm_kernels import (
    gradients,
    merge_statistics,
    normalize,
    partial_gradient_sums,
    statistics,
)

PROGRAMS = 384  # that make partial results, at most: three for each of an H200's 132 multiprocessors
TILE = 4096  # elements


def batch_norm(x: Tensor, norm: nn.BatchNorm1d, add: Tensor | None = None, relu: bool = False) -> Tensor:
    """(N, C): `relu(norm(x) + add)`, differentiable; ReLU and residual if wanted.

    Args:
        x: (N, C), float16, bfloat16 or float32.
        norm: parameters, running statistics (updated in training) and mode; of any floating dtype.
        add: (N, C) or None.
        relu: whether negative values become zero.

    Returns:
        The dtype of x, or what x and `add` promote to.

    Raises:
        ValueError: one row in training, as `norm` does.
    """
    if len(x) < 2:  # torch knows what to say
        return plain_batch_norm(x, norm, add, relu)
    batch = norm.training or norm.running_mean is None
    y, mean, scale = _BatchNorm.apply(x, norm.weight, norm.bias, add, norm, batch, relu)
    if add is None and torch.is_grad_enabled():
        Remake.note(
            y,
            (x.contiguous(), mean, scale, norm.weight, norm.bias),
            partial(_normalized, add=None, relu=relu),
        )
    return y


def plain_batch_norm(
    x: Tensor, norm: nn.BatchNorm1d, add: Tensor | None = None, relu: bool = False
) -> Tensor:
    """The definition."""
    out = norm(x) if add is None else norm(x) + add
    return out.relu() if relu else out


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, add, norm, batch, relu):
        x = x.contiguous()
        add = None if add is None else add.contiguous()
        if batch:
            mean, scale = _batch_statistics(x, norm)
        else:
            mean, scale = norm.running_mean.float(), torch.rsqrt(norm.running_var.float() + norm.eps)
        y = _normalized(x, mean, scale, weight, bias, add, relu)
        ctx.save_for_backward(x, y if relu and add is not None else None, mean, scale, weight, bias)
        ctx.batch, ctx.relu, ctx.add_type = batch, relu, None if add is None else add.dtype
        ctx.mark_non_differentiable(mean, scale)
        ctx.set_materialize_grads(False)  # of mean and scale: two launches for zeros that nobody reads
        return y, mean, scale

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, *_):
        if gradient is None:
            return (None,) * 7
        x, y, mean, scale, weight, bias = ctx.saved_tensors
        want_x, want_weight, want_bias, want_add, *_ = ctx.needs_input_grad
        gradient = gradient.contiguous()
        sums = of_x = of_weight = of_bias = of_add = None
        if want_weight or want_bias or (want_x and ctx.batch):
            sums = _gradient_sums(x, y, gradient, mean, scale, weight, bias, ctx.relu)
        if want_weight or want_bias:
            of_bias, of_weight = sums.to(weight.dtype)
        if want_x:
            of_x = torch.empty_like(x)
        if want_add:
            of_add = gradient.to(ctx.add_type) if not ctx.relu else torch.empty_like(y, dtype=ctx.add_type)
        masked = of_add if ctx.relu else None
        if want_x or masked is not None:
            grid, tile = _tiles(x)
            gradients[grid](
                x, y, gradient, mean, scale, weight, bias, sums if ctx.batch else None, of_x, masked,
                len(x), x.shape[1], ctx.relu, *tile, num_warps=4,
            )  # fmt: skip
        return of_x, of_weight, of_bias, of_add, None, None, None


def _normalized(x, mean, scale, weight, bias, add, relu) -> Tensor:
    y = torch.empty_like(x, dtype=x.dtype if add is None else torch.promote_types(x.dtype, add.dtype))
    grid, tile = _tiles(x)
    normalize[grid](x, mean, scale, weight, bias, add, y, len(x), x.shape[1], relu, *tile, num_warps=4)
    return y


def _tiles(x: Tensor, programs: int | None = None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Launch grid and tile (rows, columns); with `programs`, that many at most share the rows."""
    columns = min(power_of_2(x.shape[1]), 128)
    rows = TILE // columns
    down = max(1, cdiv(len(x), rows))
    down = down if programs is None else min(down, programs)
    return (down, cdiv(x.shape[1], columns)), (rows, columns)


def _batch_statistics(x: Tensor, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation (C,) float32; updates the running ones."""
    rows, columns = x.shape
    grid, tile = _tiles(x, PROGRAMS)
    per = cdiv(rows, grid[0])
    means, squares = (torch.empty(grid[0], columns, dtype=torch.float32, device=x.device) for _ in range(2))
    statistics[grid](x, means, squares, rows, per, columns, *tile, num_warps=8)
    mean, scale = (torch.empty(columns, dtype=torch.float32, device=x.device) for _ in range(2))
    update = norm.training and norm.track_running_stats and norm.running_mean is not None
    running = (norm.running_mean, norm.running_var) if update else (None, None)
    tracked, counter = None, norm.num_batches_tracked if update else None
    if counter is not None and norm.momentum is None:
        tracked, counter = counter.add_(1), None  # which all programs read
    if update:  # who watches them shall see it
        torch.autograd.graph.increment_version([t for t in (*running, counter) if t is not None])
    merge_statistics[(cdiv(columns, 16),)](
        means, squares, mean, scale, *running, tracked, counter, norm.momentum or 0.0, norm.eps,
        rows, per, grid[0], columns, power_of_2(PROGRAMS), 16, num_warps=8,
    )  # fmt: skip
    return mean, scale


def _gradient_sums(x, y, gradient, mean, scale, weight, bias, relu) -> Tensor:
    """(2, C) float32: over rows, the sums of the gradient before the ReLU, and of it times x normalised."""
    rows, columns = x.shape
    grid, tile = _tiles(x, PROGRAMS)
    parts = torch.empty(2, grid[0], columns, dtype=torch.float32, device=x.device)
    per = cdiv(rows, grid[0])
    partial_gradient_sums[grid](
        x, y, gradient, mean, scale, weight, bias, parts, rows, per, columns, relu, *tile, num_warps=8
    )
    return parts.sum(1)
