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
    "val_ap": "val AP",
    "val_ap50": "val AP50",
}
IN_PERCENT = "val_"
LINES = ("-", "--", ":", "-.")  # of ten runs each, as there are ten colours
SIZE = (420, 300)  # pixels of one plot


def draw_curves(path: str | os.PathLike, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Write a PNG of loss, learning rate and validation mIoU (AP and AP50 of objects) over the epochs.

    runs: name -> rows of its `log.csv`. What no run has is left out; what is measured now and then is joined by
    lines. Raises InputError where there is none of it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    shown = [key for key in CURVES if any(key in row for rows in runs.values() for row in rows)]
    if not shown:
        raise InputError(
            f"{', '.join(runs)}: nothing to draw (no column of log.csv is one of {', '.join(CURVES)}); give the --out "
            "of a training"
        )
    looks = [{"color": f"C{n % 10}", "linestyle": LINES[n // 10 % len(LINES)]} for n in range(len(runs))]
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    width, height = columns * SIZE[0], lines * SIZE[1] + 22 * len(runs) + 16
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    for k, key in enumerate(shown):
        line, column = divmod(k, columns)
        box = (column * SIZE[0] + 56, height - (line + 1) * SIZE[1] + 40, SIZE[0] - 76, SIZE[1] - 74)
        axes = figure.add_axes(np.array(box) / [width, height, width, height])
        for rows, look in zip(runs.values(), looks, strict=True):
            _curve(axes, key, rows, look)
        axes.set_title(CURVES[key] + (" (%)" if key.startswith(IN_PERCENT) else ""), fontsize=11)
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for number, (name, look) in enumerate(zip(runs, looks, strict=True)):
        y = (22 * (len(runs) - number - 0.5) + 8) / height
        figure.add_artist(Line2D([16 / width, 46 / width], [y, y], linewidth=2.5, **look))
        figure.text(54 / width, y, name, fontsize=10, va="center", color="0.15")
    save(figure, FigureCanvasAgg, path)


def _curve(axes, key: str, rows: Sequence[Mapping[str, float]], look: dict[str, str]) -> None:
    points = np.array([(row["epoch"], row[key]) for row in rows if key in row], dtype=float).reshape(-1, 2)
    scale = 100 if key.startswith(IN_PERCENT) else 1
    axes.plot(*(points * [1, scale]).T, linewidth=1.3, marker="." if len(points) < 60 else None, **look)
