"""Runs that end before their time, go on, and arrive where the uninterrupted one does, bit for bit."""

import csv
import json
import random
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from lground.cli import main


def same(a, b) -> bool:
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def log_of(run, *columns) -> list[list[str]]:
    with open(run / "log.csv") as file:
        return [[row[column] for column in columns] for row in csv.DictReader(file)]


def test_a_run_killed_ten_times_gives_the_weights_of_the_whole_one(tiny, tmp_path, forked):
    line = ["finetune", "demo", *tiny, "schedule.name=cosine", "epochs=7", "--out"]
    assert forked([*line, str(tmp_path / "whole")])[0] == 0
    dice, out = random.Random(), tmp_path / "killed"
    for _ in range(10):
        code, _ = forked([*line, str(out), "--resume"], signal.SIGKILL, dice.uniform(0.05, 1.0))
        assert code == -signal.SIGKILL
    assert forked([*line, str(out), "--resume"])[0] == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert same(tmp_path / "whole" / name, out / name)
    columns = ("epoch", "loss", "lr", "val_miou")
    assert log_of(out, *columns) == log_of(tmp_path / "whole", *columns)


def test_a_run_killed_before_its_first_checkpoint_is_not_overwritten(tiny, tmp_path, forked, capsys):
    out = tmp_path / "run"
    line = ["finetune", "demo", *tiny, "checkpoint_every=50", "epochs=60", "--out", str(out)]
    forked(line, signal.SIGKILL, 0, out / "best.safetensors")
    assert not (out / "last.ckpt").exists()
    before = (out / "log.csv").read_bytes(), (out / "best.safetensors").read_bytes()
    assert main(["finetune", "demo", *tiny, "network.name=Res16UNet14B", "--out", str(out)]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert before == ((out / "log.csv").read_bytes(), (out / "best.safetensors").read_bytes())
    assert main([*line, "epochs=1", "--resume"]) == 0
    assert log_of(out, "epoch") == [["1"]]


def test_sigterm_saves_in_mid_epoch_and_the_epoch_goes_on_from_there(tiny, tmp_path, forked):
    """To all processes, as SLURM sends it: those that load scenes must not take the trainer with them."""
    line = ["finetune", "demo", *tiny, "schedule.name=cosine", "data.batch_size=1", "data.voxel_size=0.1"]
    line += ["data.workers=2", "epochs=3", "--out"]
    assert forked([*line, str(tmp_path / "whole")])[0] == 0
    out, steps = tmp_path / "terminated", []
    # Since training started, when it wrote its recipe (again); the longer ones are for a busy machine.
    for after in (0.0, 0.7, 1.0, 1.3, 2.0, 3.0, 4.5):
        if len(steps) > 3 and any(steps):
            break
        (out / "recipe.yaml").unlink(missing_ok=True)
        code, said = forked([*line, str(out), "--resume"], signal.SIGTERM, after, out / "recipe.yaml")
        if code == 0 and steps:  # it was done before the signal came; what was saved before is compared below
            break
        assert code == 143, said
        assert "terminated, saved after update" in said and "Traceback" not in said
        steps.append(torch.load(out / "last.ckpt", weights_only=True)["step"])
    assert any(steps), steps
    assert forked([*line, str(out), "--resume"])[0] == 0
    assert same(tmp_path / "whole" / "last.safetensors", out / "last.safetensors")
    columns = ("epoch", "loss", "loss_cross_entropy", "lr", "val_miou")
    assert log_of(out, *columns) == log_of(tmp_path / "whole", *columns)


def test_how_updates_are_computed_is_not_resumed(tiny, tmp_path):
    """A run goes on where its optimiser was fused and is not now; and the scaler of fp16 may be new."""
    line = ["finetune", "demo", *tiny, "optimizer.name=adamw", "schedule.name=constant", "--out"]
    whole, out = tmp_path / "whole", tmp_path / "moved"
    assert main([*line, str(whole), "epochs=2"]) == main([*line, str(out), "epochs=1"]) == 0
    state = torch.load(out / "last.ckpt", weights_only=True)
    state["optimizer"]["param_groups"][0]["fused"] = True
    torch.save(state, out / "last.ckpt")
    assert main([*line, str(out), "epochs=2", "--resume"]) == 0
    assert not torch.load(out / "last.ckpt", weights_only=True)["optimizer"]["param_groups"][0]["fused"]
    assert same(whole / "last.safetensors", out / "last.safetensors")


def test_a_run_cannot_be_cut_short_before_it_kept_weights(tiny, tmp_path, forked, capsys):
    line = ["finetune", "demo", *tiny, "epochs=60", "validate_every=100", "--out", str(tmp_path / "run")]
    code, said = forked(line, signal.SIGTERM, 0.5, tmp_path / "run" / "last.ckpt")
    assert code == 143, said
    done = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["epoch"]
    assert done >= 1
    assert main([*line, f"epochs={done}", "--resume"]) == 2
    assert f"resume it with epochs={done + 1} or more" in capsys.readouterr().err
    assert main([*line, f"epochs={done + 1}", "--resume"]) == 0


def test_best_weights_of_later_epochs_than_the_checkpoint_are_not_kept(tiny, tmp_path, capsys):
    """As a kill leaves them after epoch 3, where the checkpoint before was that of epoch 1."""
    run = tmp_path / "run"
    line = ["finetune", "demo", *tiny, "schedule.name=constant", "--out", str(run), "--resume"]
    assert main([*line, "epochs=1"]) == 0
    (run / "metrics.json").write_text('{"epoch": 3}')
    assert main([*line, "epochs=1"]) == 2
    assert "resume it with epochs=2 or more" in capsys.readouterr().err
    assert main([*line, "epochs=2"]) == 0
    assert json.loads((run / "metrics.json").read_text())["epoch"] == 2
    assert same(run / "best.safetensors", run / "last.safetensors")


def test_a_longer_run_may_be_resumed_under_every_schedule(tiny, tmp_path):
    for name in ("onecycle", "cosine", "poly"):
        line = ["finetune", "demo", *tiny, f"schedule.name={name}", "--out", str(tmp_path / name)]
        assert main([*line, "epochs=1"]) == 0
        (tmp_path / name / ".last.ckpt.x1.part.ckpt").touch()  # left by a run that was killed
        assert main([*line, "epochs=2", "--resume"]) == 0
        assert not list((tmp_path / name).glob(".*"))
        assert len(log_of(tmp_path / name, "lr")) == 2


def full_disk(folder, size: str) -> bool:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0


def check_message(said: str, name: str) -> None:
    message = said.strip().splitlines()[-1]
    assert message.startswith("lground: ") and f"{name}: cannot be written" in message
    assert "Traceback" not in said


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays_whole(tiny, tmp_path, capsys):
    """Room for all files once, but not for the next checkpoint beside the first."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not full_disk(disk, "290m"):
        pytest.skip("needs the right to mount a small file system")
    try:
        line = ["finetune", "demo", *tiny, "--out", str(disk / "run")]
        assert main([*line, "epochs=1"]) == 0
        before = (disk / "run" / "last.ckpt").read_bytes()
        (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - (40 << 20)))
        assert main([*line, "epochs=2", "--resume"]) == 2
        said = capsys.readouterr().err
        check_message(said, "last.ckpt")
        assert "No space left on device" in said
        assert (disk / "run" / "last.ckpt").read_bytes() == before
        assert not list((disk / "run").glob(".*.part*"))
        (disk / "other").unlink()
        assert main([*line, "epochs=2", "--resume"]) == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_that_may_not_grow_is_one_line(tiny, tmp_path):
    """Weights fit into 40 MB, a checkpoint does not."""
    limit = 40 << 20
    line = ["finetune", "demo", *tiny, "epochs=1", "--out", str(tmp_path / "run")]
    ran = subprocess.run(
        [sys.executable, "-m", "lground", *line],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ran.returncode == 2
    check_message(ran.stderr, "last.ckpt")
    assert not list((tmp_path / "run").glob(".*.part*")) and not (tmp_path / "run" / "last.ckpt").exists()


def test_what_a_run_cannot_go_on_from_is_named(tiny, tmp_path, capsys):
    run = tmp_path / "run"
    line = ["finetune", "demo", *tiny, "epochs=1", "--out", str(run)]
    assert main(line) == 0
    whole = {name: (run / name).read_bytes() for name in ("last.ckpt", "recipe.yaml", "log.csv")}
    capsys.readouterr()

    def refused(*changes: str) -> str:
        assert main([*line, *changes, "--resume"]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("lground: ") and "; " in said
        for name, content in whole.items():
            (run / name).write_bytes(content)
        return said

    for content in (b"", whole["last.ckpt"][: len(whole["last.ckpt"]) // 2]):
        (run / "last.ckpt").write_bytes(content)
        assert "last.ckpt: damaged" in refused()
    for content in ({}, [1]):
        torch.save(content, run / "last.ckpt")
        assert "last.ckpt: no checkpoint of a training" in refused()
    (run / "recipe.yaml").unlink()
    assert "last.ckpt: differs from the recipe given in network.name;" in refused("network.name=Res16UNet14B")
    (run / "recipe.yaml").write_text("stage: [")
    assert "recipe.yaml: no recipe" in refused()
    (run / "log.csv").write_text("epoch,loss\none,two\n")
    assert "log.csv: damaged" in refused()
    (run / "recipe.yaml").unlink()  # the checkpoint holds a copy
    assert main([*line, "epochs=2", "--resume"]) == 0
