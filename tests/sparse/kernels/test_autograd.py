"""Gradients of layers and networks on the kernels against plain PyTorch in float64."""

import copy
from contextlib import contextmanager, nullcontext
from functools import cache

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lground.models import Res16UNet, Variant, build, res16unet
from lground.sparse import BatchNorm, SparseConv3d, SparseConvTranspose3d, SparseTensor, cat, conv_norm
from lground.sparse.engine import PyramidMap, plain
from lground.sparse.functional import Epilogue, sparse_convolution
from lground.sparse.kernels import autograd
from lground.sparse.narrow import narrow, narrowed

pytestmark = pytest.mark.usefixtures("kernels")
gpu = pytest.mark.gpu
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Hourglass(nn.Module):
    """Every kind of layer once."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = SparseConv3d(3, 16, 5), BatchNorm(16)
        self.down, self.down_norm = SparseConv3d(16, 32, 2, stride=2), BatchNorm(32)
        self.same, self.same_norm = SparseConv3d(32, 32, 3), BatchNorm(32)
        self.up, self.up_norm = SparseConvTranspose3d(32, 16, 2, stride=2), BatchNorm(16)
        self.last, self.head = SparseConv3d(32, 16, 3), SparseConv3d(16, 5, 1, bias=True)
        self.checkpointed = False

    def forward(self, x: SparseTensor) -> SparseTensor:
        x = conv_norm(self.stem, self.stem_norm, x)
        y = checkpoint(self.middle, x, use_reentrant=False) if self.checkpointed else self.middle(x)
        return self.head(self.last(cat(conv_norm(self.up, self.up_norm, y), x)))

    def middle(self, x: SparseTensor) -> SparseTensor:
        y = conv_norm(self.down, self.down_norm, x)
        return conv_norm(self.same, self.same_norm, y, add=y)


@pytest.fixture(scope="module")
def room(scan):
    """`room(n, dtype)`: n voxels of two scenes, and colours; on each call new coordinates and new maps."""

    def make(n: int = 60, dtype=torch.float32) -> SparseTensor:
        rows = scan(n, scenes=2)
        colours = torch.rand(len(rows), 3, generator=torch.Generator().manual_seed(0)) - 0.5
        return SparseTensor(colours.to(rows.device, dtype), rows)

    return make


@pytest.fixture(scope="module")
def once(room):
    return cache(room)


@pytest.fixture
def x(once, kernels) -> SparseTensor:
    """For single layers: one room whose maps all tests share."""
    return once(110)


def fresh(make, device) -> nn.Module:
    torch.manual_seed(0)
    return make().to(device)


def loss_of(y: SparseTensor) -> torch.Tensor:
    """Smooth, and of every row something else."""
    weights = torch.randn(y.features.shape, generator=torch.Generator().manual_seed(1))
    return (y.features.float() * weights.to(y.features.device)).sum() / len(y)


def run(net: nn.Module, x: SparseTensor, wide: bool = False) -> dict[str, torch.Tensor]:
    """Output, gradients and buffers after a step forwards and backwards; `wide` in float64, plain."""
    net = copy.deepcopy(net)
    if wide:
        with plain():
            net = net.double()
            return run(net, SparseTensor(x.features.double(), x.coordinates))
    y = net(x)
    y = y[-1] if isinstance(y, tuple) else y
    loss_of(y).backward()
    found = {"output": y.features.detach()}
    found |= {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    return found | {n: b for n, b in net.named_buffers() if b.is_floating_point()}


def assert_close(found: dict, wanted: dict, tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        error = value.double() - wanted[name]
        assert error.norm() <= tolerance * wanted[name].norm(), name


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


@pytest.mark.parametrize("n", [110, pytest.param(20_000, marks=gpu)])
def test_gradients_of_every_kind_of_layer(room, device, n):
    net = fresh(Hourglass, device)
    runs = [run(net, room(n)) for _ in range(2)]
    assert_close(runs[0], run(net, room(n), wide=True), 2e-5)
    assert equal(*runs), "two runs differ"


def test_gradients_of_every_parameter_of_a_network(room, device, monkeypatch):
    monkeypatch.setattr(res16unet, "ENCODER_PLANES", (32,) * 4)
    net = fresh(lambda: Res16UNet(Variant((1,) * 8, (32,) * 4), representation_only=True), device)
    found, wanted = run(net, room()), run(net, room(), wide=True)
    assert_close(found, wanted, 1e-3)  # batch norm of the two voxels of the coarsest level magnifies rounding


def test_weights_made_half_together_change_no_bit(room, device, monkeypatch):
    monkeypatch.setattr(res16unet, "ENCODER_PLANES", (32,) * 4)
    net = fresh(lambda: Res16UNet(Variant((1,) * 8, (32,) * 4), representation_only=True), device)
    made = []
    monkeypatch.setattr(autograd, "narrow", lambda w, dtype: made.append(narrow(w, dtype)) or made[-1])
    with products("float16", device):
        together, memory = run(net, room()), {m.untyped_storage().data_ptr() for m in made}
        monkeypatch.setattr(res16unet, "narrowed", lambda *_: nullcontext())
        made.clear()
        one_by_one = run(net, room())
    assert len(memory) == 1 and len({m.data_ptr() for m in made}) == len(made) > 20
    assert equal(together, one_by_one)


def test_half_weights_are_found_by_their_identity(device):
    weights = [torch.randn(3, 5, 8, device=device) for _ in range(3)]
    with torch.autocast(device.type, torch.float16), narrowed(weights[:2], weights[0].device):
        first, second, other = (narrow(w, torch.float16) for w in weights)
        assert (
            first.data_ptr() + 2 * first.numel() == second.data_ptr()
            and narrow(weights[0], torch.float16) is first
        )
        assert narrow(weights[0], torch.bfloat16).dtype == torch.bfloat16
    for weight, half in zip(weights, (first, second, other), strict=True):
        assert half.equal(weight.half()) and not half.requires_grad
    assert narrow(weights[0], torch.float16).data_ptr() != first.data_ptr()
    with narrowed(weights, device):  # without autocast
        assert narrow(weights[0], torch.float32).data_ptr() == weights[0].data_ptr()


@contextmanager
def products(kind: str, device: torch.device):
    """Multiply in this type, or float32 on the TF32 unit."""
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    try:
        with torch.autocast(device.type, HALVES.get(kind), enabled=kind in HALVES):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


@gpu
@pytest.mark.parametrize("kind", ["float32", "tf32", *HALVES])
def test_a_network_errs_no_more_than_on_plain_pytorch(room, device, kind):
    """Its output, and the gradients of all its parameters, twice the same."""
    net = fresh(lambda: build("Res16UNet14A", representation_only=True), device)
    wanted = run(net, room(20_000), wide=True)
    with products(kind, device):
        found, again = (run(net, room(20_000)) for _ in range(2))
        with plain():
            usual = run(net, room(20_000))
    assert equal(found, again), "two runs differ"
    assert found["output"].dtype == usual["output"].dtype
    floor = 1e-3 if kind == "tf32" else 1e-6  # plain PyTorch multiplies three channels in float32
    worse = {}
    for name, value in wanted.items():
        error, usual_error = (t[name].double() - value for t in (found, usual))
        angle, usual_angle = (
            1 - torch.cosine_similarity(t[name].double().flatten(), value.flatten(), 0)
            for t in (found, usual)
        )
        # Of each tensor alone errors vary: its norms magnify them, of few voxels most.
        if error.norm() > 4 * usual_error.norm() + floor * value.norm() or angle > 16 * usual_angle + floor:
            worse[name] = error.norm() / value.norm(), usual_error.norm() / value.norm(), angle, usual_angle
    assert not worse
    gradients = [n for n in wanted if n not in ("output", *dict(net.named_buffers()))]
    errors, usual_errors = (
        torch.cat([(t[n].double() - wanted[n]).flatten() for n in gradients]) for t in (found, usual)
    )
    assert errors.norm() <= 2 * usual_errors.norm()
    error = found["output"].double() - wanted["output"]
    assert error.mean().abs() <= 0.05 * error.std()  # no preferred sign


@pytest.mark.parametrize("n", [60, pytest.param(20_000, marks=gpu)])
def test_checkpointed_activations_change_nothing(room, device, n):
    net = fresh(Hourglass, device)
    usual = run(net, room(n))
    net.checkpointed = True
    found = run(net, room(n))
    statistics = {name for name in found if "running" in name and name.startswith(("down", "same"))}
    assert statistics  # a norm that runs twice moves its statistics twice, as torch's does
    assert equal(*({n: v for n, v in t.items() if n not in statistics} for t in (found, usual)))


@pytest.mark.parametrize("n", [60, pytest.param(20_000, marks=gpu)])
def test_steps_of_an_optimiser_lead_to_the_same_weights(room, device, n):
    nets = [fresh(Hourglass, device) for _ in range(2)]
    nets[1].double()
    for net in nets:
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            optimiser.zero_grad()
            with plain() if net is nets[1] else torch.enable_grad():
                loss_of(net(room(n, next(net.parameters()).dtype))).backward()
            optimiser.step()
    found, wanted = (dict(net.named_parameters()) for net in nets)
    assert_close(found, wanted, 1e-5)


def test_frozen_weights_get_no_gradient_and_change_none(room, device):
    net = fresh(Hourglass, device)
    usual = run(net, room())
    for layer in (net.same, net.down, net.stem):
        layer.requires_grad_(False)
    found = run(net, room())
    frozen = {"same.kernel", "down.kernel", "stem.kernel"}
    assert usual.keys() - found.keys() == frozen
    assert equal(found, {name: usual[name] for name in found})


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("channels", [3, 32])
def test_features_that_require_a_gradient(x, device, channels, size):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(len(x), channels, generator=generator).to(device)
    conv = fresh(lambda: SparseConv3d(channels, 32, size), device)
    leaf = features.clone().requires_grad_()
    loss_of(conv(x.with_features(leaf))).backward()
    with plain():
        wide = features.double().requires_grad_()
        loss_of(copy.deepcopy(conv).double()(SparseTensor(wide, x.coordinates))).backward()
    assert_close({"features": leaf.grad}, {"features": wide.grad}, 1e-6)


def test_gradients_that_are_not_contiguous(x, device):
    """What comes from a transposed view or is expanded from a scalar."""
    conv = fresh(lambda: SparseConv3d(32, 32, 3), device)
    features = torch.randn(len(x), 32, generator=torch.Generator().manual_seed(0)).to(device)

    def gradients(loss) -> dict[str, torch.Tensor]:
        leaf = features.clone().requires_grad_()
        of_kernel, of_leaf = torch.autograd.grad(
            loss(conv(x.with_features(leaf)).features), [conv.kernel, leaf]
        )
        return {"kernel": of_kernel, "leaf": of_leaf}

    ones = torch.ones(len(x), 32, device=device)
    assert equal(gradients(lambda y: y.sum()), gradients(lambda y: (y * ones).sum()))
    weights = torch.randn(32, len(x), generator=torch.Generator().manual_seed(1)).to(device)
    assert equal(gradients(lambda y: (y.t() * weights).sum()), gradients(lambda y: (y * weights.t()).sum()))


def test_one_layer_twice_adds_its_gradients(x, device):
    conv = fresh(lambda: SparseConv3d(32, 32, 3), device)
    features = torch.randn(len(x), 32, generator=torch.Generator().manual_seed(0)).to(device)
    loss_of(conv(conv(x.with_features(features)))).backward()
    with plain():
        wide = copy.deepcopy(conv).double()
        wide.zero_grad()
        loss_of(wide(wide(SparseTensor(features.double(), x.coordinates)))).backward()
    assert_close({"kernel": conv.kernel.grad}, {"kernel": wide.kernel.grad}, 1e-6)


@pytest.mark.parametrize("channels", [3, 32])
@pytest.mark.parametrize("add, relu", [(False, True), (True, True), (True, False)])
def test_epilogues_of_layers(x, device, channels, add, relu):
    """In inference; also of the stem, whose kernel adds nothing itself."""
    kernel_map = x.manager.kernel_map(x.coordinate_map, x.coordinate_map, (3, 3, 3), (1, 1, 1))
    assert isinstance(kernel_map, PyramidMap)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device)

    features, kernel = random(len(x), channels), random(27, channels, 32)
    parts = [random(32), random(32), random(len(x), 64)[:, ::2] if add else None]
    found = autograd.sparse_convolution(features, kernel, kernel_map, Epilogue(*parts, relu))
    wide = [None if t is None else t.double() for t in parts]
    with plain():
        y = SparseTensor(features, x.coordinates)
        usual = y.manager.kernel_map(y.coordinate_map, y.coordinate_map, (3, 3, 3), (1, 1, 1))
        wanted = sparse_convolution(features.double(), kernel.double(), usual, Epilogue(*wide, relu))
    assert_close({"": found}, {"": wanted}, 1e-6)


@gpu
@pytest.mark.filterwarnings("ignore")
def test_data_parallel_training_in_one_process(room, device, tmp_path):
    """Gradients that a DistributedDataParallel network reduces are those of the network."""
    from torch import distributed

    distributed.init_process_group("nccl", init_method=f"file://{tmp_path}/ddp", rank=0, world_size=1)
    try:
        net = fresh(Hourglass, device)
        wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(net), device_ids=[0])
        loss_of(wrapped(room(20_000))).backward()
        loss_of(net(room(20_000))).backward()
        for a, b in zip(wrapped.parameters(), net.parameters(), strict=True):
            assert a.grad.equal(b.grad)
    finally:
        distributed.destroy_process_group()
