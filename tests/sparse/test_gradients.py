"""Every operation against finite differences, in float64."""

import pytest
import torch

from lground import sparse
from lground.sparse import SparseTensor

CONVOLUTIONS = {
    "k3": lambda i, o: sparse.SparseConv3d(i, o, 3, bias=True),
    "k2_one_sided": lambda i, o: sparse.SparseConv3d(i, o, 2),
    "k312": lambda i, o: sparse.SparseConv3d(i, o, (3, 1, 2)),
    "k3_dilated": lambda i, o: sparse.SparseConv3d(i, o, 3, dilation=2),
    "k2_strided": lambda i, o: sparse.SparseConv3d(i, o, 2, stride=2, bias=True),
    "k3_strided": lambda i, o: sparse.SparseConv3d(i, o, 3, stride=2),
    "k1": lambda i, o: sparse.SparseConv3d(i, o, 1, bias=True),
    "k1_strided": lambda i, o: sparse.SparseConv3d(i, o, 1, stride=2),
}
OTHERS = {
    "sum_pool": sparse.SumPool3d,
    "avg_pool": sparse.AvgPool3d,
    "avg_pool_k3": lambda: sparse.AvgPool3d(3, stride=1),
    "max_pool": sparse.MaxPool3d,
    "max_pool_k3": lambda: sparse.MaxPool3d(3, stride=2),
    "global_sum": sparse.GlobalSumPool,
    "global_avg": sparse.GlobalAvgPool,
    "global_max": sparse.GlobalMaxPool,
    "relu": sparse.ReLU,
    "batch_norm": lambda: sparse.BatchNorm(3),
    "instance_norm": lambda: sparse.InstanceNorm(3),
}


def check(layer: torch.nn.Module, features: torch.Tensor, tensor) -> None:
    """Finite differences for the features and every parameter; `tensor(features)` is the input."""
    names, values = zip(*layer.named_parameters(), strict=True) if list(layer.parameters()) else ((), ())

    def run(features, *values):
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, parameters, (tensor(features),)).features

    inputs = [features, *(v.detach().double().clone() for v in values)]
    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in inputs])


def features_for(coordinates: torch.Tensor, channels: int) -> torch.Tensor:
    return torch.randn(
        len(coordinates), channels, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("channels", [3, 9], ids=["narrow", "wide"])  # two ways to multiply
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name, channels, scatter):
    coordinates = scatter(16, size=2)
    x = SparseTensor(features_for(coordinates, channels), coordinates)
    check(CONVOLUTIONS[name](channels, 2).double(), x.features, x.with_features)


@pytest.mark.parametrize("channels", [3, 9], ids=["narrow", "wide"])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("onto_existing", [True, False])
def test_transposed_convolution(kernel, channels, onto_existing, scatter):
    fine = SparseTensor(torch.zeros(1, 1), torch.zeros(1, 4, dtype=torch.int32))
    if onto_existing:
        coordinates = scatter(16, size=2)
        fine = SparseTensor(torch.zeros(len(coordinates), 1), coordinates)
        coarse = fine.manager.coarser(fine.coordinate_map, 2)
        x = SparseTensor.on_map(features_for(coarse.coordinates, channels), coarse, fine.manager)
    else:
        coordinates = scatter(4, size=2) * torch.tensor([1, 2, 2, 2], dtype=torch.int32)
        x = SparseTensor(features_for(coordinates, channels), coordinates, stride=2)
    check(sparse.SparseConvTranspose3d(channels, 2, kernel, bias=True).double(), x.features, x.with_features)


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers(name, scatter):
    coordinates = scatter(16, size=2)
    x = SparseTensor(features_for(coordinates, 3), coordinates)
    check(OTHERS[name]().double(), x.features, x.with_features)


def test_cat_and_addition(scatter):
    coordinates = scatter(10, size=2)
    x = SparseTensor(features_for(coordinates, 3), coordinates)
    check(
        torch.nn.Identity(), x.features, lambda f: sparse.cat(x.with_features(f), x, x.with_features(f * f))
    )
    check(torch.nn.Identity(), x.features, lambda f: x.with_features(f) + x.with_features(f * f))


def test_only_what_is_asked_for_gets_a_gradient(scatter):
    coordinates = scatter(40)
    for channels in (3, 9):
        layer = sparse.SparseConv3d(channels, 4, 3)
        x = SparseTensor(torch.randn(len(coordinates), channels), coordinates)
        layer(x).features.sum().backward()
        assert x.features.grad is None and layer.kernel.grad is not None
        frozen = sparse.SparseConv3d(channels, 4, 3).requires_grad_(False)
        features = torch.randn(len(coordinates), channels, requires_grad=True)
        frozen(x.with_features(features)).features.sum().backward()
        assert features.grad is not None and frozen.kernel.grad is None
