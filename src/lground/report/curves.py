"""The course of runs, side by side."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from lground.errors import InputError
from lground.report.panels import DPI, save

CURVES = {
    "loss": "loss",
    "lr": "learning rate",
    "val_miou": "val mIoU",
    "val_miou_head": "val mIoU, head",
    "val_miou_common": "val mIoU, common",
    "val_miou_tail": "val mIoU, tail",
}
IN_PERCENT = "val_miou"
SIZE = (420, 300)  # pixels of one plot


def draw_curves(path: str | os.PathLike, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Write a PNG of loss, learning rate and validation mIoU over the epochs.

    runs: name -> rows of its `log.csv`. What no run has is left out; what is measured now and then is joined by
    lines. Raises InputError where there is none of it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [key for key in CURVES if any(key in row for rows in runs.values() for row in rows)]
    if not shown:
        raise InputError(
            f"{', '.join(runs)}: nothing to draw (no column of log.csv is one of {', '.join(CURVES)}); give the --out "
            "of a training"
        )
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    width, height = columns * SIZE[0], lines * SIZE[1] + 22 * len(runs) + 16
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    for k, key in enumerate(shown):
        line, column = divmod(k, columns)
        box = (column * SIZE[0] + 56, height - (line + 1) * SIZE[1] + 40, SIZE[0] - 76, SIZE[1] - 74)
        axes = figure.add_axes(np.array(box) / [width, height, width, height])
        for number, rows in enumerate(runs.values()):
            _curve(axes, key, rows, f"C{number % 10}")
        axes.set_title(CURVES[key] + (" (%)" if key.startswith(IN_PERCENT) else ""), fontsize=11)
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for number, name in enumerate(runs):
        y = (22 * (len(runs) - number - 0.5) + 8) / height
        figure.text(20 / width, y, "\u25a0", color=f"C{number % 10}", fontsize=14, va="center")
        figure.text(42 / width, y, name, fontsize=10, va="center", color="0.15")
    save(figure, FigureCanvasAgg, path)


def _curve(axes, key: str, rows: Sequence[Mapping[str, float]], color: str) -> None:
    points = np.array([(row["epoch"], row[key]) for row in rows if key in row], dtype=float).reshape(-1, 2)
    scale = 100 if key.startswith(IN_PERCENT) else 1
    axes.plot(*(points * [1, scale]).T, color=color, linewidth=1.3, marker="." if len(points) < 60 else None)
