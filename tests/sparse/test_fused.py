"""Convolution, batch norm, residual and ReLU in one call give what the layers give one after the other."""

import itertools

import pytest
import torch

from lground import sparse
from lground.errors import InputError
from lground.sparse import Epilogue, SparseConv3d, SparseConvTranspose3d, SparseTensor, conv_norm, functional

CONVOLUTIONS = {
    "k3": lambda i, o: SparseConv3d(i, o, 3),
    "k3_bias": lambda i, o: SparseConv3d(i, o, 3, bias=True),
    "k2_strided": lambda i, o: SparseConv3d(i, o, 2, stride=2, bias=True),
    "k2_transposed": lambda i, o: SparseConvTranspose3d(i, o, 2),
    "k1": lambda i, o: SparseConv3d(i, o, 1),
    "k1_bias": lambda i, o: SparseConv3d(i, o, 1, bias=True),
}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tensor(coordinates: torch.Tensor, channels: int) -> SparseTensor:
    return SparseTensor(random(len(coordinates), channels), coordinates)


def norm_of(channels: int) -> sparse.BatchNorm:
    """In eval mode, with negative scales among its own and statistics far from 0 and 1."""
    norm = sparse.BatchNorm(channels).double().eval()
    norm.bn.weight.data, norm.bn.bias.data = random(channels, seed=1), random(channels, seed=2)
    norm.bn.weight.data[0].abs_().neg_()
    norm.bn.running_mean, norm.bn.running_var = random(channels, seed=3), random(channels, seed=4).square()
    return norm


def input_of(name: str, coordinates: torch.Tensor, channels: int) -> SparseTensor:
    x = tensor(coordinates, channels)
    if name != "k2_transposed":
        return x
    coarse = x.manager.coarser(x.coordinate_map, 2)
    return SparseTensor.on_map(random(len(coarse), channels), coarse, x.manager)


@pytest.mark.parametrize("channels", [3, 9], ids=["narrow", "wide"])
@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=4)), ids=str)
def test_epilogue(present, channels, scatter):
    coordinates = scatter(200)
    x, kernel = tensor(coordinates, channels), random(27, channels, 5, seed=1)
    vectors = random(5, seed=2), random(5, seed=3), random(len(x), 5, seed=4)
    scale, shift, add = (v if given else None for v, given in zip(vectors, present, strict=False))
    epilogue = Epilogue(scale, shift, add, relu=present[3])

    def expected(y: torch.Tensor) -> torch.Tensor:
        y = (
            y * (1 if scale is None else scale)
            + (0 if shift is None else shift)
            + (0 if add is None else add)
        )
        return y.relu() if present[3] else y

    kernel_map = x.manager.kernel_map(x.coordinate_map, x.coordinate_map, (3, 3, 3), (1, 1, 1))
    operands = x.features, kernel.requires_grad_(), kernel_map
    fused = functional.sparse_convolution(*operands, epilogue)
    assert not fused.requires_grad
    assert torch.allclose(fused, expected(functional.sparse_convolution(*operands)), rtol=0, atol=1e-12)
    fused = functional.pointwise_convolution(x.features, kernel[0], epilogue)
    assert not fused.requires_grad
    assert torch.allclose(fused, expected(x.features @ kernel[0]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_and_norm_in_one_pass(name, residual, affine, scatter, monkeypatch):
    conv, norm = CONVOLUTIONS[name](9, 6).double(), norm_of(6)
    if not affine:
        norm.bn = torch.nn.BatchNorm1d(6, affine=False).double().eval()
        norm.bn.running_mean, norm.bn.running_var = random(6, seed=3), random(6, seed=4).square()
    x = input_of(name, scatter(200), 9)
    plain = norm(conv(x))
    add = plain.with_features(random(len(plain), 6, seed=5)) if residual else None
    given = None if add is None else add.features.clone()
    for relu in (False, True):
        expected = plain.features if add is None else plain.features + add.features
        expected = expected.relu() if relu else expected
        assert torch.allclose(conv_norm(conv, norm, x, add, relu).features, expected, rtol=0, atol=1e-13)
        with torch.no_grad(), monkeypatch.context() as patch:
            patch.setattr(norm.bn, "forward", None)  # whoever runs the norm by itself fails
            fused = conv_norm(conv, norm, x, add, relu)
        assert fused.coordinate_map is plain.coordinate_map
        assert torch.allclose(fused.features, expected, rtol=0, atol=1e-12)
    assert add is None or torch.equal(add.features, given)


@pytest.mark.parametrize("hooked", ["conv", "norm", "torch_norm"])
def test_hooks_are_honoured(hooked, scatter):
    conv, norm = SparseConv3d(9, 6), norm_of(6)
    conv.double()
    x = tensor(scatter(100), 9)
    with torch.no_grad():
        fused = conv_norm(conv, norm, x).features
        calls = []
        module = {"conv": conv, "norm": norm, "torch_norm": norm.bn}[hooked]
        module.register_forward_pre_hook(lambda *_: calls.append("before"))
        module.register_forward_hook(lambda *_: calls.append("after"))
        assert torch.allclose(conv_norm(conv, norm, x).features, fused, atol=1e-12)
    assert calls == ["before", "after"]


def test_batch_statistics_are_never_folded(scatter):
    x, conv = tensor(scatter(100), 9), SparseConv3d(9, 6).double()
    training, without = norm_of(6).train(), norm_of(6)
    without.bn.running_mean = without.bn.running_var = None
    for norm in (training, without):
        with torch.no_grad():
            y = conv_norm(conv, norm, x, relu=False).features
        assert torch.allclose(y.mean(0), norm.bn.bias, atol=1e-12)


def test_synchronised_norm_is_folded_too(scatter):
    x, conv, norm = tensor(scatter(100), 9), SparseConv3d(9, 6).double(), norm_of(6)
    with torch.no_grad():
        expected = conv_norm(conv, norm, x).features
        synchronised = torch.nn.SyncBatchNorm.convert_sync_batchnorm(norm)
        assert isinstance(synchronised.bn, torch.nn.SyncBatchNorm)
        assert torch.equal(conv_norm(conv, synchronised, x).features, expected)


def test_residual_on_other_voxels_is_refused(scatter):
    x, conv, norm = tensor(scatter(100), 9), SparseConv3d(9, 6, 2, stride=2).double(), norm_of(6)
    add = x.with_features(random(len(x), 6))
    with pytest.raises(InputError, match="voxels"):
        conv_norm(conv, norm, x, add)
    with torch.no_grad(), pytest.raises(InputError, match="voxels"):
        conv_norm(conv, norm, x, add)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_gradients_of_norm_and_residual(relu, training):
    norm = norm_of(3).train(training).bn
    features, add = random(20, 3, seed=6).requires_grad_(), random(20, 3, seed=7).requires_grad_()
    before = features.detach().clone(), add.detach().clone()

    def run(features, add, weight, bias):
        parameters = {"norm.weight": weight, "norm.bias": bias}
        holder = torch.nn.Module()
        holder.norm = norm
        holder.forward = lambda: functional.normalize(features, norm, add, relu)
        return torch.func.functional_call(holder, parameters, ())

    assert torch.autograd.gradcheck(run, (features, add, norm.weight, norm.bias))
    assert torch.equal(features, before[0]) and torch.equal(add, before[1])  # nobody else's tensor is written


@pytest.mark.parametrize("matrix_units", [True, False])
@pytest.mark.parametrize("name", ["k3", "k2_strided", "k2_transposed"])
def test_half_precision_with_and_without_matrix_units(name, matrix_units, scatter, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrix_units)
    conv = CONVOLUTIONS[name](16, 12)
    x = input_of(name, scatter(300), 16)
    x = x.with_features(x.features.float().requires_grad_())
    weights = [x.features, conv.kernel]
    y = conv(x).features
    expected = y.detach(), *torch.autograd.grad(y.square().sum(), weights)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x).features
    assert y.dtype == torch.bfloat16
    found = y.detach().float(), *torch.autograd.grad(y.float().square().sum(), weights)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() < 0.01 * b.norm()
