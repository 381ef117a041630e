"""Processes started by a launcher, by ourselves, or not at all."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lground.cli import main
from lground.errors import InputError
from lground.training import load_recipe
from lground.training.launch import first_host, join_processes

COMMAND = [sys.executable, "-m", "lground"]
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node=2",
    "-m",
    "lground",
]


def children(process: int, argument: str) -> list[int]:
    """The processes that `process` started with this argument."""
    started = map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
    return [
        child
        for child in started
        if argument.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    ]


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("localhost", "localhost"),
        ("gpu7,gpu9", "gpu7"),
        ("gpu[003-007,9],login", "gpu003"),
        ("a-b[1,3].cluster", "a-b1.cluster"),
        ("rack1-gpu[08-11]", "rack1-gpu08"),
    ],
)
def test_the_first_host_of_a_slurm_list(nodes, first):
    assert first_host(nodes) == first


@given(st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True), st.integers(0, 999), st.integers(1, 4))
def test_the_first_host_keeps_its_leading_zeros(name, number, digits):
    assert first_host(f"{name}[{number:0{digits}}-1999]") == f"{name}{number:0{digits}}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("devices=0", "at least 1"),
        ("num_nodes=2", "srun or torchrun"),
    ],
)
def test_processes_that_cannot_be_started(tiny, tmp_path, capsys, change, words):
    assert main(["finetune", "demo", *tiny, change, "--out", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_launcher_and_a_recipe_that_disagree(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main(["finetune", "demo", *tiny, "devices=2", "--out", str(tmp_path / "run")]) == 2
    assert "devices=3" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("visible", "local"), [(1, "0"), (4, "3")])
def test_a_slurm_task_takes_its_own_gpu_or_one_of_all(monkeypatch, visible, local):
    """The last of four tasks, bound to one GPU (--gpus-per-task=1) or not."""
    see_gpus(monkeypatch, visible)
    slurm = {
        "PROCID": "3",
        "NTASKS": "4",
        "LOCALID": "3",
        "JOB_ID": "7",
        "STEP_ID": "0",
        "NODELIST": "localhost",
    }
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert join_processes(load_recipe("demo", "finetune", ["devices=4"]))
    assert os.environ["LOCAL_RANK"] == local and os.environ["WORLD_SIZE"] == "4"


@pytest.mark.parametrize("launched", [{}, {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"}])
def test_more_processes_than_gpus_are_refused(monkeypatch, launched):
    see_gpus(monkeypatch, 2)
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"devices=4: .* 2"):
        join_processes(load_recipe("demo", "finetune", ["devices=4"]))


def see_gpus(monkeypatch, number: int) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ})  # what is joined here ends with the test
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)  # left by a run before
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


def test_an_error_in_several_processes_is_said_once(tiny, tmp_path, capfd):
    line = ["finetune", "demo", *tiny, "devices=2", "network.name=Res16UNet34X"]
    assert main([*line, "--out", str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err
    assert said.count("Res16UNet34X") == 1 and said.startswith("lground: ")
    assert not (tmp_path / "run").exists()


def test_a_path_that_the_system_refuses_is_one_line_of_several_processes(tiny, tmp_path, capfd):
    line = ["finetune", "demo", *tiny, f"data.root={300 * 'x'}", "devices=2", "--out", str(tmp_path / "run")]
    assert main(line) == 2
    said = capfd.readouterr().err
    assert said.startswith("lground: xxx") and "File name too long" in said and len(said.splitlines()) == 1


def test_a_port_that_is_in_use_is_one_line(tiny, tmp_path):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
        launched["MASTER_PORT"] = str(other.getsockname()[1])
        ran = subprocess.run(
            [*COMMAND, "finetune", "demo", *tiny, "devices=2", "--out", str(tmp_path / "run")],
            env={**os.environ, **launched},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ran.returncode == 2 and "Traceback" not in ran.stderr, ran.stderr
    assert f"MASTER_PORT={launched['MASTER_PORT']}: " in ran.stderr.splitlines()[-1]


def slurm_tasks(line: list[str], number: int = 2, **options) -> list[subprocess.Popen]:
    """As srun starts them, on two nodes that are this one."""
    slurm = {"SLURM_NTASKS": str(number), "SLURM_NODELIST": "localhost,other", "SLURM_LOCALID": "0"}
    slurm |= {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [*COMMAND, *line],
            env={**os.environ, **slurm, "SLURM_PROCID": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        for rank in range(number)
    ]


def ended(tasks: list[subprocess.Popen]) -> tuple[list[int], str]:
    """The exit codes of processes and what they said."""
    try:
        said = [task.communicate(timeout=60)[1] for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    return [task.returncode for task in tasks], "".join(said)


def test_slurm_tasks_train_together_and_save_when_terminated(tiny, tmp_path):
    """All are terminated, as a requeue does."""
    line = [
        "finetune",
        "demo",
        *tiny,
        "data.voxel_size=0.1",
        "data.batch_size=1",
        "num_nodes=2",
        "epochs=300",
    ]
    out = tmp_path / "run"
    tasks = slurm_tasks([*line, "--out", str(out)])
    while not (out / "log.csv").exists() and tasks[0].poll() is None:
        time.sleep(0.05)
    for task in tasks:
        task.send_signal(signal.SIGTERM)
    codes, said = ended(tasks)
    assert codes == [143, 143] and said.count("terminated, saved") == 1, said
    assert (out / "last.ckpt").exists()


def test_an_error_that_all_slurm_tasks_have_is_said_once(tiny, tmp_path):
    line = ["finetune", "demo", *tiny, "devices=3", "network.nmae=x", "--out", str(tmp_path / "run")]
    codes, said = ended(slurm_tasks(line, 3))
    assert codes == [2, 2, 2] and len(said.splitlines()) == 1 and "network.nmae" in said, said


def test_an_error_that_all_processes_of_torchrun_have_is_said_once(tiny, tmp_path):
    """By one of them, before torchrun, which sees another one end, ends it."""
    line = ["finetune", "demo", *tiny, "devices=2", "network.nmae=x", "--out", str(tmp_path / "run")]
    _, said = ended([subprocess.Popen([*TORCHRUN, *line], stderr=subprocess.PIPE, text=True)])
    assert said.count("lground: ") == 1 and "network.nmae" in said, said


def test_what_the_main_process_cannot_write_ends_all_slurm_tasks(tiny, tmp_path):
    """Weights fit into 40 MB, a checkpoint does not; the others would wait for it in the next update."""
    line = [
        "finetune",
        "demo",
        *tiny,
        "data.batch_size=1",
        "devices=2",
        "epochs=2",
        "--out",
        str(tmp_path / "run"),
    ]
    limit = 40 << 20
    full = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))}
    codes, said = ended(slurm_tasks(line, **full))
    assert codes == [2, 2] and "Traceback" not in said, said
    assert said.count("lground: ") == 1 and "last.ckpt: cannot be written" in said


def test_a_scene_that_one_slurm_task_cannot_load_ends_all(tiny, store, tmp_path):
    root = shutil.copytree(store, tmp_path / "store")
    damaged = root / "train" / "scene0004_00"
    np.save(damaged / "coord.npy", np.load(damaged / "coord.npy") * np.float32("nan"))
    line = ["finetune", "demo", *tiny, f"data.root={root}", "data.batch_size=1", "devices=2"]
    codes, said = ended(slurm_tasks([*line, "--out", str(tmp_path / "run")]))
    assert codes == [2, 2] and "Traceback" not in said, said
    assert said.count("lground: ") == 1 and f"{damaged}: " in said


def stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def test_processes_that_were_ended_in_every_way_give_the_weights_of_the_whole_run(
    tiny, tmp_path, monkeypatch
):
    """Terminated as training starts, ours and those of torchrun; then killed after the first epoch."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    line = ["finetune", "demo", *tiny, "data.batch_size=1", "data.workers=0", "devices=2", "epochs=2"]
    out = tmp_path / "run"
    for command, number, once, code in (
        (COMMAND, signal.SIGTERM, out / "recipe.yaml", 143),
        (TORCHRUN, signal.SIGTERM, out / "recipe.yaml", 1),  # torchrun's own for any signal
        (COMMAND, signal.SIGKILL, out / "last.ckpt", -signal.SIGKILL),
    ):
        before = stamp(once)
        run = subprocess.Popen(
            [*command, *line, "--resume", "--out", str(out)], stderr=subprocess.PIPE, text=True
        )
        while stamp(once) == before and run.poll() is None:
            time.sleep(0.02)
        run.send_signal(number)
        codes, said = ended([run])
        assert codes == [code], said
        assert (number == signal.SIGTERM) == ("terminated, saved after update" in said)
    assert len((out / "log.csv").read_text().splitlines()) == 2  # a header and an epoch
    assert main([*line, "--resume", "--out", str(out)]) == 0
    assert main([*line, "--out", str(tmp_path / "whole")]) == 0
    whole, parts = (load_file(folder / "last.safetensors") for folder in (tmp_path / "whole", out))
    assert all((whole[name] == parts[name]).all() for name in whole)


def test_a_process_terminated_as_it_starts_is_not_waited_for(tiny, tmp_path):
    """Before it listens to the signal, and alone: the other one waits to meet it."""
    line = ["finetune", "demo", *tiny, "devices=2", "epochs=1000", "--out", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen([*COMMAND, *line], env=environment, stderr=subprocess.PIPE, text=True)
    started = []
    while not started and run.poll() is None:
        time.sleep(0.02)
        started = children(run.pid, "lground.training.worker")
    os.kill(started[-1], signal.SIGTERM)
    try:
        said = run.communicate(timeout=60)[1]
    finally:
        run.kill()
    assert run.returncode == 143 and "terminated, saved after update" in said, said


def test_a_loading_process_that_is_killed_is_one_line(tiny, tmp_path):
    """Wherever training is at that moment: torch raises it in the middle of whatever runs."""
    line = ["finetune", "demo", *tiny, "data.voxel_size=0.1", "data.workers=1", "epochs=1000"]
    out, environment = tmp_path / "run", {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [*COMMAND, *line, "--out", str(out)], env=environment, stderr=subprocess.PIPE, text=True
    )
    while not (out / "log.csv").exists() and run.poll() is None:
        time.sleep(0.05)
    loading = children(run.pid, "data.workers=1")
    for child in loading:
        os.kill(child, signal.SIGKILL)
    said = run.communicate(timeout=60)[1]
    assert loading and run.returncode == 2 and "Traceback" not in said, said
    assert "a process that loads scenes was ended" in said.splitlines()[-1]
