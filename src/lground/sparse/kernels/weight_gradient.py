"""Weight gradient of a sparse convolution on Triton kernels, bitwise reproducible.

`dW[k] = sum over the pairs (i, o) of offset k of x[i]^T g[o]`: per offset a long, thin matrix product whose
operands are gathered. A program takes one share of an offset's pairs (see `pairs`), keeps its sum in registers
and writes it to a place of its own; a second kernel adds an offset's partial sums in fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lground.sparse.kernels.launch import Kernel, cdiv, power_of_2
from lground.sparse.kernels.pairs import Pairs

# Pairs per share: few enough that what is in flight fits the L2 cache and that small levels fill the device,
# and many enough that partial sums are small beside what is gathered.
SHARES = 512, 4096
PROGRAMS = 1024


def weight_gradient(x: Tensor, g: Tensor, pairs: Pairs, volume: int, precision: str = "ieee") -> Tensor:
    """(K, Cin, Cout) float32: `dW[k] = sum over pairs (i, o) of offset k of x[i]^T g[o]`, K = `volume`.

    Args:
        x: (N_in, Cin), float16, bfloat16 or float32.
        g: (N_out, Cout) of the same dtype, the gradient of the output.
        pairs: which rows of x and g meet.
        precision: how float32 is multiplied: "ieee", or with the 11 significant bits of "tf32".
    """
    if x.dtype == torch.float32 and precision == "tf32":
        return _scaled_weight_gradient(x, g, pairs, volume)
    x, g = (t if t.stride(1) == 1 else t.contiguous() for t in (x, g))
    c_in, c_out, capacity = x.shape[1], g.shape[1], len(pairs.inputs)
    config = _configuration(c_in, c_out, x.dtype)
    columns = cdiv(c_out, config["BO"] + config["BO2"])
    tiles = cdiv(c_in, config["BI"]) * columns
    share = sorted((SHARES[0], cdiv(capacity * tiles, PROGRAMS), SHARES[1]))[1]
    share = power_of_2(share)  # few lengths, so that layers share schedules
    work, first = pairs.schedule(share, volume)
    shares = work.shape[1]
    partial = torch.empty(shares, c_in * c_out, dtype=torch.float32, device=x.device)
    _multiply[(shares * tiles,)](
        x, g, pairs.inputs, pairs.outputs, work, shares, partial, x.stride(0), g.stride(0),
        c_in, c_out, tiles, columns, **config,
    )  # fmt: skip
    out = torch.empty(volume, c_in, c_out, dtype=torch.float32, device=x.device)
    _add_partials[cdiv(c_in * c_out, 256), volume](partial, first, out, c_in * c_out, 16, 256)
    return out


def plain_weight_gradient(x: Tensor, g: Tensor, table: Tensor) -> Tensor:
    """(K, Cin, Cout): the definition, in the dtype of x; `table` (K, N_out), -1 where there is no input row."""
    met = table >= 0
    return torch.stack([x[row[m].long()].t() @ g[m] for row, m in zip(table, met, strict=True)])


def _scaled_weight_gradient(x: Tensor, g: Tensor, pairs: Pairs, volume: int) -> Tensor:
    """The operands scaled to the range of float16, whose significand is as long as that of TF32.

    Hopper's tensor cores take TF32 only with the summed dimension innermost, which gathered rows do not have;
    float16 they take either way, and it is half the bytes. What is 2^-29 of the largest value or less loses
    bits, and matters as little.
    """
    ranges = [torch.stack(t.aminmax()).abs().amax().clamp(min=2**-100) / 2**15 for t in (x, g)]
    halves = [torch.empty_like(t, dtype=torch.float16) for t in (x, g)]
    for half, t, range_ in zip(halves, (x, g), ranges, strict=True):
        torch.div(t, range_, out=half)
    return weight_gradient(*halves, pairs, volume).mul_(ranges[0]).mul_(ranges[1])


def _configuration(c_in: int, c_out: int, dtype: torch.dtype) -> dict:
    """Tile and launch parameters: BP pairs by BI input channels by BO + BO2 output channels.

    Lanes past the last channel cost no bandwidth, but multiplications: 96 output channels, the width of the
    finest decoder, are 64 + 32; input channels, of which the tensor cores take 64 at a time, are padded.
    """
    widest = 64 if dtype == torch.float32 else 128
    rows, columns = (min(max(16, power_of_2(c)), widest) for c in (c_in, c_out))
    more = 0
    if widest == 128 and c_out % 128 and c_out % 96 == 0:
        columns, more = 64, 32
    return {
        "BP": 32 if dtype == torch.float32 else 64,
        "BI": rows,
        "BO": columns,
        "BO2": more,
        "num_warps": 4 if rows * (columns + more) <= 128 * 96 and widest == 128 else 8,
        "num_stages": 3,
    }


@Kernel
@triton.jit(do_not_specialize=["shares"])
def _multiply(
    x, g, inputs, outputs, work, shares, partial, stride_x, stride_g,
    CI: tl.constexpr, CO: tl.constexpr, TILES: tl.constexpr, COLUMN_TILES: tl.constexpr,
    BP: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr, BO2: tl.constexpr,
):  # fmt: skip
    """Partial sum of one share of pairs and one tile of channels."""
    turn = tl.program_id(0) // TILES
    tile = tl.program_id(0) % TILES
    begin = tl.load(work + shares + turn)
    end = tl.load(work + 2 * shares + turn)
    if begin >= end:
        return
    ci = tile // COLUMN_TILES * BI + tl.arange(0, BI)
    co = tile % COLUMN_TILES * (BO + BO2) + tl.arange(0, BO)
    acc = tl.zeros((BI, BO), tl.float32)
    if BO2 > 0:
        co2 = tile % COLUMN_TILES * (BO + BO2) + BO + tl.arange(0, BO2)
        acc2 = tl.zeros((BI, BO2), tl.float32)
    for start in range(begin, end, BP):
        pair = start + tl.arange(0, BP)
        live = pair < end
        i = tl.load(inputs + pair, mask=live, other=0).to(tl.int64)
        o = tl.load(outputs + pair, mask=live, other=0).to(tl.int64)
        a = _gather(x + i * stride_x, ci, live, CI).trans(1, 0)
        acc = tl.dot(a, _gather(g + o * stride_g, co, live, CO), acc, input_precision="ieee")
        if BO2 > 0:
            acc2 = tl.dot(a, _gather(g + o * stride_g, co2, live, CO), acc2, input_precision="ieee")
    partial += tl.load(work + turn).to(tl.int64) * (CI * CO)
    _scatter(partial, acc, ci, co, CI, CO)
    if BO2 > 0:
        _scatter(partial, acc2, ci, co2, CI, CO)


@triton.jit
def _gather(rows, channels, live, C: tl.constexpr):
    there = live[:, None] & (channels < C)[None, :]
    return tl.load(rows[:, None] + channels[None, :], mask=there, other=0.0)


@triton.jit
def _scatter(partial, acc, ci, co, CI: tl.constexpr, CO: tl.constexpr):
    there = (ci < CI)[:, None] & (co < CO)[None, :]
    tl.store(partial + ci[:, None] * CO + co[None, :], acc, mask=there)


@Kernel
@triton.jit
def _add_partials(partial, first, out, SIZE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    k = tl.program_id(1)
    end = tl.load(first + k + 1)
    acc = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(tl.load(first + k), end, ROWS):
        row = start + tl.arange(0, ROWS)
        there = (row < end)[:, None] & (at < SIZE)[None, :]
        acc += tl.load(partial + row.to(tl.int64)[:, None] * SIZE + at[None, :], mask=there, other=0.0)
    tl.store(out + k.to(tl.int64) * SIZE + at, tl.sum(acc, 0), mask=at < SIZE)
