"""The first convolution and its weight gradient against their plain twin."""

import pytest
import torch
from closeness import assert_close

from lground.sparse import KernelMap, SparseTensor, functional
from lground.sparse.kernels import stem
from lground.sparse.kernels.pyramid import Pyramid

# A sum of n float32 terms, one by one, is off by about 2^-24 sqrt(n); TF32 cuts significands off after 10 bits.
ROUNDING = 2**-24 * (40_000) ** 0.5
TOLERANCE = {torch.float32: ROUNDING, torch.float16: 6e-4, torch.bfloat16: 5e-3, "tf32": 3e-3}
SIZES = [110, pytest.param(40_000, marks=pytest.mark.gpu)]
windows = pytest.mark.parametrize("window", [3, 5])


@pytest.fixture(scope="module", params=SIZES)
def voxels(request, scan) -> torch.Tensor:
    return scan(request.param, scenes=2)


@pytest.fixture(scope="module")
def pyramid(voxels, build) -> Pyramid:
    return build(voxels)


@pytest.fixture(scope="module")
def plain_maps(voxels) -> dict[int, KernelMap]:
    return {window: plain_map(voxels, window) for window in (3, 5)}


def plain_map(voxels: torch.Tensor, window: int) -> KernelMap:
    """The map of the window between rows as they were given."""
    plain = SparseTensor(torch.zeros(len(voxels), 1), voxels.cpu())
    found = plain.manager.kernel_map(plain.coordinate_map, plain.coordinate_map, (window,) * 3, (1, 1, 1))
    pairs = (tuple(t.to(voxels.device) for t in side) for side in (found.inputs, found.outputs))
    return KernelMap(*pairs, len(voxels), len(voxels), found.identity)


def operands(voxels, window: int, channels: int, width: int, dtype) -> tuple[torch.Tensor, ...]:
    """Features, matrices, and a gradient of the result."""
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(len(voxels), channels, generator=generator)
    kernel = torch.randn(window**3, channels, width, generator=generator) / channels**0.5
    g = torch.randn(len(voxels), width, generator=generator)
    dtype = torch.float32 if dtype == "tf32" else dtype
    return tuple(t.to(voxels.device, dtype) for t in (x, kernel, g))


def convolve(x, kernel, pyramid, window, dtype=None, rows=None, **epilogue) -> torch.Tensor:
    """As the sorted rows, or with `rows` as the caller's."""
    out = x.new_full((pyramid.caps[0], kernel.shape[2]), 7.0)
    features, weights = stem.sort_features(x, pyramid, kernel.dtype), stem.lay_out_weights(kernel)
    precision = "tf32" if dtype == "tf32" else "ieee"
    return stem.stem_convolution(
        features, weights, pyramid, window, out, rows, **epilogue, precision=precision
    )


gpu = pytest.mark.gpu  # the interpreter has neither type


@windows
@pytest.mark.parametrize(
    "channels, width, dtype",
    [
        (1, 32, torch.float32),
        (3, 32, torch.float32),
        (4, 16, torch.float16),
        (5, 64, torch.float32),
        (8, 128, torch.float16),
        pytest.param(3, 32, torch.bfloat16, marks=gpu),
        pytest.param(3, 32, "tf32", marks=gpu),
    ],
)
def test_result_and_weight_gradient(voxels, pyramid, plain_maps, window, channels, width, dtype):
    x, kernel, g = operands(voxels, window, channels, width, dtype)
    assert stem.takes(kernel, window)
    wide = kernel.double().requires_grad_()
    wanted = functional.sparse_convolution(x.double(), wide, plain_maps[window])
    n = len(voxels)
    order = pyramid.order[:n]
    found = convolve(x, kernel, pyramid, window, dtype)
    assert_close(found[:n], wanted[order], TOLERANCE[dtype])
    assert (found[n:] == 7).all()
    assert convolve(x, kernel, pyramid, window, dtype, pyramid.order)[order].equal(found[:n])

    wanted.backward(g.double())
    precision = "tf32" if dtype == "tf32" else "ieee"
    features = stem.sort_features(x, pyramid, kernel.dtype)
    runs = [
        stem.stem_gradient(features, g, pyramid, window, channels, pyramid.order, precision) for _ in range(2)
    ]
    assert_close(runs[0], wide.grad, 3e-3 if dtype == "tf32" else ROUNDING)  # of halves, products are exact
    assert runs[0].equal(runs[1])


def test_on_any_voxels(build, device):
    """One voxel, both ends of the range, and a missing scene."""
    first, last = -(1 << 16), (1 << 16) - 1
    for rows in ([[3, -1, 5, 0]], [[0, first, last, 0], [2, first, last, 1], [2, first, last - 1, 3]]):
        voxels = torch.tensor(rows, dtype=torch.int32, device=device)
        pyramid = build(voxels)
        for window in (3, 5):
            x, kernel, _ = operands(voxels, window, 3, 32, torch.float32)
            wanted = functional.sparse_convolution(x.double(), kernel.double(), plain_map(voxels, window))
            found = convolve(x, kernel, pyramid, window, rows=pyramid.order)
            assert_close(found[: len(rows)], wanted, ROUNDING)


@windows
def test_epilogue_and_wider_result(voxels, pyramid, window):
    x, kernel, _ = operands(voxels, window, 3, 32, torch.float32)
    scale, shift = torch.randn(2, 32, generator=torch.Generator().manual_seed(2)).to(x.device)
    n = len(voxels)
    plain = convolve(x, kernel, pyramid, window)[:n]
    found = convolve(x, kernel, pyramid, window, scale=scale, shift=shift, relu=True)[:n]
    assert_close(found, (plain.double() * scale + shift).relu(), ROUNDING)
    wide = torch.full((n, 96), 7.0, device=x.device)
    features, weights = stem.sort_features(x, pyramid, kernel.dtype), stem.lay_out_weights(kernel)
    stem.stem_convolution(features, weights, pyramid, window, wide[:, 32:64], None)
    assert wide[:, 32:64].equal(plain)
    assert (wide[:, :32] == 7).all() and (wide[:, 64:] == 7).all()


def test_what_is_not_a_number_stays_so(voxels, pyramid, plain_maps):
    x, kernel, _ = operands(voxels, 3, 3, 32, torch.float32)
    x[17, 1] = torch.nan
    found = convolve(x, kernel, pyramid, 3, rows=pyramid.order, relu=True)[: len(x)]
    wanted = functional.sparse_convolution(x, kernel, plain_maps[3])
    assert found.isnan().any() and found.isnan().equal(wanted.isnan())


def test_features_may_be_columns_of_a_wider_matrix(voxels, pyramid):
    x, kernel, _ = operands(voxels, 3, 3, 32, torch.float32)
    wide = torch.nn.functional.pad(x, (2, 4), value=torch.nan)
    found = convolve(wide[:, 2:5], kernel, pyramid, 3)
    assert found[: len(x)].equal(convolve(x, kernel, pyramid, 3)[: len(x)])
