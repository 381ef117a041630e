"""Scores as files: JSON for programs, CSV for spreadsheets, a bar chart for people."""

import csv
from pathlib import Path

import numpy as np

from lground.files import atomic_file, write_json
from lground.metrics import semantic_scores
from lground.report.charts import class_bars
from lground.training.score import Evaluation, ObjectEvaluation


def write_scores(out: Path, evaluation: Evaluation) -> None:
    """Write `metrics.json` (per vertex and per voxel), `classes.csv` and `classes.png` (per vertex) to `out`.

    Of objects also `objects.csv` (average precision and panoptic quality) and `objects.png` (AP50).
    """
    summary = evaluation.metrics()
    write_json(out / "metrics.json", summary)
    _write_table(out / "classes.csv", summary["vertex"]["classes"])
    label_set = evaluation.label_set
    scores = semantic_scores(evaluation.confusion.vertex, label_set)
    # As in the means, a class that is only predicted does not count as present.
    iou = np.where(scores.present, scores.iou, np.nan)
    class_bars(out / "classes.png", label_set.names, iou, label_set.splits, label_set.colors)
    if isinstance(evaluation, ObjectEvaluation):
        _write_objects(out, summary, evaluation)
    else:  # those there are of an evaluation before this one
        for name in ("objects.csv", "objects.png"):
            (out / name).unlink(missing_ok=True)


def _write_table(path: Path, rows: list[dict]) -> None:
    with atomic_file(path) as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_objects(out: Path, summary: dict, evaluation: ObjectEvaluation) -> None:
    """Classes without objects, such as wall, have panoptic quality alone."""
    precision = {row["name"]: row for row in summary["objects"]["classes"]}
    nothing = dict.fromkeys(("objects", "ap", "ap50", "ap25"))
    rows = [
        {"name": row["name"]} | nothing | precision.get(row["name"], {}) | row
        for row in summary["panoptic"]["classes"]
    ]
    _write_table(out / "objects.csv", rows)
    labels = evaluation.label_set
    chosen = np.flatnonzero(labels.instance_class)
    splits = {
        name: np.searchsorted(chosen, np.intersect1d(index, chosen)) for name, index in labels.splits.items()
    }
    names, colors = [labels.names[k] for k in chosen], labels.colors[chosen]
    ap50 = evaluation.objects.scores().ap50
    class_bars(out / "objects.png", names, ap50, splits, colors, title="AP50 per class")
