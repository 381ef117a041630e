"""The processes of a run: those that a launcher started, or those that a recipe asks for and we start.

A launcher is torchrun, `accelerate launch` or SLURM's srun. Without one, a recipe with `devices` above 1 starts
that many processes of this machine, which run `lground.training.worker`. Processes without GPUs talk through gloo.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from lground.errors import InputError
from lground.training.recipe import Recipe
from lground.training.stopping import StopSignal, Terminated

FIRST_PORT = 20_000  # of those that SLURM jobs meet at: one for each job number


def join_processes(recipe: Recipe) -> bool:
    """Take what a launcher says, so that the engine finds it; returns whether there is one, or none is needed.

    False: `start_processes` has to start them. Raises InputError when launcher, machine and recipe disagree.
    """
    wanted = recipe.devices * recipe.num_nodes
    if recipe.devices < 1 or recipe.num_nodes < 1:
        raise InputError(
            f"devices={recipe.devices}, num_nodes={recipe.num_nodes}: at least 1 of each is needed"
        )
    gpus = torch.cuda.device_count() if _on_gpus() else 0
    if not gpus:
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    take_from_slurm()
    if "WORLD_SIZE" in os.environ:
        started = int(os.environ["WORLD_SIZE"])
        if started != wanted:
            raise InputError(
                f"{started} processes were started, but the recipe says devices={recipe.devices} on "
                f"num_nodes={recipe.num_nodes}: say there how many there are, for example devices={started}"
            )
        if gpus and int(os.environ.get("LOCAL_RANK", 0)) >= gpus:
            raise InputError(
                f"devices={recipe.devices}: a process sees {gpus} GPUs; start one process for each"
            )
        return True
    if recipe.num_nodes > 1:
        raise InputError(
            f"num_nodes={recipe.num_nodes}: start the same command on every node with srun or torchrun"
        )
    if gpus and recipe.devices > gpus:
        raise InputError(f"devices={recipe.devices}: this machine has {gpus} GPUs")
    return wanted == 1


def _on_gpus() -> bool:
    return torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "false").lower() != "true"


def take_from_slurm() -> None:
    """Say in torch's words what srun says in its own. (The batch script itself is no step of srun's.)"""
    slurm = {name: os.environ.get(f"SLURM_{name}") for name in ("PROCID", "NTASKS", "LOCALID")}
    outside = "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" not in os.environ
    if "WORLD_SIZE" in os.environ or outside or None in slurm.values():
        return
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", slurm["NTASKS"])
    if int(tasks) < 2:
        return
    nodes = (os.environ.get(f"SLURM_{name}") for name in ("STEP_NODELIST", "JOB_NODELIST", "NODELIST"))
    host = first_host(next(filter(None, nodes), "localhost"))
    port = FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", 0)) % 10_000
    own = torch.cuda.device_count() == 1  # as --gpus-per-task=1 binds them: each task sees its own GPU alone
    local = "0" if own else slurm["LOCALID"]
    os.environ.update(RANK=slurm["PROCID"], WORLD_SIZE=tasks, LOCAL_RANK=local)
    os.environ.setdefault("MASTER_ADDR", host)
    os.environ.setdefault("MASTER_PORT", str(port))


def first_host(nodes: str) -> str:
    """The first host of SLURM's compact list: "gpu[003-007,9],login" -> "gpu003"."""
    before, number, after = re.match(r"([^,\[]*)(?:\[(\d+)[^\]]*\])?([^,\[]*)", nodes).groups()
    return before + (number or "") + after


def start_processes(recipe: Recipe, out: Path, *, resume: bool) -> None:
    """Start `recipe.devices` processes of this machine, wait for all, and speak for them.

    SIGTERM is passed on. Raises InputError with the words of the first that fails, `Terminated` when they were
    terminated, and SystemExit with the code of one that ended in another way; the others are ended with it.
    """
    with tempfile.TemporaryDirectory(prefix="lground-run-") as folder, StopSignal() as stop:
        (Path(folder) / "recipe.yaml").write_text(recipe.to_yaml())
        command = [sys.executable, "-m", "lground.training.worker", recipe.stage, folder, str(out)]
        environment = {
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // recipe.devices)),
            **os.environ,
            "WORLD_SIZE": str(recipe.devices),
            "LOCAL_WORLD_SIZE": str(recipe.devices),
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(_free_port()),
        }
        # They inherit that SIGTERM is held back, until they listen: one that it ended before would be waited for.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        processes = [
            subprocess.Popen(
                command + ["--resume"] * resume,
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,  # closes when this process ends, however that happens
            )
            for rank in range(recipe.devices)
        ]
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            _wait(processes, Path(folder), stop)
        finally:
            for process in processes:
                process.kill()
                process.wait()
                process.stdin.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _wait(processes: list[subprocess.Popen], folder: Path, stop: StopSignal) -> None:
    passed_on = False
    while True:
        codes = [process.poll() for process in processes]
        errors = sorted(folder.glob("error-*.txt"))
        if errors:
            raise InputError(errors[0].read_text())
        if stop.asked and not passed_on:
            passed_on = True
            for process in processes:
                process.terminate()
        ended = {rank: code for rank, code in enumerate(codes) if code}
        for rank, code in ended.items():
            if code not in (Terminated().code, -signal.SIGTERM):
                _fail(rank, code)
        if None not in codes:
            if ended:
                raise Terminated
            return
        time.sleep(0.05)


def _fail(rank: int, code: int) -> None:
    if code < 0:
        raise InputError(
            f"training process {rank} was ended by signal {-code} (9: most often memory ran out); "
            "--resume goes on from what was saved last"
        )
    raise SystemExit(code)
