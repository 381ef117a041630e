"""The run folder: recipe, log, checkpoints."""

import csv
import json
from pathlib import Path
from typing import Any

import torch

from lground.errors import InputError
from lground.files import atomic_file, write_json
from lground.progress import say
from lground.training.recipe import Recipe

STATE = "last.ckpt"


class Run:
    """Writes `recipe.yaml`, `log.csv`, TensorBoard events, `last.ckpt` and `metrics.json` into one folder.

    Only the main process writes. Every file is whole or absent: a run killed at any moment can be resumed.
    """

    def __init__(self, folder: Path, recipe: Recipe, *, resume: bool, main: bool) -> None:
        self.path, self.main = folder, main
        self.rows: list[dict[str, Any]] = []
        self._check(recipe, resume)

    def start(self, recipe: Recipe) -> None:
        """Create the folder, once everything that the recipe names is known to be there."""
        if self.main:
            with atomic_file(self.path / "recipe.yaml") as part:
                part.write_text(recipe.to_yaml())

    def _check(self, recipe: Recipe, resume: bool) -> None:
        saved = self.path / "recipe.yaml"
        if not resume and (self.path / STATE).exists():
            raise InputError(
                f"{self.path}: holds a run already; give another folder, or --resume to go on with it"
            )
        if resume and saved.exists() and _identity(saved.read_text()) != _identity(recipe.to_yaml()):
            raise InputError(
                f"{saved}: differs from the recipe given; resume with the recipe the run started with"
            )

    def load(self) -> dict | None:
        """The state to resume from, or None when the run never saved one."""
        path = self.path / STATE
        if not path.exists():
            say(f"{self.path}: nothing saved yet, starting from the beginning")
            return None
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.rows = _read_log(self.path / "log.csv", state["epoch"])
        return state

    def save(self, state: dict) -> None:
        with atomic_file(self.path / STATE) as part:
            torch.save(state, part)

    def log(self, row: dict[str, Any]) -> None:
        """Append one epoch to `log.csv` (rewritten whole: a row is complete or not there) and TensorBoard."""
        self.rows.append(row)
        columns = list(dict.fromkeys(key for r in self.rows for key in r))
        with atomic_file(self.path / "log.csv") as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        self._tensorboard(row)

    def _tensorboard(self, row: dict[str, Any]) -> None:
        if not hasattr(self, "_writer"):
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:  # the extra `logging` is not installed; log.csv holds the same numbers
                self._writer = None
            else:
                self._writer = SummaryWriter(str(self.path), purge_step=row["epoch"])
        if self._writer is not None:
            for key, value in row.items():
                if key != "epoch" and isinstance(value, int | float):
                    self._writer.add_scalar(key.replace("_", "/", 1), value, row["epoch"])
            self._writer.flush()

    def write_metrics(self, metrics: dict) -> None:
        write_json(self.path / "metrics.json", metrics)

    def read_metrics(self) -> dict:
        return json.loads((self.path / "metrics.json").read_text())


def _identity(recipe: str) -> str:
    """What two recipes must share to be the same run: all but how long it is and how it is loaded."""
    free = ("epochs:", "workers:", "cache:", "checkpoint_every:")
    return "\n".join(line for line in recipe.splitlines() if not line.strip().startswith(free))


def _read_log(path: Path, epochs: int) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = [{k: _number(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file)]
    return [row for row in rows if row["epoch"] <= epochs]


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
