"""The network whose norms are folded into its convolutions is the network."""

import pytest
import torch

from lground.models import build
from lground.sparse import SparseTensor


@pytest.fixture(scope="module")
def scan() -> SparseTensor:
    """A bumpy floor and a wall."""
    x, y = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    floor = torch.stack([x, y, (x * y) % 3], -1).reshape(-1, 3)
    wall = torch.stack([torch.full_like(x, -1), x, y], -1).reshape(-1, 3)
    rows = torch.nn.functional.pad(torch.cat([floor, wall]), (1, 0))
    generator = torch.Generator().manual_seed(0)
    return SparseTensor(torch.rand(len(rows), 3, generator=generator) - 0.5, rows)


def outputs(net: torch.nn.Module, x: SparseTensor) -> list[torch.Tensor]:
    return [y.features.detach() for y in net(x)]


@pytest.mark.parametrize("name", ["Res16UNet14A", "insseg_Res16UNet14A", "Res16UNet14AR"])
def test_folded_norms_change_nothing(name, scan, filled):
    net = filled(build(name)).double().eval()
    x = scan.with_features(scan.features.double())
    apart = outputs(net, x)  # gradients are enabled: norms run by themselves
    with torch.no_grad():
        fused = outputs(net, x)
    for a, b in zip(fused, apart, strict=True):
        assert (a - b).norm() < 1e-11 * b.norm()


def test_hooks_on_any_layer_are_called(scan):
    net = build("Res16UNet14A").eval()
    leaves = [
        n for n, m in net.named_modules() if n.endswith(("conv1", "norm1", "conv2", "norm2", "downsample"))
    ]
    called = []
    for name in leaves:
        net.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        net(scan)
    assert sorted(called) == sorted(leaves)


def test_same_bits_with_any_number_of_threads(scan):
    net = build("Res16UNet14A").eval()
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            with torch.no_grad():
                results.append(outputs(net, SparseTensor(scan.features, scan.coordinates)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
