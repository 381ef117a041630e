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
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lground.sparse.engine import Remake
from lground.sparse.kernels.launch import Kernel, cdiv, power_of_2

PROGRAMS = 384  # that make partial results, at most: three for each of an H200's 132 multiprocessors
TILE = 4096  # elements
SIZES = ("rows", "per", "programs")  # arguments whose value no kernel is compiled anew for


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
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
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
        return y, mean, scale

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, *_):
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
            _gradients[grid](
                x, y, gradient, mean, scale, weight, bias, sums if ctx.batch else None, of_x, masked,
                len(x), x.shape[1], ctx.relu, *tile, num_warps=4,
            )  # fmt: skip
        return of_x, of_weight, of_bias, of_add, None, None, None


def _normalized(x, mean, scale, weight, bias, add, relu) -> Tensor:
    y = torch.empty_like(x, dtype=x.dtype if add is None else torch.promote_types(x.dtype, add.dtype))
    grid, tile = _tiles(x)
    _normalize[grid](x, mean, scale, weight, bias, add, y, len(x), x.shape[1], relu, *tile, num_warps=4)
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
    _statistics[grid](x, means, squares, rows, per, columns, *tile, num_warps=8)
    mean, scale = (torch.empty(columns, dtype=torch.float32, device=x.device) for _ in range(2))
    update = norm.training and norm.track_running_stats and norm.running_mean is not None
    running = (norm.running_mean, norm.running_var) if update else (None, None)
    tracked = norm.num_batches_tracked if norm.momentum is None else None
    _merge_statistics[(cdiv(columns, 16),)](
        means, squares, mean, scale, *running, tracked, norm.momentum or 0.0, norm.eps,
        rows, per, grid[0], columns, power_of_2(PROGRAMS), 16, num_warps=8,
    )  # fmt: skip
    return mean, scale


def _gradient_sums(x, y, gradient, mean, scale, weight, bias, relu) -> Tensor:
    """(2, C) float32: over rows, the sums of the gradient before the ReLU, and of it times x normalised."""
    rows, columns = x.shape
    grid, tile = _tiles(x, PROGRAMS)
    parts = torch.empty(2, grid[0], columns, dtype=torch.float32, device=x.device)
    per = cdiv(rows, grid[0])
    _partial_gradient_sums[grid](
        x, y, gradient, mean, scale, weight, bias, parts, rows, per, columns, relu, *tile, num_warps=8
    )
    return parts.sum(1)


@triton.jit
def _load(matrix, row, column, end, C: tl.constexpr):
    """Tile (rows, columns) of a matrix (N, C) as float32, zero past row `end`."""
    at = row.to(tl.int64)[:, None] * C + column[None, :]
    return tl.load(matrix + at, mask=(row < end)[:, None] & (column < C)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _store(matrix, values, row, column, end, C: tl.constexpr):
    at = row.to(tl.int64)[:, None] * C + column[None, :]
    tl.store(
        matrix + at, values.to(matrix.type.element_ty), mask=(row < end)[:, None] & (column < C)[None, :]
    )


@Kernel
@triton.jit(do_not_specialize=SIZES)
def _statistics(
    x, means, squares, rows, per, C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Mean and sum of squared deviations of `per` rows."""
    lane = tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    begin = tl.program_id(0) * per
    end = tl.minimum(begin + per, rows)
    mean = tl.zeros((ROWS, COLUMNS), tl.float32)
    square = tl.zeros((ROWS, COLUMNS), tl.float32)
    seen = 0.0
    for start in tl.range(begin, end, ROWS, num_stages=3):
        value = _load(x, start + lane, column, end, C)
        seen += 1.0
        delta = tl.where((start + lane < end)[:, None], value - mean, 0.0)
        mean += delta * (1.0 / seen)
        square += delta * (value - mean)
    length = tl.maximum(end - begin, 0)
    count = ((length - lane + ROWS - 1) // ROWS).to(tl.float32)[:, None]  # of each lane
    whole = tl.sum(mean * count, 0) / tl.maximum(length, 1)
    square += count * (mean - whole[None, :]) * (mean - whole[None, :])
    at = tl.program_id(0) * C + column
    tl.store(means + at, whole, mask=column < C)
    tl.store(squares + at, tl.sum(square, 0), mask=column < C)


@Kernel
@triton.jit(do_not_specialize=SIZES)
def _merge_statistics(
    means, squares, mean, scale, running_mean, running_var, tracked, momentum, eps,
    rows, per, programs, C: tl.constexpr, PROGRAMS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.arange(0, PROGRAMS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = _load(means, program, column, programs, C)
    count = tl.minimum(tl.maximum(rows - program * per, 0), per).to(tl.float32)[:, None]
    whole = tl.sum(part * count, 0) / rows
    square = _load(squares, program, column, programs, C) + count * (part - whole) * (part - whole)
    variance = tl.sum(square, 0) / rows
    there = column < C
    tl.store(mean + column, whole, mask=there)
    tl.store(scale + column, tl.rsqrt(variance + eps), mask=there)
    if running_mean is not None:
        if tracked is not None:  # the running statistics are those of all batches so far
            momentum = 1.0 / tl.load(tracked).to(tl.float32)
        unbiased = variance * (rows / (rows - 1.0))
        _update(running_mean + column, whole, momentum, there)
        _update(running_var + column, unbiased, momentum, there)


@triton.jit
def _update(running, new, momentum, there):
    old = tl.load(running, mask=there, other=0.0).to(tl.float32)
    tl.store(running, (old + momentum * (new - old)).to(running.type.element_ty.element_ty), mask=there)


@triton.jit
def _channel(vector, column, default, C: tl.constexpr):
    """Of a vector (C,), or `default` without one: a row (1, columns) float32."""
    if vector is None:
        value = tl.full((column.shape[0],), default, tl.float32)
    else:
        value = tl.load(vector + column, mask=column < C, other=default).to(tl.float32)
    return value[None, :]


@Kernel
@triton.jit(do_not_specialize=SIZES)
def _normalize(
    x, mean, scale, weight, bias, add, y, rows,
    C: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    factor = _channel(scale, column, 0.0, C) * _channel(weight, column, 1.0, C)
    out = (_load(x, row, column, rows, C) - _channel(mean, column, 0.0, C)) * factor
    out += _channel(bias, column, 0.0, C)
    if add is not None:
        out += _load(add, row, column, rows, C)
    if RELU:
        out = tl.where(out < 0.0, 0.0, out)  # what is not a number stays so
    _store(y, out, row, column, rows, C)


@triton.jit
def _before_relu(gradient, x, y, center, factor, bias, row, column, end, C: tl.constexpr, RELU: tl.constexpr):
    """Gradient of what the ReLU was given, which was positive where y is."""
    value = _load(gradient, row, column, end, C)
    if RELU:
        if y is not None:
            out = _load(y, row, column, end, C)
        else:
            out = (
                ((_load(x, row, column, end, C) - center) * factor + bias)
                .to(x.type.element_ty)
                .to(tl.float32)
            )
        value = tl.where(out <= 0.0, 0.0, value)
    return value


@Kernel
@triton.jit(do_not_specialize=SIZES)
def _partial_gradient_sums(
    x, y, gradient, mean, scale, weight, bias, parts, rows, per,
    C: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    begin = tl.program_id(0) * per
    end = tl.minimum(begin + per, rows)
    center, inverse = _channel(mean, column, 0.0, C), _channel(scale, column, 0.0, C)
    factor, shift = inverse * _channel(weight, column, 1.0, C), _channel(bias, column, 0.0, C)
    of_bias = tl.zeros((ROWS, COLUMNS), tl.float32)
    of_weight = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in tl.range(begin, end, ROWS, num_stages=3):
        row = start + tl.arange(0, ROWS)
        value = _before_relu(gradient, x, y, center, factor, shift, row, column, end, C, RELU)
        of_bias += value
        of_weight += value * (_load(x, row, column, end, C) - center)
    at = tl.program_id(0) * C + column
    total = tl.sum(of_weight, 0)[None, :] * inverse
    tl.store(parts + at, tl.sum(of_bias, 0), mask=column < C)
    tl.store(parts + tl.num_programs(0) * C + at[None, :], total, mask=(column < C)[None, :])


@Kernel
@triton.jit(do_not_specialize=SIZES)
def _gradients(
    x, y, gradient, mean, scale, weight, bias, sums, of_x, of_add, rows,
    C: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    center, inverse = _channel(mean, column, 0.0, C), _channel(scale, column, 0.0, C)
    factor, shift = inverse * _channel(weight, column, 1.0, C), _channel(bias, column, 0.0, C)
    value = _before_relu(gradient, x, y, center, factor, shift, row, column, rows, C, RELU)
    if of_add is not None:
        _store(of_add, value, row, column, rows, C)
    if of_x is not None:
        if sums is not None:  # the statistics are functions of x
            normal = (_load(x, row, column, rows, C) - center) * inverse
            value -= (_channel(sums, column, 0.0, C) + normal * _channel(sums + C, column, 0.0, C)) / rows
        _store(of_x, value * factor, row, column, rows, C)
