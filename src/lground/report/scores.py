"""Scores as files: JSON for programs, CSV for spreadsheets, a bar chart for people."""

import csv
from pathlib import Path

import numpy as np

from lground.files import atomic_file, write_json
from lground.labels import LabelSet
from lground.metrics import semantic_scores
from lground.report.charts import class_bars
from lground.training.score import Confusion, summarize


def write_scores(out: Path, confusion: Confusion, label_set: LabelSet) -> None:
    """Write `metrics.json` (per vertex and per voxel), `classes.csv` and `classes.png` (per vertex) to `out`."""
    summary = summarize(confusion, label_set)
    write_json(out / "metrics.json", summary)
    with atomic_file(out / "classes.csv") as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "points", "iou", "accuracy"])
        writer.writeheader()
        writer.writerows(summary["vertex"]["classes"])
    scores = semantic_scores(confusion.vertex, label_set)
    # As in the means, a class that is only predicted does not count as present.
    iou = np.where(scores.present, scores.iou, np.nan)
    class_bars(out / "classes.png", label_set.names, iou, label_set.splits, label_set.colors)
