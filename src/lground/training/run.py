"""The run folder: recipe, log, checkpoints."""

import csv
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor

from lground.errors import InputError, input_error
from lground.files import atomic_file, write_json
from lground.models import Model, save_model
from lground.progress import say
from lground.training.logs import Log, open_logs
from lground.training.recipe import Recipe, flatten

STATE = "last.ckpt"
SIGNS = (STATE, "best.safetensors", "log.csv")  # of a run; the first may be the last to come
FREE = (  # a resumed run may change them: how long it is, where its files lie, how it loads and is watched
    "epochs", "checkpoint_every", "images_every", "wandb", "data.workers", "data.cache", "data.root", "text.anchors",
)  # fmt: skip
MEND = "mend it, or remove it"
ERRORS = (
    OSError,
    RuntimeError,
    SafetensorError,
)  # of what cannot be written; torch and safetensors have their own


class State(TypedDict):
    """What `last.ckpt` holds: all that a run needs to go on, but its scenes and the file of its anchors."""

    recipe: str  # YAML
    scenes: list[str]  # of training, in order
    anchors: str | None  # SHA-256 of the file text.anchors
    pretrained: tuple[dict[str, str], Tensor | None] | None  # what it started from, described; its anchors
    epoch: int  # finished ones
    step: int  # updates done in the present one
    sums: dict[str, float]  # over the present epoch
    best: list[float] | None
    stage: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    scaler: dict[str, Any]


class Run:
    """Writes `recipe.yaml`, `log.csv`, other logs, `last.ckpt`, weights and `metrics.json` into one folder.

    Only the main process may write. Every file is whole or absent: a run killed at any moment can be resumed.
    A file that cannot be written (a full disk) is an InputError that names it.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.path, self.recipe = folder, recipe
        self.rows: list[dict[str, Any]] = []
        self._logs: list[Log] = []

    def start(self, weight_table: list[dict] | None) -> None:
        """Create the folder, once everything that the recipe names is known to be there."""
        for part in self.path.glob("**/.*.part.*"):  # of a run that was killed while it wrote
            part.unlink(missing_ok=True)
        with self._writing("recipe.yaml") as part:
            part.write_text(self.recipe.to_yaml())
        if weight_table:
            self._write_table("class_weights.csv", weight_table)
        self._logs = open_logs(self.path, self.recipe)

    def load(self) -> State | None:
        """The state to resume from, or None when the run never saved one."""
        path = self.path / STATE
        if not path.exists():
            say(f"{self.path}: nothing saved yet, starting from the beginning")
            return None
        state = _read_state(path)
        if not state.keys() >= State.__required_keys__:
            raise InputError(f"{path}: of another version of lground; start again in another folder")
        _check_same(path, read_recipe(state["recipe"], path), self.recipe, started=True)
        self.rows = [row for row in read_log(self.path) if row["epoch"] <= state["epoch"]]
        return state

    def save(self, state: State) -> None:
        with self._writing(STATE) as part:
            torch.save(state, part)

    def save_model(self, model: Model, name: str) -> None:
        with self._writing(f"{name}.safetensors") as part:
            save_model(model, part)

    def log(self, row: dict[str, Any]) -> None:
        """Append one epoch to `log.csv` (rewritten whole: a row is complete or not there) and the other logs."""
        self.rows.append(row)
        self._write_table("log.csv", self.rows)
        with self._explained("the logs"):
            for log in self._logs:
                log.write(row)

    def add_picture(self, epoch: int, draw: Callable[[Path], None]) -> None:
        """Let `draw` write a PNG to the path that it is given, and show it in the logs."""
        path = self.path / "images" / f"epoch-{epoch:04}.png"
        with self._explained(f"images/{path.name}", (OSError,)):
            draw(path)
        with self._explained("the logs"):
            for log in self._logs:
                log.show(path, epoch)

    def finish(self) -> None:
        for log in self._logs:
            log.close()

    def write_metrics(self, metrics: dict) -> None:
        with self._explained("metrics.json"):
            write_json(self.path / "metrics.json", metrics)

    def _write_table(self, name: str, rows: list[dict[str, Any]]) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with self._writing(name) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    @contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        with self._explained(name), atomic_file(self.path / name) as part:
            yield part

    @contextmanager
    def _explained(self, name: str, errors: tuple[type[Exception], ...] = ERRORS) -> Iterator[None]:
        try:
            yield
        except errors as error:
            if not isinstance(error, OSError) and (told := input_error(error)):  # raised here by chance
                raise told from None
            raise InputError(
                f"{self.path / name}: cannot be written ({_reason(error, self.path)}); what was saved before "
                "is whole: make room and go on with --resume"
            ) from error


def _reason(error: Exception, folder: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if shutil.disk_usage(folder).free < 1 << 20:
        return "No space left on device"
    return str(error).splitlines()[0]


def check_run(folder: Path, recipe: Recipe, *, resume: bool) -> None:
    """Raise InputError where another run would be overwritten, or another recipe resumed."""
    if recipe.data.root and folder.resolve() == Path(recipe.data.root).resolve():
        raise InputError(f"{folder}: holds the scenes; give another folder for the run")
    saved = folder / "recipe.yaml"
    if not resume and any((folder / name).exists() for name in SIGNS):
        raise InputError(f"{folder}: holds a run already; give another folder, or --resume to go on with it")
    if resume and saved.exists():
        _check_same(saved, read_recipe(saved.read_bytes(), saved), recipe, started=has_state(folder))


def has_state(folder: Path) -> bool:
    """Whether the run in `folder` has saved where it stands."""
    return (folder / STATE).exists()


def epochs_done(folder: Path) -> int:
    """Finished epochs of the run in `folder`; 0 when there is none."""
    return _read_state(folder / STATE)["epoch"] if has_state(folder) else 0


def has_weights(folder: Path, epoch: int) -> bool:
    """Whether the run in `folder` keeps its best weights of the epochs until `epoch`, not of a later one."""
    kept = all((folder / name).exists() for name in ("best.safetensors", "metrics.json"))
    return kept and read_metrics(folder).get("epoch", 0) <= epoch


def read_metrics(folder: Path) -> dict:
    path = folder / "metrics.json"
    try:
        metrics = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); {MEND}") from None
    if not isinstance(metrics, dict):
        raise InputError(f"{path}: damaged (no table); {MEND}")
    return metrics


def read_recipe(text: str | bytes, source: Path) -> dict[str, Any]:
    """The keys of a saved recipe, dotted."""
    try:
        keys = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{source}: no recipe ({str(error).splitlines()[0]}); {MEND}") from None
    if not isinstance(keys, dict):
        raise InputError(f"{source}: no recipe (it holds no keys); {MEND}")
    return dict(flatten(keys))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of `log.csv`, without what was not measured in an epoch; none without the file."""
    path = folder / "log.csv"
    if not path.exists():
        return []
    try:
        with open(path, newline="") as file:
            rows = [{k: _number(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file)]
    except (ValueError, AttributeError, csv.Error) as error:
        raise InputError(f"{path}: damaged ({error}); {MEND}") from None
    if not all("epoch" in row for row in rows):
        raise InputError(f"{path}: damaged (rows without an epoch); {MEND}")
    return rows


def _read_state(path: Path) -> dict:
    again = "start again in another folder"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: damaged ({(str(error) or 'empty').splitlines()[0]}); {again}") from None
    if not isinstance(state, dict) or "epoch" not in state:
        raise InputError(f"{path}: no checkpoint of a training; {again}")
    return state


def _check_same(source: Path, old: dict[str, Any], recipe: Recipe, *, started: bool) -> None:
    """Raise InputError where `recipe` is of another run than the keys that `source` holds.

    What comes before a run that has `started` is as long as it was.
    """
    free = {*FREE, *(f"before.{key}" for key in FREE)} - ({"before.epochs"} if started else set())
    new = read_recipe(recipe.to_yaml(), source)
    changed = [key for key in old | new if old.get(key) != new.get(key) and key not in free]
    if changed:
        raise InputError(
            f"{source}: differs from the recipe given in {', '.join(changed[:4])}"
            f"{', ...' if changed[4:] else ''}; resume with the recipe the run started with"
        )


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
