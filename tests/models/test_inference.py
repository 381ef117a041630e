"""A network run as a whole, on CUDA as graphs, against the same network run layer by layer by plain PyTorch."""

import copy
import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from closeness import assert_close
from torch import nn

from lground.errors import InputError
from lground.models import Res16UNet, Variant, build, inference, res16unet, trunk
from lground.sparse import SparseTensor
from lground.sparse.engine import plain

gpu = pytest.mark.gpu
TOLERANCE = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}


def fresh(make, device) -> Res16UNet:
    """In eval mode, with statistics and scales of a network that was trained."""
    torch.manual_seed(0)
    net = make()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return net.to(device).eval()


def colours(rows: torch.Tensor, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(rows))
    return (torch.rand(len(rows), channels, generator=generator) - 0.5).to(rows.device)


def outputs(net, rows: torch.Tensor) -> list[torch.Tensor]:
    y = net(SparseTensor(colours(rows).to(next(net.parameters()).dtype), rows))
    return [t.features for t in (y if isinstance(y, tuple) else (y,))]


def plainly(net, rows: torch.Tensor) -> list[torch.Tensor]:
    """In float64, layer by layer."""
    with plain(), torch.no_grad():
        return outputs(copy.deepcopy(net).double(), rows)


def assert_all_close(found: list[torch.Tensor], wanted: list[torch.Tensor], tolerance: float) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, tolerance)


NETWORKS = {  # encoder, decoder, and what else
    "as wide as the encoder": ((32, 32, 32, 32), Variant((1,) * 8, (32,) * 4), {}),
    "wider decoder": ((32, 32, 64, 32), Variant((1,) * 8, (128, 32, 96, 64)), {}),
    "signed, several blocks": (
        (32, 32, 64, 32),
        Variant((2, 1, 1, 2, 1, 2, 1, 2), (64, 32, 32, 96), final_relu=False),
        {"representation_only": True, "stem_kernel_size": 5, "in_channels": 6},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_of_a_trunk_are_those_of_the_network(name, kernels, scan, device, monkeypatch):
    """Without graphs, with room to spare at every level."""
    from lground.sparse.kernels.pyramid import Pyramid
    from lground.sparse.kernels.shapes import PROGRAMS
    from lground.sparse.kernels.tiles import TILE_ROWS

    planes, variant, options = NETWORKS[name]
    monkeypatch.setattr(res16unet, "ENCODER_PLANES", planes)
    net = fresh(lambda: Res16UNet(variant, **options), device)
    rows = scan(100, scenes=2)
    x = colours(rows, options.get("in_channels", 3))
    with plain(), torch.no_grad():
        wanted = copy.deepcopy(net).double()._features(SparseTensor(x.double(), rows)).features

    caps = [capacity * TILE_ROWS for capacity in (3, 3, 2, 1, 1)]
    padded = torch.nn.functional.pad(rows, (0, 0, 0, caps[0] - len(rows)), value=7)
    arrivals = torch.zeros(PROGRAMS, dtype=torch.int32, device=device)
    features = torch.nn.functional.pad(x, (0, 0, 0, caps[0] - len(rows)), value=torch.nan)
    layers = trunk.Trunk(net, torch.float32, "ieee")
    runs = []
    for _ in range(2):  # maps are built where results of layers will lie
        space = features.new_full((max(layers.size(caps, caps, device), 27 * sum(caps)),), torch.nan)
        pyramid = Pyramid.build(padded, rows.new_tensor([len(rows)]), caps, table=space.view(torch.int32))
        assert not pyramid.status
        pyramid.slim()
        with torch.no_grad():
            runs.append(layers(pyramid, features, arrivals, space[: layers.size(caps, caps, device)]))
    assert layers.width == wanted.shape[1] and runs[0].shape == (caps[0], layers.width)
    assert_all_close([runs[0][: len(rows)]], [wanted], 2e-6)
    assert runs[0][: len(rows)].equal(runs[1][: len(rows)]) and not arrivals.any()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("grad", [False, True])
def test_what_surrounds_a_network_can_be_compiled(backend, grad):
    """The network is one break in the graph, not a break in every layer."""
    from torch._dynamo.testing import CompileCounterWithBackend

    net = fresh(lambda: build("Res16UNet14A", out_channels=4), "cpu")
    net.train(grad)
    side = torch.arange(-3, 3)
    rows = torch.nn.functional.pad(torch.cartesian_prod(side, side, torch.arange(2)), (1, 0))

    def labels(net, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        logits, features = net(SparseTensor(x * 2 - 1, rows))
        return logits.features.softmax(1) + features.features.norm(dim=1, keepdim=True)

    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(labels, backend=counter)
    for n in (72, 60, 50, 71):
        x = torch.rand(n, 3)
        results = []
        for function in (compiled, labels):
            twin = copy.deepcopy(net)
            with torch.set_grad_enabled(grad):
                results.append([function(twin, x, rows[:n])])
            if grad:
                results[-1][0].sum().backward()
                results[-1] += [p.grad for p in twin.parameters() if p.grad is not None]
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*results, strict=True))
    assert 1 <= counter.frame_count <= 6
    torch._dynamo.reset()


def _with_gradients(net):
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    return net.parameters()


CHANGES = {
    "in place": lambda net: net.block8[0].conv2.kernel.detach().mul_(2),
    "in place in inference mode": torch.inference_mode()(lambda net: net.block8[0].conv2.kernel.mul_(2)),
    "a fused optimiser": lambda net: torch.optim.AdamW(_with_gradients(net), fused=True).step(),
    "statistics": lambda net: net.bn0.bn.running_mean.add_(1),
    "loaded": lambda net: net.load_state_dict(net.state_dict()),
    "loaded in place of the old ones": lambda net: net.load_state_dict(
        {k: v.clone() for k, v in net.state_dict().items()}, assign=True
    ),
    "another type": lambda net: net.half(),
    "another parameter": lambda net: setattr(net.bn0.bn, "weight", nn.Parameter(net.bn0.bn.weight * 2)),
    "another layer": lambda net: setattr(net, "conv0p1s1", copy.deepcopy(net.conv0p1s1)),
    "one layer more": lambda net: net.block8.append(nn.Identity()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_watched_network_changes(name):
    net = build("Res16UNet14A").eval()
    watch = inference._Watch(net)
    with torch.no_grad():
        net(SparseTensor(torch.zeros(1, 3), torch.zeros(1, 4).int()))
    assert watch.unchanged()
    CHANGES[name](net)
    assert not watch.unchanged() and inference._Watch(net).unchanged()


def test_a_watched_network_can_go():
    net = build("Res16UNet14A")
    gone, watch = weakref.ref(net), inference._Watch(net)
    gc.collect()
    gc.disable()
    try:
        del net
        assert gone() is None and watch.unchanged()
    finally:
        gc.enable()


# From here on with graphs, which need a GPU.


@pytest.fixture(scope="module")
def net(device) -> Res16UNet:
    return fresh(lambda: build("Res16UNet14A", out_channels=20), device)


@pytest.fixture(scope="module")
def replays():
    """Grows when a graph is replayed."""
    served = []
    replay = torch.cuda.CUDAGraph.replay
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: served.append(1) or replay(graph))
        yield served


@pytest.mark.parametrize(
    "name, options, served",
    [
        ("Res16UNet34C", {"stem_kernel_size": 5}, True),
        ("Res16UNet34D", {}, True),
        ("Res16UNet34C100", {}, False),  # 100 channels
        ("Res16UNet14A", {"in_channels": 9}, False),
    ],
)
def test_networks_of_other_widths_are_left_to_their_layers(name, options, served, kernels):
    assert trunk.has_kernels(build(name, **options)) == served


@pytest.fixture
def graphs(replays):
    """Fails a test that graphs have not served."""
    replays.clear()
    yield replays
    assert replays


@gpu
@pytest.mark.parametrize(
    "name, dtype",
    [
        *(("Res16UNet34C", dtype) for dtype in TOLERANCE),
        ("insseg_Res16UNet14A", torch.float16),
        ("Res16UNet14D", torch.float16),
        ("Res16UNet34Dv2", torch.float16),
    ],
)
def test_variants(name, dtype, scan, device, graphs):
    net = fresh(lambda: build(name, out_channels=20), device)
    rows = scan(20_000, scenes=2)
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        runs = [outputs(net, rows) for _ in range(2)]
    assert_all_close(runs[0], plainly(net, rows), TOLERANCE[dtype])
    assert all(a.equal(b) for a, b in zip(*runs, strict=True))


@gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_errs_no_more_than_plain_pytorch(net, dtype, scan, graphs):
    rows = scan(20_000)
    wanted = plainly(net, rows)
    with torch.no_grad(), torch.autocast("cuda", dtype):
        found = outputs(net, rows)
        with plain():
            usual = outputs(net, rows)
    for a, b, c in zip(found, usual, wanted, strict=True):
        assert (a - c).norm() <= 1.5 * (b - c).norm()
        angle, usual_angle = (
            1 - torch.cosine_similarity(t.double().flatten(), c.flatten(), 0) for t in (a, b)
        )
        assert angle <= 2 * usual_angle
        # No preferred sign: rows share the rounding of weights, so that a channel counts once.
        by_channel = (a - c).mean(0)
        assert by_channel.mean().abs() <= 4 * by_channel.std() / len(by_channel) ** 0.5


@gpu
def test_scenes_of_any_size_in_any_order(net, scan, graphs):
    """More sizes than graphs are kept; results are the caller's for good."""
    sizes = [
        3_000,
        40_000,
        1,
        700,
        3_050,
        15_000,
        2,
        90_000,
        5_000,
        60_000,
        1_025,
        1_024,
        25_000,
        3_000,
        40_000,
    ]
    scenes = [scan(n, seed=i) for i, n in enumerate(sizes)]
    with torch.no_grad():
        kept = [outputs(net, rows) for rows in scenes]
        copies = [[t.clone() for t in result] for result in kept]
        for rows, result in zip(scenes, kept, strict=True):
            assert_all_close(result, plainly(net, rows), TOLERANCE[torch.float32])
        again = [outputs(net, rows) for rows in reversed(scenes)][::-1]
    for a, b, c in zip(kept, copies, again, strict=True):
        assert all(x.equal(y) and x.equal(z) for x, y, z in zip(a, b, c, strict=True))
    assert len(graphs) >= 4 * len(sizes)
    plans = next(iter(inference._PLANS[net].values()))
    assert len(plans.graphs) <= inference.GRAPHS


@gpu
def test_changed_weights_are_noticed(net, scan, device, graphs):
    net, rows = copy.deepcopy(net), scan(3_000)

    def check(tolerance: float = TOLERANCE[torch.float32]) -> list[torch.Tensor]:
        with torch.no_grad():
            found = outputs(net, rows)
        assert_all_close(found, plainly(net, rows), tolerance)
        return found

    before = check()
    with torch.no_grad():
        net.block8[0].conv2.kernel *= 1.1
        net.bntr7.bn.running_mean += 0.1
    after = check()
    assert not after[1].equal(before[1])
    net.load_state_dict(fresh(lambda: build("Res16UNet14A", out_channels=20), device).state_dict())
    assert check()[1].equal(before[1])
    net.conv0p1s1.kernel = nn.Parameter(net.conv0p1s1.kernel * 2)
    check()
    net.train()
    outputs(net, rows)  # moves the statistics
    net.eval()
    check()
    net.half()
    check(TOLERANCE[torch.float16])
    net.float()
    check()
    net.cpu()
    net.to(device)
    check()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    sum(t.square().mean() for t in outputs(net, rows)).backward()
    optimiser.step()
    check()
    net.block3 = nn.Sequential(copy.deepcopy(net.block3[0]))
    with torch.no_grad():
        net.block3[0].conv1.kernel *= 2
    check()


@gpu
def test_hooks_are_called(net, scan):
    rows, seen = scan(3_000), []
    with torch.no_grad():
        wanted = outputs(net, rows)
        for name in ("block3.0.norm1", "bn0.bn", "convtr5p8s2"):
            hook = net.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
            found = outputs(net, rows)
            hook.remove()
            assert seen == [name]
            assert_all_close(found, wanted, TOLERANCE[torch.float32])
            seen.clear()
        outputs(net, rows)
        assert not seen


@gpu
def test_a_level_that_needs_more_room_gets_it(net, scan, device, graphs):
    """In a random sparse cloud every level has nearly as many voxels as the finest."""
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randint(-30_000, 30_000, (3_000, 4), generator=generator)
    cloud[:, 0] = 0
    cloud, room = cloud.unique(dim=0).to(device), scan(3_000)
    with torch.no_grad():
        for rows in (room, cloud, room, cloud[:100], cloud):
            assert_all_close(outputs(net, rows), plainly(net, rows), TOLERANCE[torch.float32])


@gpu
def test_what_no_map_can_hold_is_refused_or_left_to_plain_pytorch(net, scan):
    rows = scan(3_000)
    with torch.no_grad():
        outputs(net, rows)
        repeated = torch.cat([rows, rows[:7]])
        with plain(), pytest.raises(InputError) as usual:
            outputs(net, repeated)
        with pytest.raises(InputError) as found:
            outputs(net, repeated)
        assert str(found.value) == str(usual.value)
        negative = rows.clone()
        negative[5, 0] = -1
        with pytest.raises(InputError, match="batch index"):
            outputs(net, negative)
        far = rows.long() + torch.tensor([0, 10**6, 0, 0], device=rows.device)
        assert_all_close(outputs(net, far), plainly(net, far), TOLERANCE[torch.float32])
        assert_all_close(outputs(net, rows), plainly(net, rows), TOLERANCE[torch.float32])


@gpu
def test_other_streams(net, scan, device, graphs):
    scenes = [scan(3_000 + 5_000 * i, seed=i) for i in range(4)]
    with torch.no_grad():
        wanted = [outputs(net, rows) for rows in scenes]
        streams = [torch.cuda.Stream() for _ in range(2)]
        torch.cuda.synchronize()
        found = []
        for i in range(12):
            with torch.cuda.stream(streams[i % 2]):
                torch.cuda._sleep(1_000_000)
                found.append(outputs(net, scenes[i % 4] * 1))
        torch.cuda.synchronize()
    for i, result in enumerate(found):
        assert all(a.equal(b) for a, b in zip(result, wanted[i % 4], strict=True))


@gpu
@pytest.mark.parametrize("own_streams", [False, True])
def test_two_threads(net, scan, device, own_streams, graphs):
    scenes = [scan(3_000 + 5_000 * i, seed=i) for i in range(4)]
    other = copy.deepcopy(net)
    with torch.no_grad():
        wanted = [outputs(net, rows) for rows in scenes]
    torch.cuda.synchronize()

    def work(first: int) -> list:
        stream = torch.cuda.Stream() if own_streams else torch.cuda.current_stream()
        with torch.no_grad(), torch.cuda.stream(stream):
            found = [(i, outputs(other if first else net, scenes[i])) for i in [first, 2, 3, 1 - first] * 5]
            stream.synchronize()
            return found

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(work, range(2)):
            for i, result in found:
                assert all(a.equal(b) for a, b in zip(result, wanted[i], strict=True))


@gpu
def test_copies_and_pickles_of_a_used_network(net, scan, graphs):
    rows = scan(3_000)
    with torch.no_grad():
        wanted = outputs(net, rows)
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert all(a.equal(b) for a, b in zip(outputs(twin, rows), wanted, strict=True))
            twin.block8[0].conv2.kernel.mul_(1.1)
            assert not outputs(twin, rows)[1].equal(wanted[1])
        assert all(a.equal(b) for a, b in zip(outputs(net, rows), wanted, strict=True))


@gpu
@pytest.mark.parametrize("n", [1_500, 2_500])  # capacities that no other test has made a graph for
def test_inference_mode(net, scan, n, graphs):
    """Whatever comes first."""
    rows = scan(n)
    modes = [torch.inference_mode, torch.no_grad] * 2
    found = []
    for mode in modes if n < 2_000 else modes[::-1]:
        with mode():
            found.append(outputs(net, rows))
    for result in found:
        assert all(a.equal(b) for a, b in zip(result, found[0], strict=True))
    with torch.inference_mode():
        made_there = fresh(lambda: build("Res16UNet14A", out_channels=20), rows.device)
        assert_all_close(outputs(made_there, rows), found[0], TOLERANCE[torch.float32])
        made_there.bn0.bn.running_mean.add_(1)
        assert not outputs(made_there, rows)[1].equal(found[0][1])


@gpu
def test_with_gradients_layers_run_one_by_one(net, scan, replays):
    replays.clear()
    rows = scan(3_000)
    found = outputs(net, rows)
    assert not replays and found[0].requires_grad
    assert_all_close([t.detach() for t in found], plainly(net, rows), TOLERANCE[torch.float32])


@gpu
def test_a_million_voxels(net, scan, graphs):
    rows = scan(1_000_000, scenes=3)
    with torch.no_grad(), torch.autocast("cuda", torch.float16):
        found = outputs(net, rows)
        with plain():
            usual = outputs(net, rows)
    assert_all_close(found, usual, 2 * TOLERANCE[torch.float16])


@gpu
def test_scenes_of_a_batch_are_those_alone(net, scan, graphs):
    alone = [scan(n, seed=n) for n in (2_000, 700, 5_000)]
    rows = torch.cat([torch.nn.functional.pad(r[:, 1:], (1, 0), value=3 * i) for i, r in enumerate(alone)])
    x = torch.cat([colours(r) for r in alone])
    with torch.no_grad():
        whole = net(SparseTensor(x, rows))[1].features.split([len(r) for r in alone])
        for part, r in zip(whole, alone, strict=True):
            assert_all_close([part], [outputs(net, r)[1]], 2e-6)


@gpu
def test_tf32_is_a_plan_of_its_own(net, scan, graphs):
    rows = scan(20_000)
    with torch.no_grad():
        precise = outputs(net, rows)
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            fast = outputs(net, rows)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False
        assert all(a.equal(b) for a, b in zip(outputs(net, rows), precise, strict=True))
    assert_all_close(fast, precise, 5e-3)
    assert not fast[1].equal(precise[1])


@gpu
def test_compiled_surroundings_on_the_gpu(net, scan, graphs):
    rows = scan(3_000)
    compiled = torch.compile(lambda x: net(SparseTensor(x * 1, rows))[1].features * 2, backend="eager")
    with torch.no_grad():
        assert compiled(colours(rows)).equal(outputs(net, rows)[1] * 2)
