"""The kernels of batch normalisation: statistics, normalisation, and the two passes of the gradient.

Statistics are Welford's, one running mean per lane, merged by Chan's formula: partial results first, then all of
them at once, in fixed order. Twin: `normalization.plain_batch_norm`.
"""

import triton
import triton.language as tl

from lground.sparse.kernels.launch import Kernel

SIZES = ("rows", "per", "programs")  # arguments whose value no kernel is compiled anew for


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
def statistics(
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
def merge_statistics(
    means, squares, mean, scale, running_mean, running_var, tracked, counter, momentum, eps,
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
    if counter is not None:
        if tl.program_id(0) == 0:
            tl.store(counter, tl.load(counter) + 1)
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
def normalize(
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
def partial_gradient_sums(
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
def gradients(
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
