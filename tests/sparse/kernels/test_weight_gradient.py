"""Pair lists and the weight gradient made from them, against their definitions."""

from itertools import pairwise

import pytest
import torch
from closeness import assert_close

from lground.sparse.kernels.pairs import Pairs, build_pairs
from lground.sparse.kernels.weight_gradient import plain_weight_gradient, weight_gradient

TOLERANCE = {torch.float16: 1e-6, torch.float32: 1e-6}  # products of halves are exact, sums are in float32


def random_table(rows: int, inputs: int, density: list[float], seed: int = 0) -> torch.Tensor:
    """(K, rows) int32: at offset k a share `density[k]` of the rows meets an input row, each another one."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.full((len(density), rows), -1, dtype=torch.int32)
    for k, share in enumerate(density):
        count = min(round(share * rows), inputs)
        outputs = torch.randperm(rows, generator=generator)[:count].sort().values
        table[k, outputs] = torch.randperm(inputs, generator=generator)[:count].int()
    return table


def operands(table, inputs, c_in, c_out, dtype, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(inputs, c_in, generator=generator).to(dtype)
    g = torch.randn(table.shape[1], c_out, generator=generator).to(dtype)
    return x.to(device), g.to(device)


def count(n: int, device) -> torch.Tensor:
    return torch.tensor([n], dtype=torch.int32, device=device)


def listed(pairs: Pairs) -> list[tuple[torch.Tensor, torch.Tensor]]:
    starts = pairs.starts.tolist()
    return [(pairs.inputs[a:b], pairs.outputs[a:b]) for a, b in pairwise(starts)]


def check(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    assert found.dtype == torch.float32
    assert_close(found, wanted, tolerance)


@pytest.mark.parametrize("rows, n", [(1, 1), (5, 5), (1024, 1024), (2300, 2300), (2304, 1100), (1024, 0)])
def test_pairs_are_the_occupied_entries_in_order(rows, n, device):
    table = random_table(rows, 3000, [0.5, 0.0, 1.0, 0.01]).to(device)
    pairs = build_pairs(table, count(n, device))
    assert len(pairs.inputs) == len(pairs.outputs) == pairs.starts[-1] == (table[:, :n] >= 0).sum()
    for row, (inputs, outputs) in zip(table, listed(pairs), strict=True):
        wanted = (row[:n] >= 0).nonzero().squeeze(1)
        assert outputs.equal(wanted.int()) and inputs.equal(row[wanted])


def test_a_table_may_be_part_of_a_larger_one(device):
    whole = random_table(3000, 3000, [0.5, 0.3]).to(device)
    for view in (whole[:, 700:2100], whole.t().contiguous().t()[:, 5:]):
        n = count(view.shape[1], device)
        found, wanted = build_pairs(view, n), build_pairs(view.contiguous(), n)
        assert found.inputs.equal(wanted.inputs) and found.outputs.equal(wanted.outputs)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_rows_can_be_numbered_as_the_caller_does(dtype, device):
    table = random_table(1500, 1500, [0.5, 0.2]).to(device)
    of_input, of_output = (torch.randperm(1500).to(device, dtype) for _ in range(2))
    plain = build_pairs(table, count(1500, device))
    pairs = build_pairs(table, count(1500, device), of_input, of_output)
    assert pairs.inputs.equal(of_input[plain.inputs].int())
    assert pairs.outputs.equal(of_output[plain.outputs].int())


def test_a_capacity_bounds_what_is_written_and_read(device):
    table = random_table(1200, 1200, [0.5, 0.5]).to(device)
    exact = build_pairs(table, count(1200, device))
    found = len(exact.inputs)
    roomy = build_pairs(table, count(1200, device), capacity=found + 500)
    assert roomy.inputs[:found].equal(exact.inputs) and roomy.starts.equal(exact.starts)
    tight = build_pairs(table, count(1200, device), capacity=found - 100)
    assert tight.inputs.equal(exact.inputs[: found - 100]) and tight.starts.equal(exact.starts)
    x, g = operands(table, 1200, 16, 16, torch.float32, device)
    assert weight_gradient(x, g, roomy, 2).equal(weight_gradient(x, g, exact, 2))
    shorter = weight_gradient(x, g, tight, 2)
    table[1, exact.outputs[-100:].long()] = -1
    check(shorter, plain_weight_gradient(x.double(), g.double(), table), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    "c_in, c_out",
    [(16, 16), (32, 48), (48, 32), (96, 96), (128, 96), (96, 128), (16, 192), (192, 16), (3, 32)],
)
def test_widths(c_in, c_out, dtype, device):
    table = random_table(150, 170, [0.3, 0.0, 1.0]).to(device)  # the second offset has no pair
    x, g = operands(table, 170, c_in, c_out, dtype, device)
    found = weight_gradient(x, g, build_pairs(table, count(150, device)), 3)
    check(found, plain_weight_gradient(x.double(), g.double(), table), TOLERANCE[dtype])
    assert not found[1].any()


def test_many_shares_of_dense_and_sparse_offsets(device):
    """One offset has several shares, one has a full and a short one, one a few pairs, and one none."""
    table = random_table(3000, 3000, [0.01, 1.0, 0.0, 0.25]).to(device)
    x, g = operands(table, 3000, 16, 16, torch.float32, device)
    pairs = build_pairs(table, count(3000, device))
    found = weight_gradient(x, g, pairs, 4)
    check(found, plain_weight_gradient(x.double(), g.double(), table), 1e-6)
    assert weight_gradient(x, g, pairs, 4).equal(found), "two runs differ"


@pytest.mark.parametrize("rows", [0, 1])
def test_hardly_any_rows(rows, device):
    table = torch.zeros(27, rows, dtype=torch.int32, device=device)
    x, g = operands(table, 1, 32, 16, torch.float32, device)
    found = weight_gradient(x, g, build_pairs(table, count(rows, device)), 27)
    check(found, plain_weight_gradient(x.double(), g.double(), table), 1e-6)


def test_operands_with_gaps_between_rows_and_columns(device):
    table = random_table(150, 150, [0.3, 1.0]).to(device)
    wide, _ = operands(table, 150, 64, 16, torch.float32, device)
    pairs = build_pairs(table, count(150, device))
    x, g = wide[:, 16:48], wide.t().contiguous().t()[:, :16]
    assert weight_gradient(x, g, pairs, 2).equal(weight_gradient(x.contiguous(), g.contiguous(), pairs, 2))


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e15])
def test_tf32_is_as_precise_as_its_significand_at_any_scale(size, device):
    table = random_table(150, 150, [0.5, 1.0]).to(device)
    x, g = operands(table, 150, 32, 32, torch.float32, device)
    g = g * size
    found = weight_gradient(x, g, build_pairs(table, count(150, device)), 2, "tf32")
    check(found, plain_weight_gradient(x.double(), g.double(), table), 2**-10)
    zero = weight_gradient(x, 0 * g, build_pairs(table, count(150, device)), 2, "tf32")
    assert not zero.any()


def test_what_is_not_finite_shows(device):
    """A scaler of losses looks for it in the gradients."""
    table = random_table(150, 150, [1.0]).to(device)
    for dtype, precision in ((torch.float16, "ieee"), (torch.float32, "ieee"), (torch.float32, "tf32")):
        for bad in (torch.inf, torch.nan):
            x, g = operands(table, 150, 16, 16, dtype, device)
            g[17, 3] = bad
            found = weight_gradient(x, g, build_pairs(table, count(150, device)), 1, precision)
            assert not found[:, :, 3].isfinite().any()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("c_in, c_out", [(32, 32), (96, 96), (128, 96), (192, 128), (384, 256)])
def test_a_large_level(c_in, c_out, dtype, device):
    density = [0.15 if k % 2 else 0.4 for k in range(27)]
    density[13] = 1.0
    table = random_table(150_000, 150_000, density).to(device)
    x, g = operands(table, 150_000, c_in, c_out, dtype, device)
    pairs = build_pairs(table, count(150_000, device))
    wanted = plain_weight_gradient(x.double(), g.double(), table)
    for precision, tolerance in (("ieee", 1e-5), ("tf32", 1e-3)):
        found = weight_gradient(x, g, pairs, 27, precision)
        check(found, wanted, tolerance)
        assert weight_gradient(x, g, pairs, 27, precision).equal(found), "two runs differ"
