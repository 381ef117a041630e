"""Behaviour of layers beyond the golden files."""

import math

import pytest
import torch

from lground import sparse
from lground.errors import InputError
from lground.sparse import SparseConv3d, SparseConvTranspose3d, SparseTensor


def test_parameter_shapes():
    assert SparseConv3d(4, 6, 3).kernel.shape == (27, 4, 6)
    assert SparseConv3d(4, 6, (3, 1, 2)).kernel.shape == (6, 4, 6)
    assert SparseConv3d(4, 6, 1).kernel.shape == (4, 6)
    assert SparseConv3d(4, 6, 1, stride=2).kernel.shape == (1, 4, 6)
    assert SparseConvTranspose3d(4, 6, 2, bias=True).bias.shape == (1, 6)
    assert SparseConv3d(4, 6).bias is None


def test_initial_weights_are_uniform_by_fan():
    for layer, fan in ((SparseConv3d(16, 64, 3), 16 * 27), (SparseConvTranspose3d(16, 64, 2), 64 * 8)):
        bound = 1 / math.sqrt(fan)
        assert 0.99 * bound < layer.kernel.abs().max() <= bound
        assert abs(layer.kernel.std().item() - bound / math.sqrt(3)) < 0.02 * bound


@pytest.mark.parametrize("channels", [3, 16])
def test_one_voxel(channels):
    features = torch.ones(1, channels, requires_grad=True)
    x = SparseTensor(features, torch.tensor([[0, -5, 7, 1]]))
    conv = SparseConv3d(channels, 2, 3)
    y = conv(x)
    assert torch.allclose(y.features, torch.ones(1, channels) @ conv.kernel[13])
    y.features.sum().backward()
    assert conv.kernel.grad[13].eq(1).all() and conv.kernel.grad.sum() == 2 * channels
    assert torch.allclose(features.grad[0], conv.kernel[13].sum(1))
    down = SparseConv3d(channels, 2, 2, stride=2)(x)
    assert down.coordinates.tolist() == [[0, -6, 6, 0]]
    with pytest.raises(ValueError, match="more than 1 value"):
        sparse.BatchNorm(channels)(x)


def test_scenes_do_not_see_each_other(scatter):
    """A batch gives what its scenes give alone, also when a batch index in between has no voxel."""
    coordinates = scatter(200)
    coordinates[:, 0] *= 2  # batch 0 and 2; 1 is empty
    x = SparseTensor(torch.randn(len(coordinates), 9, dtype=torch.float64), coordinates)
    net = torch.nn.Sequential(
        SparseConv3d(9, 8, 3),
        SparseConv3d(8, 8, 2, stride=2),
        SparseConvTranspose3d(8, 4, 2),
        sparse.GlobalAvgPool(),
    ).double()
    together = net(x)
    assert together.coordinates.tolist() == [[0, 0, 0, 0], [2, 0, 0, 0]] and together.stride == 0
    for row, batch in enumerate((0, 2)):
        rows = coordinates[:, 0] == batch
        alone = net(SparseTensor(x.features[rows], coordinates[rows]))
        assert torch.allclose(together.features[row], alone.features[0], atol=1e-14)


def test_translation_by_a_multiple_of_the_stride_changes_nothing(scatter):
    coordinates = scatter(200)
    features = torch.randn(len(coordinates), 9, dtype=torch.float64)
    net = torch.nn.Sequential(
        SparseConv3d(9, 8, 3), SparseConv3d(8, 8, 3, stride=2), SparseConvTranspose3d(8, 4, 2)
    )
    net = net.double()
    here = net(SparseTensor(features, coordinates)).features
    for shift in ([0, -4, 2, 1000], [0, 1 << 20, -(1 << 20), (1 << 20) - 2]):
        assert torch.equal(here, net(SparseTensor(features, coordinates + torch.tensor(shift))).features)


def test_rows_follow_the_input_in_any_order(scatter):
    coordinates = scatter(200)
    features = torch.randn(len(coordinates), 9, dtype=torch.float64)
    layer = SparseConv3d(9, 4, 3).double()
    order = torch.randperm(len(coordinates))
    a = layer(SparseTensor(features, coordinates))
    b = layer(SparseTensor(features[order], coordinates[order]))
    assert torch.equal(a.coordinates[order], b.coordinates)
    assert torch.allclose(a.features[order], b.features, atol=1e-13)


def test_transposed_convolution_without_finer_map_creates_voxels():
    x = SparseTensor(torch.ones(2, 3), torch.tensor([[0, 0, 0, 0], [0, 2, 0, 0]]), stride=2)
    up = SparseConvTranspose3d(3, 2, 2)(x)
    assert up.stride == 1 and len(up) == 16
    x = SparseTensor(torch.ones(1, 3), torch.tensor([[0, 2, 2, 2]]), stride=2)
    up = SparseConvTranspose3d(3, 2, 3)(x)
    assert len(up) == 27 and up.coordinates[:, 1:].amin() == 1 and up.coordinates[:, 1:].amax() == 3
    with pytest.raises(InputError, match="stride 2 cannot be upsampled by 3"):
        SparseConvTranspose3d(3, 2, 3, stride=3)(x)


@pytest.mark.parametrize("kernel_size, stride", [(3, 1), (2, 2)])
@pytest.mark.parametrize("channels", [3, 16])
def test_same_bits_with_any_number_of_threads(channels, kernel_size, stride, scatter):
    coordinates = scatter(12000, size=12)
    torch.manual_seed(0)
    layer = SparseConv3d(channels, 16, kernel_size, stride)
    features = torch.randn(len(coordinates), channels)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 2, 1):
            torch.set_num_threads(number)
            x = SparseTensor(features.clone().requires_grad_(), coordinates)
            layer.zero_grad()
            y = layer(x).features
            y.square().sum().backward()
            results.append((y.detach(), x.features.grad, layer.kernel.grad.clone()))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(p, q) for p, q in zip(results[0], other, strict=True))


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_multiplies_in_half_precision(dtype, channels, scatter):
    coordinates = scatter(300)
    layer = SparseConv3d(channels, 8, 3, bias=True)
    x = SparseTensor(torch.randn(len(coordinates), channels, requires_grad=True), coordinates)
    full = layer(x).features
    with torch.autocast("cpu", dtype):
        half = layer(x).features
        double = layer.double()(x.with_features(x.features.double())).features
    layer.float()
    assert half.dtype == dtype and double.dtype == torch.float64
    assert (half - full).abs().max() < 0.02 * full.abs().max()
    half.float().square().sum().backward()
    assert x.features.grad.dtype == layer.kernel.grad.dtype == torch.float32
    expected = torch.autograd.grad(layer(x).features.square().sum(), layer.kernel)[0]
    assert torch.nn.functional.cosine_similarity(layer.kernel.grad.flatten(), expected.flatten(), 0) > 0.999


def test_batch_norm_becomes_synchronised_under_the_same_names():
    net = torch.nn.Sequential(SparseConv3d(3, 4), sparse.BatchNorm(4, momentum=0.02))
    keys = list(net.state_dict())
    net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(net[1].bn, torch.nn.SyncBatchNorm) and net[1].bn.momentum == 0.02
    assert list(net.state_dict()) == keys


def test_relu_in_place_overwrites_its_input():
    x = SparseTensor(torch.tensor([[-1.0, 2.0]]), torch.zeros(1, 4, dtype=torch.int32))
    assert sparse.ReLU()(x).features.tolist() == [[0, 2]] and x.features.tolist() == [[-1, 2]]
    assert sparse.ReLU(inplace=True)(x).features.tolist() == [[0, 2]] and x.features.tolist() == [[0, 2]]


def test_max_pool_ties_and_absent_voxels():
    x = SparseTensor(torch.ones(2, 1, requires_grad=True), torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]]))
    y = sparse.MaxPool3d()(x)
    y.features.sum().backward()
    assert y.features.tolist() == [[1]] and x.features.grad.tolist() == [[1], [0]]
    x = SparseTensor(
        torch.ones(1, 1), torch.tensor([[0, 1, 0, 0]])
    )  # kernel 1, stride 2 looks at the corner only
    assert sparse.MaxPool3d(1)(x).features.tolist() == [[0]]
    assert sparse.AvgPool3d(1)(x).features.tolist() == [[0]]


def test_wrong_widths_and_arguments_are_named():
    x = SparseTensor(torch.ones(1, 3), torch.zeros(1, 4, dtype=torch.int32))
    with pytest.raises(InputError, match="takes 4 channels, and the tensor has 3"):
        SparseConv3d(4, 2)(x)
    for wrong in (0, (3, 3), 2.5):
        with pytest.raises(InputError, match="kernel_size must be"):
            SparseConv3d(3, 2, wrong)
    for wrong in (0, (2, 1, 1)):
        with pytest.raises(InputError, match="stride must be"):
            SparseConv3d(3, 2, 3, stride=wrong)
