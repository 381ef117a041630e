"""Tuning: no shape of a program is used before its numbers were checked, however fast it is."""

import pytest
import torch

pytest.importorskip("triton")

from lground.models import Res16UNet, Variant, res16unet
from lground.sparse.kernels import configuration, problems, shapes, tuning
from lground.sparse.kernels.problems import Layer, Problem, Scene, layers, surfaces
from lground.sparse.kernels.shapes import Config
from lground.sparse.kernels.tuning import fastest

LAYERS = [
    Layer("same", 0, 32, 32),
    Layer("same", 1, 32, 64),
    Layer("down", 0, 32, 32),
    Layer("up", 1, 64, 32),
]
FIRST, OTHER, THIRD = Config(32, 32, 4, 3, 1), Config(32, 16, 4, 3, 1), Config(32, 32, 4, 3, 2)


@pytest.fixture(scope="module")
def scene(scan) -> Scene:
    return Scene(scan(90))


@pytest.fixture
def problem(scene) -> Problem:
    return Problem(scene, LAYERS[0], "float32")


@pytest.fixture
def clock(problem, monkeypatch):
    """Times that a test chooses, by config."""
    times = {}
    monkeypatch.setattr(Problem, "timed", lambda self, config, clock: times[config])
    return times


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("config", [FIRST, OTHER])
def test_right_numbers_have_a_small_error(scene, layer, config):
    assert max(Problem(scene, layer, "float32").error(config)) < 1e-5


def test_the_fastest_of_those_that_are_right_is_taken(problem, clock):
    clock |= {FIRST: 3.0, OTHER: 2.0, THIRD: 1.0}
    found = fastest(problem, clock, None)
    assert (found.config, found.default, found.best) == (THIRD, 3.0, 1.0)
    assert found.key == configuration.key(27, 32, 32, "float32", problem.number)


def test_what_is_hardly_faster_is_not_taken(problem, clock):
    clock |= {FIRST: 1.0, OTHER: 0.99}
    assert fastest(problem, clock, None).config == FIRST


def wrong(config: Config, spoil):
    """A convolution whose results `spoil` changes for one config."""
    right = problems.convolution

    def convolution(x, kernel, tiles, out, chosen, *rest, **options):
        result = right(x, kernel, tiles, out, chosen, *rest, **options)
        return spoil(result) if chosen == config else result

    return convolution


def _one_row(out):
    out[len(out) // 2] *= 1.001
    return out


def _not_written(out):
    out[-1, -1] = torch.nan
    return out


def _other_bits(out, runs=[0]):  # noqa: B006
    runs[0] += 1
    out[0, 0] += 1e-6 * runs[0]
    return out


def _raise(out):
    raise RuntimeError("out of resource: shared memory")


@pytest.mark.parametrize(
    "spoil", [_one_row, _not_written, _other_bits, _raise, torch.zeros_like, lambda out: -out]
)
def test_a_wrong_one_is_never_accepted(problem, clock, monkeypatch, spoil):
    clock |= {FIRST: 3.0, OTHER: 2.0, THIRD: 1.0}
    monkeypatch.setattr(problems, "convolution", wrong(THIRD, spoil))
    assert fastest(problem, clock, None).config == OTHER


def test_a_single_wrong_number_counts(scene, clock, monkeypatch):
    """One that is lost in the mean: 1 % of the mean number, in one of thousands."""

    def one(out):
        out[3, 3] += 0.012 * out.float().square().mean().sqrt().half()
        return out

    clock |= {FIRST: 3.0, THIRD: 1.0}
    monkeypatch.setattr(problems, "convolution", wrong(THIRD, one))
    problem = Problem(scene, LAYERS[0], "float16")
    (mean, worst), (mean_one, worst_one) = problem.error(FIRST), problem.error(THIRD)
    assert mean_one < 1.5 * mean and worst_one > 3 * worst
    assert fastest(problem, clock, None).config == FIRST


def test_a_less_exact_one_is_not_accepted(problem, clock, monkeypatch):
    clock |= {FIRST: 3.0, THIRD: 1.0}
    monkeypatch.setattr(problems, "convolution", wrong(THIRD, lambda out: out.mul_(1 + 1e-6)))
    assert fastest(problem, clock, None).config == FIRST  # though it is within what float32 can be off


def test_wrong_numbers_of_the_default_are_said(problem, clock, monkeypatch):
    monkeypatch.setattr(problems, "convolution", wrong(FIRST, lambda out: out.mul_(1.01)))
    with pytest.raises(ArithmeticError, match="float32"):
        fastest(problem, [FIRST, OTHER], None)


def test_candidates_fit_and_the_default_is_the_first(scene):
    for layer in LAYERS:
        for kind, dtype in configuration.KINDS.items():
            problem = Problem(scene, layer, kind)
            first, *others = found = problem.candidates()
            widths = layer.in_channels, layer.out_channels
            assert first == configuration.choose(problem.tiles, *widths, dtype)
            assert others and len(set(found)) == len(found)
            chip = shapes.Chip()
            assert all(shapes.fits(c, chip, problem.tiles.volume, *widths, dtype) for c in found)


def test_layers_are_those_that_a_network_runs(scan, kernels, monkeypatch):
    """Found by its modules, against those that ask for a shape when it runs."""
    from lground.sparse import SparseTensor
    from lground.sparse.kernels import autograd

    asked = set()
    right = autograd.choose

    def choose(tiles, *layer):
        asked.add((tiles.volume, *layer[:2]))
        return right(tiles, *layer)

    monkeypatch.setattr(autograd, "choose", choose)
    monkeypatch.setattr(res16unet, "ENCODER_PLANES", (32, 64, 64, 96))
    voxels = scan(40)
    network = Res16UNet(Variant((1,) * 8, (64, 64, 32, 96))).eval().to(voxels.device)
    with torch.no_grad():
        network._features(SparseTensor(torch.rand(len(voxels), 3, device=voxels.device), voxels))
    found = layers(network)
    assert {(27 if f.kind == "same" else 8, f.in_channels, f.out_channels) for f in found} == asked
    assert {f.level for f in found if f.kind == "down"} == {0, 1, 2, 3}
    assert {f.level for f in found if f.kind == "up"} == {1, 2, 3, 4}


def test_every_class_of_layers_is_looked_at_once_until_time_is_up(device, monkeypatch):
    monkeypatch.setattr(tuning, "VOXELS", (120, 100))
    monkeypatch.setattr(tuning, "graph_time", lambda run: 1.0)
    monkeypatch.setattr(Problem, "candidates", lambda self: [FIRST, OTHER])
    found = list(tuning.tune(LAYERS[:2], ["float32", "tf32"], device, 60, 2))
    keys = [result.key for result in found]
    assert len(set(keys)) == len(keys) and {result.kind for result in found} == {"float32", "tf32"}
    assert {result.config for result in found} == {FIRST}
    assert list(tuning.tune(LAYERS[:2], ["float32"], device, 0, 1)) == []


def test_surfaces_are_as_thick_as_scans():
    voxels = surfaces(20_000).long()
    assert 0.5 < len(voxels) / 20_000 < 1.5
    keys = (voxels[:, 1:] + 1000) @ torch.tensor([1 << 40, 1 << 20, 1])
    steps = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3) @ torch.tensor([1 << 40, 1 << 20, 1])
    met = sum(int(torch.isin(keys + step, keys).sum()) for step in steps)
    assert 8 < met / len(voxels) < 13


@pytest.mark.gpu
def test_a_little_tuning_is_kept_and_used(tmp_path, monkeypatch, capsys):
    from lground.cli import main

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    configuration.tuned.cache_clear()
    command = "doctor --tune --seconds 15 --networks Res16UNet14A --types float16"
    assert main(command.split()) == 0
    device = torch.device("cuda", torch.cuda.current_device())
    out = capsys.readouterr().out
    assert str(configuration.path(device)) in out
    tuned = configuration.tuned(device)
    assert tuned and tuned == configuration.read(device)
    assert main(["doctor"]) == 0
    assert f"{len(tuned)} layers tuned" in capsys.readouterr().out
    for layer, config in tuned.items():
        volume, *widths = map(int, layer.split()[:3])
        number = (1 << int(layer.split()[4])) - 1
        tiles = type(
            "T",
            (),
            {"n": torch.zeros(1, device=device), "capacity": 64 * number, "tile_rows": 64, "volume": volume},
        )
        assert configuration.choose(tiles, *widths, torch.float16) == config
    configuration.tuned.cache_clear()
