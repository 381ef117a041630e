"""`lground doctor`: what runs the network here, and tuning where there is something to tune."""

import pytest
import torch

from lground.cli import doctor, main
from lground.models import build


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_a_gpu_plain_pytorch_is_named(capsys, no_gpu):
    assert main(["doctor"]) == 0
    assert "\nkernels:  plain PyTorch" in capsys.readouterr().out


def test_tuning_without_a_gpu_is_one_line_and_code_2(capsys, no_gpu):
    assert main(["doctor", "--tune"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "CUDA" in captured.err


@pytest.mark.parametrize("options", [["--types", "float8"], ["--networks", "Res16UNet34X"]])
@pytest.mark.usefixtures("kernels")
def test_what_cannot_be_tuned_is_one_line_and_code_2(capsys, monkeypatch, options):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main(["doctor", "--tune", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and options[1] in captured.err


@pytest.mark.usefixtures("kernels")
def test_gains_are_a_table_of_what_became_faster(capsys):
    from lground.sparse.kernels.problems import Layer
    from lground.sparse.kernels.shapes import Config
    from lground.sparse.kernels.tuning import Tuned

    first, other = Config(64, 64, 4, 5, 1), Config(64, 32, 4, 5, 4)
    doctor._print_gains(
        [
            Tuned(Layer("same", 2, 64, 64), "float16", 58, 0.0132, 0.0112, other),
            Tuned(Layer("up", 1, 128, 96), "tf32", 222, 0.007, 0.007, first),
        ],
        3.2,
    )
    head, row, total = capsys.readouterr().out.splitlines()
    assert row.split() == "same 64 to 64 float16 58 13.2 us 11.2 us 64 32 4 5 4".split()
    assert head.split()[:3] == ["layer", "type", "tiles"] and total.startswith("2 layers in 3 s")


@pytest.fixture
def pretended_gpu(monkeypatch, tmp_path):
    """What is asked of a GPU before and after tuning."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU (pretended)")
    return torch.device("cuda", 0)


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.usefixtures("kernels")
def test_what_was_found_is_kept_also_when_interrupted(capsys, monkeypatch, pretended_gpu, interrupted):
    from lground.sparse.kernels import configuration, problems, shapes, tuning
    from lground.sparse.kernels.shapes import Config

    monkeypatch.setattr(configuration, "chip", lambda device: shapes.Chip())
    asked = []

    def tune(layers, kinds, device, seconds, workers):
        asked.append((len(layers), kinds, seconds))
        yield tuning.Tuned(layers[0], "float16", 58, 0.0132, 0.0112, Config(32, 32, 4, 3, 1))
        if interrupted:
            raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "tune", tune)
    assert (
        main("doctor --tune --seconds 7 --types float16 --networks Res16UNet34C".split()) == 130 * interrupted
    )
    assert asked == [(len(problems.layers(build("Res16UNet34C"))), ["float16"], 7)]
    (config,) = configuration.read(pretended_gpu).values()
    assert config == Config(32, 32, 4, 3, 1)
    assert interrupted or str(configuration.path(pretended_gpu)) in capsys.readouterr().out
