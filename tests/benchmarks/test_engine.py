"""The benchmark's command on a CPU, and what its numbers rest on: the scans, the floor, the check."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lground.sparse import SparseConv3d, SparseConvTranspose3d, SparseTensor

ENGINE = Path(__file__).parents[2] / "benchmarks" / "engine"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ENGINE))


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ENGINE, *arguments], capture_output=True, text=True)


@pytest.mark.slow
def test_quick_measures_checks_and_saves_everything(tmp_path):
    options = "--quick", "--variant", "Res16UNet14A", "--device", "cpu", "--engines", "plain"
    options = *options, "--voxels", "1k,2k", "--train-voxels", "1k"
    done = command(*options, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "engine.json").read_text())
    plain = results["engines"]["plain"]
    assert not plain["failures"]
    (check,) = plain["check"]
    assert check["ok"] and 0 < check["error"] < 1e-4 and 0 < check["gradient_error"] < 1e-2
    assert [case["voxels"] for case in plain["inference"]] == results["settings"]["voxels"]
    floors = {(f["part"], f["voxels"]): f["ms"] for f in results["floors"]}
    for part in ("inference", "training"):
        for case in plain[part]:
            assert case["low_ms"] <= case["wall_ms"] <= case["high_ms"]
            assert case["wall_ms"] > 0.5 * floors[part, case["voxels"]]  # no engine beats its floor
            assert (
                case["peak_mb"] > 1
                and case["wall_ms"] > case[{"inference": "maps_ms"}.get(part, "forward_ms")]
            )
    assert (tmp_path / "engine.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "engine.md").read_text() == done.stdout
    assert "prepare" in done.stderr and "inference" in done.stderr  # what it is doing


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.slow
def test_on_a_gpu_the_kernels_are_right_and_busy_less_than_the_wall(tmp_path):
    done = command("--quick", "--engines", "lground,plain", "--dtypes", "fp16,tf32", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    engines = json.loads((tmp_path / "engine.json").read_text())["engines"]
    for engine in engines.values():
        assert not engine["failures"] and all(case["ok"] for case in engine["check"])
        for case in engine["inference"] + engine["training"]:
            assert 0 < case["gpu_ms"] < 1.2 * case["wall_ms"] and case["launches"] > 50
            assert case["peak_mb"] > 0 and "reserved_mb" in case


def test_check_only_takes_no_times(tmp_path):
    done = command(
        "--check-only", "--quick", "--variant", "Res16UNet14A", "--device", "cpu", "--out", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    plain = json.loads((tmp_path / "engine.json").read_text())["engines"]["plain"]
    assert plain["check"][0]["ok"] and not plain["inference"] and not plain["training"]
    assert not (tmp_path / "engine.png").exists()


def test_an_unknown_engine_is_named_at_once(tmp_path):
    done = command("--engines", "plane", "--out", str(tmp_path))
    assert done.returncode and "plane" in done.stderr and "plain" in done.stderr
    assert not list(tmp_path.iterdir())


def test_scans_have_the_size_asked_for_and_surfaces_of_a_room():
    from scans import rescans, scan

    cells = scan(20000, seed=3)
    assert cells.shape == (20000, 3) and cells.dtype == np.int32 and cells.min() >= 0
    known = set(map(tuple, cells.tolist()))
    assert len(known) == 20000
    some = cells[np.random.default_rng(0).integers(len(cells), size=300)].tolist()
    met = [(x + a, y + b, z + c) in known for x, y, z in some for a, b, c in product((-1, 0, 1), repeat=3)]
    assert 7 < sum(met) / len(some) < 12  # of 27: walls of one or two voxels
    assert np.array_equal(cells, scan(20000, seed=3)) and not np.array_equal(cells, scan(20000, seed=4))
    again = rescans(cells, 8)
    assert len({len(other) for other in again}) > 1  # fresh coordinates, other numbers of rows
    for other in again:
        assert 0.97 * len(cells) < len(other) <= len(cells) and other.min() >= 0
        assert len(np.unique(other, axis=0)) == len(other)


def test_the_floor_counts_what_the_convolutions_of_the_network_meet():
    from costs import floor, layers
    from networks import make

    net = make("Res16UNet14A", 3).eval()
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (300, 4))).int().unique(dim=0)
    rows[:, 0] %= 2
    rows = rows.unique(dim=0)
    seen = {}

    def note(module, inputs, output):
        (x,) = inputs
        if module.pointwise:
            seen[module] = len(x), len(output), 1, len(x)
            return
        up = isinstance(module, SparseConvTranspose3d)
        maps = (output, x) if up else (x, output)
        kernel_map = x.manager.kernel_map(*(t.coordinate_map for t in maps), module.kernel_size, (1, 1, 1))
        seen[module] = len(x), len(output), len(kernel_map), sum(map(len, kernel_map.inputs))

    convolutions = [m for m in net.modules() if isinstance(m, SparseConv3d | SparseConvTranspose3d)]
    for module in convolutions:
        module.register_forward_hook(note)
    with torch.no_grad():
        net(SparseTensor(torch.rand(len(rows), 3), rows))
    counted = layers(net, rows)
    assert [cost[:4] for cost in counted] == [seen[module] for module in convolutions]
    assert [cost[4:] for cost in counted] == [tuple(m.kernel.shape[-2:]) for m in convolutions]
    slow = floor(counted, {"fp32": 1e9, "copy": 1e15}, "fp32")
    assert slow["ms"] == pytest.approx(slow["gflop"] * 1e3)  # bound by arithmetic
    narrow = floor(counted, {"fp16": 1e18, "copy": 1e9}, "fp16")
    assert narrow["ms"] == pytest.approx(narrow["mb"]) and narrow["mb"] < slow["mb"]  # bound by traffic


class Twisted:
    """A peer made of our own layers whose weight slots lie in another order."""

    @staticmethod
    def make(broken: bool = False):
        from peers import Peer

        class Own(Peer):
            def tensor(self, coordinates, features, shape, scenes):
                return SparseTensor(features, coordinates)

            def features(self, x):
                return x.features

            def replace(self, x, features):
                return x.with_features(features)

            def convolution(self, kind, channels, size, level):
                layer = SparseConvTranspose3d if kind == "up" else SparseConv3d
                return layer(*channels, size, stride=1 if kind == "same" else 2)

            def set_kernel(self, layer, kernel):
                order = torch.randperm(len(kernel), generator=torch.Generator().manual_seed(len(kernel)))
                layer.kernel.data[order] = kernel[0 if broken else slice(None)].expand_as(kernel)

        return Own()


@pytest.mark.parametrize("stem", [3, 5])
def test_a_peer_gets_the_same_network_whatever_its_layout(stem):
    from networks import PeerNetwork, features_of, make, norms
    from scans import scan

    net = make("Res16UNet34C", stem).train()
    rows = torch.from_numpy(np.insert(scan(400, 1), 0, 0, axis=1))
    features = features_of(rows)
    peer = Twisted.make()
    with torch.no_grad():
        net(SparseTensor(features, rows))
        net.eval()
        wanted = net(SparseTensor(features, rows))[0].features
        other = PeerNetwork(net, peer).eval()
        found, _ = other(peer.tensor(rows, features, (64, 64, 64), 1))
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    assert len(norms(other)) == len(norms(net))
    # gradients are compared parameter by parameter: both list them in one order
    assert [p.numel() for p in other.parameters()] == [p.numel() for p in net.parameters()]


def test_a_peer_that_misses_offsets_is_found_out():
    with pytest.raises(RuntimeError, match="does not meet every offset once"):
        Twisted.make(broken=True).loaded("same", 3, 0, torch.rand(27, 8, 8))


def test_an_engine_that_is_wrong_is_reported_and_not_timed(tmp_path, monkeypatch):
    import measure

    job = {"device": "cpu", "variant": "Res16UNet14A", "stems": [3], "dtypes": ["fp32"], "voxels": [300]}
    job |= {"check_voxels": 300, "parts": ["inference"], "repeats": 1, "seconds": 1, "full_tuning": False}
    (tmp_path / "job.json").write_text(json.dumps(job))
    from scans import save_scan

    save_scan((tmp_path / "scan-300.npy", 300, 1))
    space = measure.Workspace(tmp_path)
    measure.prepare(space)
    right = measure.Measurement(space, "plain")
    right.run()
    assert right.result["check"][0]["ok"] and len(right.result["inference"]) == 1
    broken = measure.Measurement(space, "plain")
    network = space.network

    def drop_an_offset(stem: int) -> nn.Module:
        net = network(stem)
        net.block8[0].conv1.kernel.data[13] = 0
        return net

    monkeypatch.setattr(space, "network", drop_an_offset)
    broken.run()
    assert not broken.result["check"][0]["ok"] and broken.result["inference"] == []
    assert json.loads((tmp_path / "plain.json").read_text())["check"][0]["ok"] is False
