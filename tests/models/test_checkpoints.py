"""Checkpoints as they are published: prefixes, stray tensors, odd options, damage and malice."""

import argparse
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from lground import models
from lground.errors import InputError
from lground.models import build, load_into, load_model, read_checkpoint
from lground.sparse import SparseTensor

NAME = "Res16UNet14A"


def main(arguments: list[str]) -> int:
    """The command line, which tests of the engine do without."""
    from lground.cli import main

    return main(arguments)


@pytest.fixture(scope="module")
def network(filled):
    return filled(build(NAME))


@pytest.fixture
def lightning(network):
    """A dictionary as Lightning saves it."""
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    state["embedding_criterion.attr_linears.0.weight"] = torch.zeros(4, 4)
    return {"state_dict": state, "epoch": 3, "optimizer_states": [{"state": {0: torch.ones(2)}}]}


@pytest.fixture
def foreign(monkeypatch):
    """Classes of a package that exists when the checkpoint is written and not when it is read."""
    module = types.ModuleType("someones_trainer")
    for name, bases in {"AttributeDict": (dict,), "Odd": (), "Callback": ()}.items():
        setattr(module, name, type(name, bases, {"__module__": "someones_trainer"}))
    monkeypatch.setitem(sys.modules, "someones_trainer", module)
    return module


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    assert all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_lightning_checkpoint_with_odd_options(tmp_path, lightning, foreign, monkeypatch, network):
    odd = foreign.Odd()
    odd.value = 3
    config = argparse.Namespace(
        model=NAME, path=Path("/data"), odd=odd, array=np.zeros(3), number=np.float64(1), kind=foreign.Odd
    )
    for options in ({"config": config}, config, foreign.AttributeDict(model=NAME, odd=odd), None):
        path = tmp_path / "published.ckpt"
        torch.save(
            lightning | {"hyper_parameters": options, "callbacks": {foreign.Callback: {"best": 1.0}}}, path
        )
        with monkeypatch.context() as without:
            without.delitem(sys.modules, "someones_trainer")
            checkpoint = read_checkpoint(path)
        assert list(checkpoint.state) == list(network.state_dict())
        assert checkpoint.set_aside == ("embedding_criterion.attr_linears.0.weight",)
        assert checkpoint.network == (None if options is None else NAME)
        fresh = build(NAME)
        assert load_into(fresh, checkpoint.state, path) == []
        assert_same(fresh, network)


@pytest.mark.parametrize("prefix", ["", "module.", "module.model.", "encoder."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_prefixes_are_stripped_from_each_key(prefix, wrapped, tmp_path, network):
    state = {
        (prefix if i % 2 else "") + key: value for i, (key, value) in enumerate(network.state_dict().items())
    }
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "w.pth")
    assert list(read_checkpoint(tmp_path / "w.pth").state) == list(network.state_dict())


def test_old_format_is_read(tmp_path, lightning):
    torch.save(lightning, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert len(read_checkpoint(tmp_path / "old.pth").state) == len(lightning["state_dict"]) - 1


def test_two_networks_in_one_file_are_refused(tmp_path, network):
    state = network.state_dict()
    torch.save(state | {f"module.{k}": v for k, v in state.items()}, tmp_path / "two.pth")
    with pytest.raises(InputError, match="two tensors are called conv0p1s1"):
        read_checkpoint(tmp_path / "two.pth")


class Payload:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("attack", ["system", "eval", "subprocess"])
def test_malicious_checkpoints_run_nothing(attack, new_format, tmp_path, lightning, capsys):
    mark = tmp_path / "mark"
    payload = {
        "system": Payload(os.system, f"touch {mark}"),
        "eval": Payload(eval, f"open({str(mark)!r}, 'w')"),
        "subprocess": Payload(subprocess.check_output, ["touch", str(mark)]),
    }[attack]
    path = tmp_path / "evil.ckpt"
    torch.save(lightning | {"hyper_parameters": payload}, path, _use_new_zipfile_serialization=new_format)
    assert main(["convert", str(path), str(tmp_path / "out.safetensors")]) == 2
    error = capsys.readouterr().err
    assert (
        "evil.ckpt: not a checkpoint that can be read safely (it asks for" in error and error.count("\n") == 1
    )
    assert not mark.exists() and not (tmp_path / "out.safetensors").exists()


def test_damaged_and_foreign_files(tmp_path, lightning, capsys):
    torch.save(lightning, tmp_path / "whole.ckpt")
    whole = (tmp_path / "whole.ckpt").read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "junk": b"hello " * 50, "empty": b""}.items():
        (tmp_path / f"{name}.ckpt").write_bytes(content)
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save({"epoch": 1}, tmp_path / "none.ckpt")
    torch.save({"state_dict": {"attr_linears.0.weight": torch.zeros(2)}}, tmp_path / "loss.ckpt")
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2)}}, tmp_path / "resnet.ckpt")
    for source in [*sorted(set(tmp_path.iterdir()) - {tmp_path / "whole.ckpt"}), tmp_path / "missing.ckpt"]:
        assert main(["convert", str(source), str(tmp_path / "out.safetensors")]) == 2, source
        error = capsys.readouterr().err
        assert str(source) in error and error.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()


def test_strict_loading_names_what_does_not_fit(network):
    state = network.state_dict()
    with pytest.raises(InputError, match=r"f: .* 1 tensor missing \(block3.0.conv1.kernel\)"):
        load_into(build(NAME), {k: v for k, v in state.items() if k != "block3.0.conv1.kernel"}, "f")
    with pytest.raises(InputError, match=r"1 tensor left over \(extra\)"):
        load_into(build(NAME), state | {"extra": torch.zeros(1)}, "f")
    with pytest.raises(InputError, match=r"2 tensors of another shape \(final.kernel, final.bias\)"):
        load_into(build(NAME, out_channels=20), state, "f")
    sick = state["bn0.bn.weight"].clone()
    sick[3] = torch.nan
    with pytest.raises(InputError, match=r"f: 1 tensor with values that are not finite \(bn0.bn.weight\)"):
        load_into(build(NAME), state | {"bn0.bn.weight": sick}, "f")


def test_a_fresh_classifier_is_allowed_by_name(network):
    target = build(NAME, out_channels=20)
    before = target.final.kernel.clone()
    assert load_into(target, network.state_dict(), "f", fresh=("final.",)) == ["final.kernel", "final.bias"]
    assert torch.equal(target.final.kernel, before) and torch.equal(target.bn0.bn.bias, network.bn0.bn.bias)
    pretrained = {k: v for k, v in network.state_dict().items() if not k.startswith("final.")}
    assert load_into(target, pretrained, "f", fresh=("final.",)) == ["final.kernel", "final.bias"]


def test_convert_gives_the_same_network(tmp_path, lightning, network, capsys):
    torch.save(lightning, tmp_path / "in.ckpt")
    target = tmp_path / "out.safetensors"
    assert main(["convert", str(tmp_path / "in.ckpt"), str(target)]) == 0
    captured = capsys.readouterr()
    assert "set aside" in captured.err and "embedding_criterion.attr_linears.0.weight" in captured.err
    assert "Res16UNet14A, 200 classes, 96 features, 8,032,552 parameters" in captured.out
    model = load_model(target)
    assert (model.name, len(model.label_set), model.voxel_size) == (NAME, 200, 0.02)
    assert_same(model.network, network)
    direct = load_model(tmp_path / "in.ckpt")  # without conversion
    coordinates = torch.cartesian_prod(torch.zeros(1, dtype=int), *[torch.arange(5)] * 3)
    x = SparseTensor(torch.rand(len(coordinates), 3) - 0.5, coordinates)
    with torch.no_grad():
        expected = network.eval()(x)[0].features
        assert torch.equal(model(x)[0], expected) and torch.equal(direct(x)[0], expected)


def test_convert_of_another_architecture(tmp_path, lightning, capsys):
    torch.save(lightning, tmp_path / "in.ckpt")
    arguments = ["convert", str(tmp_path / "in.ckpt"), str(tmp_path / "out.safetensors"), "--model"]
    assert main([*arguments, "Res16UNet34C"]) == 2
    assert "in.ckpt: not the weights of Res16UNet34C" in capsys.readouterr().err
    assert main([*arguments, "Res16UNet14X"]) == 2
    assert "nearest is 'Res16UNet14" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


def test_convert_names_the_classes(tmp_path, filled, capsys):
    for classes, expected in ((20, "scannet20"), (7, None)):
        torch.save(filled(build(NAME, out_channels=classes)).state_dict(), tmp_path / "in.pth")
        arguments = ["convert", str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors")]
        if expected:
            assert (
                main(arguments) == 0 and load_model(tmp_path / "out.safetensors").label_set.name == expected
            )
            continue
        assert main(arguments) == 2 and "has 7 classes" in capsys.readouterr().err
        (tmp_path / "classes.txt").write_text("\n".join("abcdefg"))
        assert main([*arguments, "--labels", str(tmp_path / "classes.txt")]) == 0
        assert load_model(tmp_path / "out.safetensors").label_set.names == tuple("abcdefg")


def test_pretrained_checkpoint_starts_a_finetuning(tmp_path):
    pretrained = build("Res16UNet34CR_Proj", representation_only=True)
    torch.save(
        {"state_dict": {f"model.{k}": v for k, v in pretrained.state_dict().items()}}, tmp_path / "p.ckpt"
    )
    model = load_model(tmp_path / "p.ckpt")
    assert model.name == "Res16UNet34CR_Proj" and not model.has_classifier
    target = build("Res16UNet34C")
    assert models.transfer_weights(model, target, "p.ckpt", fresh=("final.",)) == [
        "final.kernel",
        "final.bias",
    ]
    assert torch.equal(target.block8[0].conv1.kernel, pretrained.block8[0].conv1.kernel)
