"""When the kernels take over, and what must not change when they do."""

import copy
import gc
import subprocess
import sys
import weakref
from functools import cache

import pytest
import torch

from lground.errors import InputError
from lground.models import build
from lground.sparse import (
    AvgPool3d,
    BatchNorm,
    GlobalAvgPool,
    InstanceNorm,
    MaxPool3d,
    SparseConv3d,
    SparseConvTranspose3d,
    SparseTensor,
    conv_norm,
    engine,
)
from lground.sparse.engine import PyramidCoordinates, PyramidMap, plain

gpu = pytest.mark.gpu


@pytest.fixture(autouse=True)
def with_kernels(kernels):
    pass


@pytest.fixture
def used(monkeypatch):
    """Names of the kernels' entry points that were called, in order."""
    from lground.sparse.kernels import autograd, normalization

    names = []

    def watch(module, name: str) -> None:
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, **options: names.append(name) or original(*args, **options)
        )

    watch(autograd, "sparse_convolution")
    watch(normalization, "batch_norm")
    return names


def tensor(rows: torch.Tensor, channels: int = 32, dtype=torch.float32) -> SparseTensor:
    features = torch.randn(len(rows), channels, generator=torch.Generator().manual_seed(0))
    return SparseTensor(features.to(rows.device, dtype), rows)


def by_voxel(y: SparseTensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates and features, rows sorted by coordinates."""
    coordinates = y.coordinates.cpu().long()
    order = ((coordinates + 2**17) * torch.tensor([2**54, 2**36, 2**18, 1])).sum(1).argsort()
    return coordinates[order], y.features.detach().cpu()[order]


def assert_same(found: SparseTensor, wanted: SparseTensor, tolerance: float = 1e-5) -> None:
    (coordinates, features), (usual, wide) = by_voxel(found), by_voxel(wanted)
    assert coordinates.equal(usual) and found.stride == wanted.stride
    assert (features.double() - wide).norm() <= tolerance * wide.norm()


@pytest.fixture(scope="module")
def once(scan):
    return cache(lambda: tensor(scan(100, scenes=2)))


@pytest.fixture
def room(once, kernels) -> SparseTensor:
    """Two scenes whose maps several tests share."""
    return once()


def plainly(net: torch.nn.Module, x: SparseTensor) -> SparseTensor:
    """In float64, without kernels."""
    with plain():
        return copy.deepcopy(net).double()(SparseTensor(x.features.double(), x.coordinate_map.coordinates))


def layer(make, device) -> torch.nn.Module:
    torch.manual_seed(0)
    return make().to(device)


def test_plain_is_plain(scan, device, used):
    conv, norm = layer(lambda: SparseConv3d(32, 32, 3), device), BatchNorm(32).to(device)
    with plain():
        x = tensor(scan(100))
        assert not isinstance(x.coordinate_map, PyramidCoordinates)
        conv_norm(conv, norm, x).features.sum().backward()
        assert not used
    conv_norm(conv, norm, x)  # made plainly, its maps stay plain
    assert used == ["batch_norm"]
    used.clear()
    x = tensor(scan(100))
    with plain():
        found = conv(x)
    assert not used
    assert_same(found, plainly(conv, x))
    assert_same(conv(x), found)
    assert used == ["sparse_convolution"]


def test_plain_ends_also_when_it_fails(device):
    with pytest.raises(RuntimeError), plain(), plain():
        raise RuntimeError
    assert engine.takes_over(device)


def test_without_kernels_for_a_device_nothing_changes(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not engine.takes_over(torch.device("cpu"))
    rows = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]])
    assert not isinstance(SparseTensor(torch.ones(2, 1), rows).coordinate_map, PyramidCoordinates)


class Twice(torch.nn.Module):
    """Down by a layer and up by another."""

    def __init__(self, down, up):
        super().__init__()
        self.down, self.up = down, up

    def forward(self, x):
        return self.up(self.down(x))


KERNELS = {
    "3": lambda: SparseConv3d(32, 64, 3),
    "stem 5": lambda: SparseConv3d(3, 32, 5),
    "stem 3": lambda: SparseConv3d(1, 16, 3),
    "down": lambda: SparseConv3d(32, 64, 2, stride=2),
    "down and up": lambda: Twice(
        SparseConv3d(32, 32, 2, stride=2), SparseConvTranspose3d(32, 32, 2, stride=2)
    ),
    "wide": lambda: SparseConv3d(16, 384, 3),
}
FALL_BACKS = {
    "odd widths": lambda: SparseConv3d(20, 12, 3),
    "widths of one way": lambda: SparseConv3d(48, 32, 3),
    "dilated": lambda: SparseConv3d(32, 32, 3, dilation=2),
    "wide window": lambda: SparseConv3d(32, 32, 5),
    "flat window": lambda: SparseConv3d(32, 32, (3, 3, 1)),
    "stride 3": lambda: Twice(SparseConv3d(32, 32, 3, stride=3), SparseConvTranspose3d(32, 32, 3, stride=3)),
    "window 3, stride 2": lambda: Twice(
        SparseConv3d(32, 32, 3, stride=2), SparseConvTranspose3d(32, 32, 3, stride=2)
    ),
    "stride 4 at once": lambda: SparseConv3d(32, 32, 2, stride=4),
    "generative": lambda: SparseConvTranspose3d(32, 32, 2, stride=2),
    "coarse stem": lambda: torch.nn.Sequential(SparseConv3d(3, 3, 2, stride=2), SparseConv3d(3, 32, 5)),
    "pools": lambda: torch.nn.Sequential(MaxPool3d(2), AvgPool3d(3, 1), GlobalAvgPool()),
    "norm of scenes": lambda: InstanceNorm(32),
}


def width_of(net: torch.nn.Module) -> int:
    return next(
        (
            m.in_channels
            for m in net.modules()
            if isinstance(m, torch.nn.Module) and hasattr(m, "in_channels")
        ),
        32,
    )


@pytest.mark.parametrize("name", [*KERNELS, *FALL_BACKS])
def test_layers_with_and_without_a_kernel_are_right(name, room, device, used):
    net = layer(KERNELS.get(name) or FALL_BACKS[name], device)
    rows = room.coordinates
    x = room.with_features(tensor(rows, width_of(net)).features)
    if name == "generative":
        rows = rows * torch.tensor([1, 2, 2, 2], device=device)
        x = tensor(rows, width_of(net))
        with pytest.raises(InputError, match="upsampled"):
            net(x)
        x = SparseTensor(x.features, rows.int(), stride=2)
        with plain():
            wanted = copy.deepcopy(net).double()(SparseTensor(x.features.double(), rows.int(), stride=2))
    else:
        wanted = plainly(net, x)
    x.features.requires_grad_()
    found = net(x)
    assert_same(found, wanted)
    kernels = used.count("sparse_convolution")
    assert kernels == (0 if name in FALL_BACKS else 2 if name == "down and up" else 1)
    found.features.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in [x.features, *net.parameters()])


def test_double_precision_stays_with_plain_pytorch(scan, device, used):
    net = layer(lambda: SparseConv3d(32, 32, 3), device).double()
    norm = BatchNorm(32).to(device).double()
    x = tensor(scan(100), dtype=torch.float64)
    found = conv_norm(net, norm, x)
    assert not used and found.features.dtype == torch.float64
    with plain():
        wanted = conv_norm(net, norm, tensor(scan(100), dtype=torch.float64))
    assert_same(found, wanted, 1e-14)


def test_five_levels_and_beyond(scan, device, used):
    """The pyramid ends at stride 16; what lies above is plain."""
    net = torch.nn.Sequential(*(SparseConv3d(16, 16, 2, stride=2) for _ in range(6))).to(device)
    x = tensor(scan(300), 16)
    assert_same(net(x), plainly(net, x))
    assert used.count("sparse_convolution") == 4


BAD = {
    "duplicates": [[0, 1, 2, 3], [0, 0, 0, 0], [0, 1, 2, 3]],
    "negative batch": [[0, 1, 2, 3], [-1, 0, 0, 0]],
    "too far out": [[0, 1, 2, 3], [0, 2**40, 0, 0]],
}


@pytest.fixture(scope="module")
def network(device) -> torch.nn.Module:
    return build("Res16UNet14A").eval().to(device)


@pytest.mark.parametrize("name", BAD)
def test_bad_coordinates_are_refused_by_the_first_layer_in_the_same_words(name, network, device):
    rows = torch.tensor(BAD[name], device=device)
    with plain(), pytest.raises(InputError) as usual:
        tensor(rows)
    x = tensor(rows)
    for make in (lambda: SparseConv3d(32, 32, 3), lambda: SparseConv3d(32, 32, 2, stride=2)):
        with pytest.raises(InputError) as found:
            make().to(device)(x)
        assert str(found.value) == str(usual.value)
    with pytest.raises(InputError) as found, torch.no_grad():
        network(tensor(rows, 3))
    assert str(found.value) == str(usual.value)


@pytest.mark.parametrize("rows", [torch.zeros(2, 3).long(), torch.zeros(2, 4), torch.zeros(0, 4).long()])
def test_what_is_no_coordinates_at_all_is_refused_at_once(rows, device):
    with pytest.raises(InputError, match="coordinates"):
        SparseTensor(torch.zeros(len(rows), 1, device=device), rows.to(device))


far = 1 << 16
SCENES = {
    "one voxel": [[0, -1, -1, -1]],
    "one voxel of a late scene": [[4095, 5, 5, 5]],
    "scene 1 is missing": [[2, 0, 0, 1], [0, 0, 0, 0], [2, 0, 0, 0], [0, -1, 0, 0]],
    "ends of the range": [[0, far - 1, -far, 0], [0, far - 2, -far, 0], [0, -far, -far, 1]],
    "beyond the range": [[0, far, 0, 0], [0, far - 1, 0, 0], [0, far - 1, 1, 0], [0, -far - 1, 0, 0]],
    "batch beyond the range": [[4096, 0, 0, 0], [4096, 0, 0, 1], [0, 0, 0, 2]],
}


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = SparseConv3d(3, 32, 3)
        self.down = SparseConv3d(32, 32, 2, stride=2)
        self.same = SparseConv3d(32, 32, 3)
        self.up = SparseConvTranspose3d(32, 32, 2, stride=2)

    def forward(self, x):
        x = self.stem(x)
        return x + self.up(self.same(self.down(x)))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("name", SCENES)
def test_scenes_of_any_shape(name, dtype, device):
    rows = torch.tensor(SCENES[name], dtype=dtype, device=device)
    net, x = layer(Block, device), tensor(rows, 3)
    found = net(x)
    assert found.coordinates.equal(rows.int()) and found.coordinates.dtype == torch.int32
    assert_same(found, plainly(net, x))
    assert (x.coordinate_map.scenes.pyramid is None) == ("beyond" in name)


def test_coordinates_need_not_be_contiguous(scan, device):
    rows = scan(100)
    net = layer(Block, device)
    wanted = net(tensor(rows, 3)).features
    assert net(tensor(rows.t().contiguous().t(), 3)).features.equal(wanted)
    assert net(tensor(torch.stack([rows, rows + 1], 1)[:, 0].long(), 3)).features.equal(wanted)


def test_order_of_rows_is_the_caller_s(scan, device):
    rows = scan(100)
    net, x = layer(Block, device), tensor(rows, 3)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(3)).to(device)
    found = net(SparseTensor(x.features[order], rows[order])).features
    assert found.equal(net(x).features[order])


def test_coarse_levels_have_the_voxels_of_the_plain_ones(scan, device):
    rows = scan(300, scenes=2)
    here, there = tensor(rows), None
    with plain():
        there = tensor(rows)
    a, b = here.coordinate_map, there.coordinate_map
    for level in range(1, 7):
        a, b = here.manager.coarser(a, 2), there.manager.coarser(b, 2)
        assert a.stride == b.stride == 1 << level and len(a) == len(b)
        found, wanted = a.coordinates, b.coordinates
        assert found.dtype == torch.int32 and len(found.unique(dim=0)) == len(found)
        assert found.unique(dim=0).equal(wanted.unique(dim=0))
        assert [len(s) for s in a.scene_rows] == [len(s) for s in b.scene_rows]


def test_lists_of_pairs_are_those_of_the_tables(scan, device):
    """Plain layers and pools may ask a map of the pyramid for its pairs."""
    from lground.sparse.kernels.pairs import Pairs

    x = tensor(scan(150, scenes=2))
    fine = x.coordinate_map
    coarse = x.manager.coarser(fine, 2)
    maps = {
        "same": x.manager.kernel_map(fine, fine, (3, 3, 3), (1, 1, 1)),
        "coarse": x.manager.kernel_map(coarse, coarse, (3, 3, 3), (1, 1, 1)),
        "down": x.manager.kernel_map(fine, coarse, (2, 2, 2), (1, 1, 1)),
    }
    maps["up"] = maps["down"].transposed
    for name, kernel_map in maps.items():
        assert isinstance(kernel_map, PyramidMap)
        pairs: Pairs = kernel_map.pairs
        starts = pairs.starts.tolist()
        assert len(kernel_map) == len(starts) - 1 == (27 if name in ("same", "coarse") else 8)
        assert (kernel_map.input_rows, kernel_map.output_rows) == (
            (len(coarse), len(fine)) if name == "up" else (len(kernel_map.source), len(kernel_map.target))
        )
        for k, (inputs, outputs) in enumerate(zip(kernel_map.inputs, kernel_map.outputs, strict=True)):
            found = torch.stack([t[starts[k] : starts[k + 1]] for t in (pairs.inputs, pairs.outputs)])
            if name == "up":
                found = found.flip(0)
            wanted = torch.stack([inputs, outputs]).int()
            assert found.unique(dim=1).equal(wanted.unique(dim=1)) and found.shape == wanted.shape


def test_maps_go_with_their_scene(scan, device):
    """At once, not when garbage is collected: a training run would hold many scenes on the device."""
    net = layer(Block, device)
    gc.collect()
    gc.disable()
    try:
        x = tensor(scan(100), 3)
        net(x).features.sum().backward()
        scenes = x.coordinate_map.scenes
        assert scenes.pyramid is not None
        gone = [weakref.ref(t) for t in (x, x.manager, scenes, scenes.pyramid, scenes.pyramid.table)]
        gone += [weakref.ref(m) for m in x.manager._kernel_maps.values()]
        assert len(gone) > 6
        del x, scenes
        assert [reference() for reference in gone] == [None] * len(gone)
    finally:
        gc.enable()


def test_importing_loads_no_triton():
    """torch imports stubs of its own; the package must not be why Triton's compiler or language is loaded."""
    code = (
        "import torch, sys; before = {m for m in sys.modules if m.split('.')[0] == 'triton'}\n"
        "import lground, lground.sparse, lground.models\n"
        "net = lground.models.build('Res16UNet14A')\n"
        "lground.sparse.SparseTensor(torch.zeros(1, 3), torch.zeros(1, 4).int())\n"
        "print({m for m in sys.modules if m.split('.')[0] == 'triton'} - before)\n"
        "print([m for m in sys.modules if m.startswith('lground.sparse.kernels')])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["set()", "[]"]


@gpu
def test_a_large_cloud_without_neighbours(device):
    """Every level has nearly as many voxels as the finest."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(-30_000, 30_000, (50_000, 4), generator=generator)
    rows[:, 0] %= 3
    rows = rows.unique(dim=0).to(device)
    net, x = layer(Block, device), tensor(rows, 3)
    assert_same(net(x), plainly(net, x))


@gpu
def test_layers_wait_once_for_the_device(scan, device):
    """To build the maps of a scene in inference."""
    net = layer(Block, device).eval()
    with torch.no_grad():
        net(tensor(scan(20_000), 3))
        x = tensor(scan(20_000, seed=1), 3)
        assert x.coordinate_map.scenes.pyramid.counts()
        torch.cuda.set_sync_debug_mode("error")
        try:
            net(x)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@gpu
def test_a_kernel_runs_on_the_current_stream(scan, device):
    net, rows = layer(Block, device), scan(20_000)
    wanted = net(tensor(rows, 3)).features
    stream = torch.cuda.Stream()
    x = tensor(rows, 3)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        features = x.features * 1
        found = net(SparseTensor(features, rows)).features
    stream.synchronize()
    assert found.equal(wanted)
