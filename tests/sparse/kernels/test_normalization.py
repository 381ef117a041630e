"""Fused batch norm against torch's own modules in float64: values, gradients, running statistics."""

import copy

import pytest
import torch
from closeness import assert_close
from torch import nn

from lground.sparse.kernels.normalization import batch_norm, plain_batch_norm

TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 2e-6}
TYPES = list(TOLERANCE)


def make_norm(channels: int, device, **options) -> nn.BatchNorm1d:
    """With parameters and running statistics that are no one's defaults."""
    norm = nn.BatchNorm1d(channels, **options)
    generator = torch.Generator().manual_seed(channels)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            if tensor is not None:
                tensor.copy_(torch.randn(channels, generator=generator))
        if norm.running_var is not None:
            norm.running_var.copy_(torch.rand(channels, generator=generator) + 0.5)
    return norm.to(device)


def rows(count: int, channels: int, dtype, device, seed: int = 0, mean: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, channels, generator=generator) * 2 + mean).to(device, dtype)


def run(function, norm, x, add, relu, gradient) -> dict[str, torch.Tensor]:
    """Output and gradients by name."""
    inputs = {"x": x.clone().requires_grad_()}
    if add is not None:
        inputs["add"] = add.clone().requires_grad_()
    y = function(inputs["x"], norm, inputs.get("add"), relu)
    y.backward(gradient.to(y.dtype))
    return {"y": y.detach()} | {k: v.grad for k, v in (inputs | dict(norm.named_parameters())).items()}


def compare(norm, x, add, relu, device, tolerance=None) -> dict[str, torch.Tensor]:
    """Both from the same state; where a ReLU's input is near zero, y decides which side it is on."""
    norm.zero_grad()
    exact = copy.deepcopy(norm).double()
    gradient = rows(*x.shape, torch.float32, device, seed=7, mean=0.5).to(x.dtype)
    found = run(batch_norm, norm, x, add, relu, gradient)
    doubles = x.double(), None if add is None else add.double()
    if relu:
        gradient = gradient * (found["y"] > 0)
        wanted = run(plain_batch_norm, exact, *doubles, False, gradient.double())
        wanted["y"] = wanted["y"].relu()
    else:
        wanted = run(plain_batch_norm, exact, *doubles, False, gradient.double())
    tolerance = tolerance or TOLERANCE[x.dtype]
    for name, value in wanted.items():
        assert_close(found[name], value, tolerance)
    for (name, value), other in zip(exact.named_buffers(), norm.buffers(), strict=True):
        assert torch.allclose(other.double(), value.double(), rtol=1e-5, atol=1e-6), name
    assert found["y"].dtype == found["x"].dtype == x.dtype
    return found


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_add", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_values_gradients_and_running_statistics(dtype, training, with_add, relu, device):
    norm = make_norm(48, device).train(training)
    x = rows(300, 48, dtype, device)
    add = rows(300, 48, dtype, device, seed=1, mean=0.0) if with_add else None
    compare(norm, x, add, relu, device)


MANY = {
    8: 1000,
    16: 1000,
    32: 1000,
    96: 500,
    128: 300,
    136: 300,
    512: 100,
}  # rows that several programs share


@pytest.mark.parametrize(
    "channels, count", [(channels, count) for channels, many in MANY.items() for count in (5, 33, many)]
)
def test_sizes(count, channels, device):
    """Of few rows the gradient is a small difference of large terms."""
    x = rows(count, channels, torch.float32, device)
    compare(make_norm(channels, device), x, x.flip(0), True, device, 1e-4 if count == 5 else None)


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": None},
        {"momentum": 0.3},
        {"momentum": 0.0},
        {"eps": 0.1},
        {"affine": False},
        {"track_running_stats": False},
        {"affine": False, "track_running_stats": False},
    ],
    ids=str,
)
def test_options(options, device):
    norm = make_norm(32, device, **options)
    for seed in range(3):
        compare(norm, rows(90, 32, torch.float32, device, seed), None, True, device)
    compare(norm.eval(), rows(90, 32, torch.float32, device, 5), None, True, device)


def test_statistics_frozen_by_hand(device):
    """Training mode with tracking switched off later on: statistics of the batch, running ones untouched."""
    norm = make_norm(16, device)
    norm.track_running_stats = False
    before = copy.deepcopy(norm.state_dict())
    compare(norm, rows(50, 16, torch.float32, device), None, False, device)
    assert all(value.equal(before[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_changed_statistic_shows_in_its_version(device, momentum):
    """By which compiled plans of inference notice that a network was trained on."""
    norm = make_norm(16, device, momentum=momentum)
    before = {name: buffer._version for name, buffer in norm.named_buffers()}
    batch_norm(rows(50, 16, torch.float32, device), norm)
    assert all(buffer._version > before[name] for name, buffer in norm.named_buffers())
    assert norm.num_batches_tracked.item() == 1
    before = {name: buffer._version for name, buffer in norm.named_buffers()}
    batch_norm(rows(50, 16, torch.float32, device), norm.eval())
    assert all(buffer._version == before[name] for name, buffer in norm.named_buffers())


def test_a_mean_far_from_zero_costs_no_more_digits_than_x_has(device):
    x = rows(3000, 16, torch.float32, device) + 1e4
    y = batch_norm(x, nn.BatchNorm1d(16).to(device))
    assert_close(y, plain_batch_norm(x.double(), nn.BatchNorm1d(16).double().to(device)), 1e-3)


def test_one_row_has_no_variance(device):
    norm, x = make_norm(16, device), rows(1, 16, torch.float32, device)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm(x, norm)
    compare(norm.eval(), x, None, False, device)


def test_no_row_leaves_the_running_statistics_alone(device):
    norm = make_norm(16, device)
    before = norm.running_mean.clone()
    assert batch_norm(torch.empty(0, 16, device=device), norm, relu=True).shape == (0, 16)
    assert norm.running_mean.equal(before)


def test_residual_of_another_type(device):
    x, add = rows(90, 32, torch.float16, device), rows(90, 32, torch.float32, device, seed=1)
    add.requires_grad_()
    y = batch_norm(x, make_norm(32, device), add, relu=True)
    assert y.dtype == torch.float32
    y.sum().backward()
    assert add.grad.equal((y > 0).float())


def test_only_what_is_asked_for_gets_a_gradient(device):
    x, add = (rows(90, 32, torch.float32, device, seed) for seed in range(2))
    for asked in ("x", "add", "weight"):
        norm = make_norm(32, device).requires_grad_(asked == "weight")
        leaves = {"x": x.clone(), "add": add.clone(), "weight": norm.weight}
        leaves[asked].requires_grad_()
        batch_norm(leaves["x"], norm, leaves["add"], relu=True).sum().backward()
        assert {name for name, leaf in leaves.items() if leaf.grad is not None} == {asked}


def test_under_autocast_the_features_keep_their_type(device):
    norm, x = make_norm(32, device), rows(90, 32, torch.bfloat16, device)
    with torch.autocast(device.type, torch.bfloat16):
        assert batch_norm(x, norm).dtype == norm(x).dtype == torch.bfloat16


def test_what_is_not_a_number_is_not_hidden_by_the_relu(device):
    norm, x = make_norm(16, device), rows(90, 16, torch.float32, device)
    x[3, 5] = torch.nan
    assert batch_norm(x, norm, relu=True)[:, 5].isnan().all()


def test_two_runs_give_the_same_bits(device):
    x = rows(2000, 32, torch.float32, device)
    first, second = (compare(make_norm(32, device), x, x.flip(1), True, device) for _ in range(2))
    assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [32, 96, 384])
def test_a_large_level(channels, dtype, device):
    x, add = (rows(150_000, channels, dtype, device, seed) for seed in range(2))
    runs = [compare(make_norm(channels, device), x, add, True, device, 1e-2) for _ in range(2)]
    assert all(runs[0][name].equal(runs[1][name]) for name in runs[0])
