"""One run, in a process of its own: train, evaluate, save the result, throw the weights away."""

import contextlib
import csv
import ctypes
import hashlib
import json
import os
import resource
import shutil
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path

import torch
from methods import recipe_of

from lground.files import write_json
from lground.predict import choose_device, evaluate, load_model
from lground.progress import say
from lground.scannet import list_scenes
from lground.training import train
from lground.training.recipe import Recipe


def work(file: Path) -> None:
    """Do the job written in `file`; the result is written to the place that it names."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(file.read_text())
    if torch.cuda.is_available():
        wait_asleep()
    settings, folder = job["settings"], Path(job["folder"])
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    start = time.monotonic()
    recipe = recipe_of(job, settings)
    train_once(recipe, folder, Path(settings["work"]) / "pretrained")
    trained = time.monotonic()
    scores, worded = evaluations(folder, settings)
    seconds = {"train": round(trained - start, 1), "evaluate": round(time.monotonic() - trained, 1)}
    result = {key: job[key] for key in ("method", "annotation", "seed")} | {
        "identity": settings["identity"],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "at_once": settings["at_once"],
        "seconds": seconds,
        "cpu_seconds": {
            who: round(sum(resource.getrusage(number)[:2]), 1)
            for who, number in (("this process", resource.RUSAGE_SELF), ("loading", resource.RUSAGE_CHILDREN))
        },
        "updates": {
            stage.stage: stage.epochs * -(-len(training_scenes(stage)) // stage.data.batch_size)
            for stage in (recipe.before, recipe)
            if stage is not None
        },
        "scores": {name: found["means"] for name, found in scores.items()},
        "classes": scores["plain"]["classes"],
        "worded": worded,
        "pretrained": pretrained(folder),
        "log": log(folder / "log.csv"),
        "recipe": asdict(recipe),
    }
    write_json(job["result"], result)
    shutil.rmtree(folder)


def train_once(recipe: Recipe, folder: Path, shelf: Path) -> None:
    """Train into `folder`; a pretraining that another run did by the same recipe is on the `shelf`, or goes there."""
    if recipe.before is None:
        train(recipe, folder)
        return
    before = asdict(recipe.before)
    del before["data"]["workers"]  # changes nothing in the result
    kept = shelf / hashlib.sha256(json.dumps(before).encode()).hexdigest()[:16]
    if kept.exists():
        _link(kept, folder / "before")
    train(recipe, folder)
    if not kept.exists():
        _link(folder / "before", part := shelf / f".{folder.name}")
        with contextlib.suppress(OSError):  # another run was faster
            part.rename(kept)


def _link(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link)


def wait_asleep() -> None:
    """Let this process sleep while it waits for the GPU: runs side by side need the cores that it would spin on."""
    driver = ctypes.CDLL("libcuda.so.1")
    blocking = 4  # CU_CTX_SCHED_BLOCKING_SYNC
    if driver.cuInit(0) or driver.cuDevicePrimaryCtxSetFlags_v2(0, blocking):
        say("waits for the GPU will spin: its driver did not take the flag to sleep")


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the other end closes, however that happens
    os.kill(os.getpid(), signal.SIGKILL)


def evaluations(folder: Path, settings: dict) -> tuple[dict[str, dict], dict | None]:
    """Scores per vertex on the validation rooms, of the same weights in several ways.

    Also the means of what their features say without the classifier, by cosine to the names of the classes: None
    where fine-tuning has left the texts.
    """
    ways = {"plain": {}, "superpoints": {"superpoints": True}}
    if settings["views"] > 1:
        ways["views"] = {"views": settings["views"]}
        ways["views, superpoints"] = ways["views"] | ways["superpoints"]
    model, device = load_model(folder), choose_device()

    def scores(**votes) -> dict:
        evaluation = evaluate(model, settings["data"], "val", device, settings["workers"], **votes)
        return evaluation.metrics()["vertex"]

    found = {name: scores(**votes) for name, votes in ways.items()}
    model.network.final = None
    return found, None if model.anchors is None else scores()["means"]


def pretrained(folder: Path) -> dict | None:
    """Scores per vertex of the pretraining, by cosine to the anchors; its log."""
    before = folder / "before"
    if not before.exists():
        return None
    means = json.loads((before / "metrics.json").read_text())["vertex"]["means"]
    return {"means": means, "log": log(before / "log.csv")}


def training_scenes(recipe: Recipe) -> list[Path]:
    """All, or those of a limited annotation that shows some."""
    limit = recipe.data.annotation or ""
    return list_scenes(recipe.data.root, "train", subset=limit if limit.startswith("scenes-") else None)


def log(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
