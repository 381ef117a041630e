"""The convolution kernel against its plain twin, and what it leaves alone."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from closeness import assert_close
from pyramids import table_of, tiles_of

from lground.sparse import KernelMap, functional
from lground.sparse.kernels.configuration import choose
from lground.sparse.kernels.convolution import convolution, takes
from lground.sparse.kernels.pyramid import Pyramid
from lground.sparse.kernels.shapes import MAX_SPLITS, PROGRAMS, Config
from lground.sparse.kernels.tf32 import operand, plain_round_to_tf32
from lground.sparse.kernels.tiles import TILE_ROWS, Tiles

# A sum of n float32 terms, one by one, is off by about 2^-24 sqrt(n); TF32 cuts significands off after 10 bits.
ROUNDING = 2**-24 * (27 * 384) ** 0.5
TOLERANCE = {torch.float32: ROUNDING, torch.float16: 6e-4, torch.bfloat16: 5e-3, "tf32": 3e-3}


@pytest.fixture(scope="module")
def small(scan, build) -> Pyramid:
    return build(scan(110))


@pytest.fixture(scope="module")
def large(scan, build) -> Pyramid:
    return build(scan(40_000))


@pytest.fixture(params=["small", pytest.param("large", marks=pytest.mark.gpu)])
def maps(request) -> Pyramid:
    """With few tiles, whose walks are split, or many."""
    return request.getfixturevalue(request.param)


def tiles_and_twin(pyramid: Pyramid, kind: str, level: int = 0) -> tuple[Tiles, KernelMap]:
    """What the kernel reads of a map, and the same map as plain lists of pairs."""
    table = table_of(pyramid, kind, level)
    pairs = [(row[row >= 0].long(), (row >= 0).nonzero().squeeze(1)) for row in table]
    inputs, outputs = zip(*pairs, strict=True)
    rows = pyramid.counts()[level + (kind == "up")]
    return tiles_of(pyramid, kind, level), KernelMap(inputs, outputs, rows, table.shape[1])


def operands(twin: KernelMap, c_in: int, c_out: int, dtype=torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(c_in + c_out)
    x = torch.randn(twin.input_rows, c_in, generator=generator)
    kernel = torch.randn(len(twin), c_in, c_out, generator=generator) / c_in**0.5
    device = twin.inputs[0].device
    dtype = torch.float32 if dtype == "tf32" else dtype
    return x.to(device, dtype), kernel.to(device, dtype)


def expected(x, kernel, twin: KernelMap, epilogue: functional.Epilogue | None = None) -> torch.Tensor:
    """In float64."""
    return functional.sparse_convolution(x.double(), kernel.double(), twin, epilogue)


def default(tiles: Tiles, kernel: torch.Tensor) -> Config:
    return choose(tiles, *kernel.shape[1:], kernel.dtype)


def empty(tiles: Tiles, kernel: torch.Tensor) -> torch.Tensor:
    return kernel.new_full((tiles.capacity, kernel.shape[2]), 7.0)


WIDTHS = [(16, 16), (32, 32), (48, 32), (64, 64), (96, 96), (128, 128), (256, 96), (32, 256)]
WIDTHS += [(32, 192), (192, 32), (64, 384), (384, 64)]


def check_widths(pyramid: Pyramid, c_in: int, c_out: int, dtype, level: int = 0) -> None:
    tiles, twin = tiles_and_twin(pyramid, "same", level)
    x, kernel = operands(twin, c_in, c_out, dtype)
    precision = "ieee"
    if dtype == "tf32":  # the tf32 matrix unit wants input channels side by side
        kernel, precision = kernel.transpose(1, 2).contiguous().transpose(1, 2), "tf32"
    out = convolution(x, kernel, tiles, empty(tiles, kernel), default(tiles, kernel), precision=precision)
    assert_close(out[: twin.output_rows], expected(x, kernel, twin), TOLERANCE[dtype])
    assert (out[twin.output_rows :] == 7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("c_in, c_out", WIDTHS)
def test_widths(small, c_in, c_out, dtype):
    check_widths(small, c_in, c_out, dtype, level=1)


@pytest.mark.gpu
@pytest.mark.parametrize("c_in, c_out", WIDTHS)
def test_widths_at_a_large_level(large, c_in, c_out):
    check_widths(large, c_in, c_out, torch.float16)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, "tf32"])
@pytest.mark.parametrize("c_in, c_out", [(32, 32), (128, 96)])
def test_types_at_a_large_level(large, c_in, c_out, dtype):
    check_widths(large, c_in, c_out, dtype)


@pytest.mark.parametrize("c_in, c_out", [(32, 32), (128, 96)])
@pytest.mark.parametrize("kind, level", [("same", 3), ("down", 0), ("down", 2), ("up", 0), ("up", 3)])
def test_maps_of_all_kinds(maps, kind, level, c_in, c_out):
    tiles, twin = tiles_and_twin(maps, kind, level)
    x, kernel = operands(twin, c_in, c_out)
    out = convolution(x, kernel, tiles, empty(tiles, kernel), default(tiles, kernel))
    assert_close(out[: twin.output_rows], expected(x, kernel, twin), ROUNDING)


def test_the_mirrored_walk_is_the_adjoint(maps):
    """`<conv(x), y> = <x, mirrored conv(y)>` with the transposed matrices."""
    tiles, twin = tiles_and_twin(maps, "same")
    x, kernel = operands(twin, 32, 64)
    y, _ = operands(twin, 64, 32)
    back = kernel.transpose(1, 2)  # of any strides
    of_x = convolution(y, back, tiles, empty(tiles, back), default(tiles, back), mirrored=True)
    assert_close(of_x[: len(x)], expected(y, back, twin.transposed), ROUNDING)
    inner = (expected(x, kernel, twin) * y.double()).sum()
    assert (of_x[: len(x)].double() * x.double()).sum().item() == pytest.approx(inner.item(), rel=1e-5)


@pytest.mark.parametrize("splits", [1, 2, 4, 8])
@pytest.mark.parametrize("steps", ["many", "fewer than parts"])
def test_a_walk_may_be_split(maps, scan, build, splits, steps, device):
    pyramid = maps if steps == "many" else build(scan(110)[:1])
    tiles, twin = tiles_and_twin(pyramid, "same")
    x, kernel = operands(twin, 32, 96)
    arrivals = torch.zeros(tiles.capacity // TILE_ROWS + 3, dtype=torch.int32, device=device)
    runs = [
        convolution(x, kernel, tiles, empty(tiles, kernel), Config(96, 32, 4, 2, splits), arrivals=arrivals)
        for _ in range(2)
    ]
    runs += [
        convolution(x, kernel, tiles, empty(tiles, kernel), Config(96, 32, 4, 2, splits)) for _ in range(2)
    ]
    assert_close(runs[0][: len(x)], expected(x, kernel, twin), ROUNDING)
    assert all(run.equal(runs[0]) for run in runs) and not arrivals.any()


def test_what_was_in_memory_before_does_not_show(small):
    tiles, twin = tiles_and_twin(small, "same")
    x, kernel = operands(twin, 32, 32)
    found = []
    for value in (torch.nan, 1e30):
        junk = [torch.full((4 * tiles.capacity, 32), value, device=x.device) for _ in range(4)]
        del junk  # the allocator hands it out again
        out = empty(tiles, kernel)
        convolution(x, kernel, tiles, out, Config(32, 32, 4, 2, 4))
        found.append(out)
    assert found[0].equal(found[1]) and found[0].isfinite().all()


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("scale, shift, add, relu", list(product([False, True], repeat=4)))
def test_epilogues(small, scale, shift, add, relu, splits):
    tiles, twin = tiles_and_twin(small, "same", 2)
    x, kernel = operands(twin, 16, 96)
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(2, 96, generator=generator).to(x.device)
    residual = torch.randn(tiles.capacity, 96, generator=generator).to(x.device)
    after = functional.Epilogue(
        vector[0] if scale else None, vector[1] if shift else None, residual if add else None, relu
    )
    out = empty(tiles, kernel)
    config = Config(96, 16, 4, 2, splits)
    convolution(x, kernel, tiles, out, config, after.scale, after.shift, after.add, relu)
    wanted = expected(x, kernel, twin, replace(after, add=residual[: len(x)].double() if add else None))
    assert_close(out[: len(x)], wanted, ROUNDING)


@pytest.mark.parametrize("splits", [1, 2])
def test_what_is_not_a_number_stays_so(maps, splits):
    """A ReLU hides no NaN, and only the rows that meet one have it."""
    tiles, twin = tiles_and_twin(maps, "same")
    x, kernel = operands(twin, 32, 32)
    x[17, 3] = torch.nan
    out = convolution(x, kernel, tiles, empty(tiles, kernel), Config(32, 32, 4, 2, splits), relu=True)[
        : len(x)
    ]
    wanted = expected(x, kernel, twin).relu()
    assert out.isnan().any() and out.isnan().equal(wanted.isnan())


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("kind", ["same", "up", "down"])
def test_rows_may_be_written_elsewhere(small, kind, splits):
    """`order` says where, and the residual is read from the row itself."""
    tiles, twin = tiles_and_twin(small, kind)
    x, kernel = operands(twin, 32, 32)
    rows = twin.output_rows
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0)).to(x.device)
    add = torch.randn(rows, 32, generator=torch.Generator().manual_seed(1)).to(x.device)
    out = empty(tiles, kernel)
    convolution(x, kernel, tiles, out, Config(32, 32, 4, 2, splits), add=add, order=order)
    wanted = expected(x, kernel, twin, functional.Epilogue(add=add.double()))
    assert_close(out[order], wanted, ROUNDING)


@pytest.mark.parametrize("splits", [1, 2])
def test_matrices_may_be_part_of_wider_ones(small, splits):
    tiles, twin = tiles_and_twin(small, "same")
    x, kernel = operands(twin, 32, 64)
    rows = twin.output_rows
    config = Config(64, 32, 4, 2, splits)
    plain = convolution(x, kernel, tiles, empty(tiles, kernel), config, add=x.repeat(1, 2))[:rows]
    wide_x, wide_add = torch.full((2, rows, 160), torch.nan, device=x.device)
    wide_x[:, 48:80], wide_add[:, 16:80] = x, x.repeat(1, 2)
    wide_out = torch.full((tiles.capacity, 160), 7.0, device=x.device)
    matrices = torch.full((27, 64, 40), torch.nan, device=x.device)
    matrices[:, :, 8:] = kernel.transpose(1, 2)
    convolution(
        wide_x[:, 48:80], matrices[:, :, 8:].transpose(1, 2), tiles, wide_out[:, 64:128], config,
        add=wide_add[:, 16:80],
    )  # fmt: skip
    assert wide_out[:rows, 64:128].equal(plain)
    assert (wide_out[:, :64] == 7).all() and (wide_out[:, 128:] == 7).all() and (wide_out[rows:] == 7).all()


def chosen() -> dict[Config, tuple[int, int, torch.dtype]]:
    """Every default there is for widths and numbers of tiles of any network, with a layer it is for."""
    widths = [w for w in (16, 32, 64, 96, 128, 192, 256, 352, 384, 512) if takes(w, w)]
    found = {}
    dtypes, numbers = (torch.float16, torch.float32), (1, 2, 7, 19, 40, 300, 3000)
    for c_in, c_out, dtype, number, volume in product(widths, widths, dtypes, numbers, (8, 27)):
        n = torch.zeros(1, dtype=torch.int32)
        tiles = Tiles(*[None] * 8, n, TILE_ROWS, volume, number * TILE_ROWS)
        config = choose(tiles, c_in, c_out, dtype)
        assert c_out % config.columns == 0 and c_in % config.depth == 0
        assert 1 <= config.splits <= MAX_SPLITS
        if config.splits > 1:  # one list of arrivals serves all layers
            assert number * (c_out // config.columns) <= PROGRAMS
        found[replace(config, warps=4, stages=2)] = (config.depth, config.columns, dtype)
    return found


CHOSEN = chosen()


@pytest.mark.parametrize("config", CHOSEN, ids=str)
def test_defaults_are_right(small, config):
    c_in, c_out, dtype = CHOSEN[config]
    tiles, twin = tiles_and_twin(small, "same", 1)
    x, kernel = operands(twin, c_in, c_out, dtype)
    out = convolution(x, kernel, tiles, empty(tiles, kernel), config)
    assert_close(out[: len(x)], expected(x, kernel, twin), TOLERANCE[dtype])


def test_long_float32_sums_lose_no_more_than_short_ones(maps):
    """Terms of one sign, ten thousand to a sum: added one by one they would lose far more than in plain PyTorch."""
    tiles, twin = tiles_and_twin(maps, "same", 3)
    x, kernel = (t.abs() for t in operands(twin, 384, 32))
    wanted = expected(x, kernel, twin)
    found = convolution(x, kernel, tiles, empty(tiles, kernel), Config(32, 16, 4, 3, 1))[: len(x)]
    usual = functional.sparse_convolution(x, kernel, twin)
    assert (found - wanted).norm() <= (usual - wanted).norm()


def test_results_may_be_rounded_to_tf32(maps):
    tiles, twin = tiles_and_twin(maps, "same", 3)
    x, kernel = operands(twin, 32, 32)
    exact, rounded = (
        convolution(x, kernel, tiles, empty(tiles, kernel), default(tiles, kernel), round_result=r)[: len(x)]
        for r in (False, True)
    )
    assert rounded.equal(plain_round_to_tf32(exact))
    assert not (rounded.view(torch.int32) & 0x1FFF).any()
    assert ((rounded - exact).abs() <= 2**-11 * exact.abs()).all()


def test_operands_of_the_tf32_unit_are_rounded_to_the_nearest(device):
    x = torch.randn(300, 40, generator=torch.Generator().manual_seed(0)).to(device)[:, 4:]
    found = operand(x, "tf32")
    assert found.equal(plain_round_to_tf32(x)) and found.is_contiguous()
    assert abs((found / x - 1).mean()) < 2**-15 < abs(found / x - 1).mean()
    special = torch.tensor([0x7FFFFFFF, -1, 0x7F800001], dtype=torch.int32).view(torch.float32)  # not numbers
    special = torch.cat([special, torch.tensor([torch.inf, -torch.inf, 0.0, 1.0])]).to(device)
    torch.testing.assert_close(operand(special, "tf32"), special, rtol=0, atol=0, equal_nan=True)
    assert operand(x, "ieee") is x and operand(x[:0], "tf32").shape == (0, 36)


@pytest.mark.parametrize("splits", [1, 4])
def test_the_result_may_take_the_place_of_what_is_added(maps, splits):
    tiles, twin = tiles_and_twin(maps, "same")
    x, kernel = operands(twin, 32, 96)
    add = torch.randn(tiles.capacity, 96, generator=torch.Generator().manual_seed(1)).to(x.device)
    config = Config(96, 32, 4, 2, splits)
    wanted = convolution(x, kernel, tiles, empty(tiles, kernel), config, add=add, relu=True)[: len(x)]
    assert convolution(x, kernel, tiles, add, config, add=add, relu=True)[: len(x)].equal(wanted)


def test_widths_without_a_tile_are_left_to_others():
    assert not any(takes(*widths) for widths in [(3, 32), (24, 32), (32, 48), (32, 100), (32, 3), (32, 80)])
    assert all(takes(*widths) for widths in WIDTHS)


@pytest.mark.gpu
def test_a_million_rows(scan, build):
    pyramid = build(scan(1_000_000))
    for kind in ("same", "up", "down"):
        tiles, twin = tiles_and_twin(pyramid, kind)
        x, kernel = operands(twin, 32, 32, torch.float16)
        runs = [convolution(x, kernel, tiles, empty(tiles, kernel), default(tiles, kernel)) for _ in range(2)]
        wanted = functional.sparse_convolution(x.float(), kernel.float(), twin)
        assert_close(runs[0][: len(wanted)], wanted, TOLERANCE[torch.float16])
        assert runs[0].equal(runs[1])
