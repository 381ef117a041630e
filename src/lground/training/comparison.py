"""Runs beside one another: what they reached, and in what their recipes differ."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lground.errors import InputError
from lground.training.run import read_log, read_metrics, read_recipe

SPLITS = ("all", "head", "common", "tail")


@dataclass(frozen=True)
class FinishedRun:
    """What is read of a run folder.

    name: as it was given. recipe: its keys, dotted. rows: of `log.csv`. best_epoch: None before the first
    validation. scores: at the best epoch, 0..1: mean IoU per vertex by split, and of objects AP and AP50; None where it
    is unknown.
    """

    name: str
    recipe: dict[str, Any]
    rows: list[dict[str, Any]]
    best_epoch: int | None
    scores: dict[str, float | None]


def read_run(folder: Path) -> FinishedRun:
    """Read a run folder, finished or not; raises InputError when it is none."""
    if not (folder / "recipe.yaml").exists():
        raise InputError(f"{folder}: no run folder (it holds no recipe.yaml); give the --out of a training")
    rows = read_log(folder)
    if not rows:
        raise InputError(f"{folder}: the run has not finished an epoch yet (no log.csv)")
    metrics = read_metrics(folder) if (folder / "metrics.json").exists() else {}
    means = metrics.get("vertex", {}).get("means", {})
    objects = metrics.get("objects", {}).get("means", {}).get("all", {})
    return FinishedRun(
        name=str(folder),
        recipe=read_recipe((folder / "recipe.yaml").read_bytes(), folder / "recipe.yaml"),
        rows=rows,
        best_epoch=metrics.get("epoch"),
        scores={split: means.get(split, {}).get("mean_iou") for split in SPLITS}
        | {"AP": objects.get("ap"), "AP50": objects.get("ap50")},
    )


def differences(runs: list[FinishedRun]) -> dict[str, list[Any]]:
    """The recipe keys in which runs differ -> the value of each; None where a recipe has no such key.

    The pretraining before a run is spelled out only where all have one.
    """
    recipes = [run.recipe for run in runs]
    if not all("before.stage" in recipe for recipe in recipes):
        recipes = [_without_before(recipe) for recipe in recipes]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    values = {key: [recipe.get(key) for recipe in recipes] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def _without_before(recipe: dict[str, Any]) -> dict[str, Any]:
    short = {key: value for key, value in recipe.items() if not key.startswith("before.")}
    if "before.stage" in recipe:
        short["before"] = f"{recipe['before.network.name']}, {recipe['before.loss.name']}"
    return short


def table(runs: list[FinishedRun]) -> str:
    """One line per run: mean IoU (%) per vertex over the classes present, best epoch, epochs done.

    AP and AP50 (%) of objects, too, where a run has learned them.
    """
    width = max(len(run.name) for run in runs)
    columns = [*SPLITS, *(c for c in ("AP", "AP50") if any(run.scores[c] is not None for run in runs))]
    lines = [f"{'mIoU (%)':<{width}}" + "".join(f"{column:>8}" for column in columns) + "   best epoch"]
    for run in runs:
        cells = "".join(_percent(run.scores[column]) for column in columns)
        lines.append(f"{run.name:<{width}}{cells}   {run.best_epoch or '-'} of {run.rows[-1]['epoch']}")
    return "\n".join(lines)


def difference_table(runs: list[FinishedRun]) -> str:
    """One line per differing recipe key, one column per run."""
    rows = {
        key: ["-" if value is None else str(value) for value in values]
        for key, values in differences(runs).items()
    }
    if not rows:
        return "the recipes are the same"
    heads = [run.name for run in runs]
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows.values(), strict=True)]
    first = max(map(len, rows))
    return "\n".join(
        f"{key:<{first}}  " + "  ".join(f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)).rstrip()
        for key, cells in {"differ in": heads, **rows}.items()
    )


def _percent(value: float | None) -> str:
    return f"{'-' if value is None else format(100 * value, '.2f'):>8}"
