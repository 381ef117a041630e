"""The per-class bar chart of an evaluation."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from lground.report.panels import DPI, save


def class_bars(
    path: str | os.PathLike,
    names: Sequence[str],
    scores: np.ndarray,
    splits: Mapping[str, np.ndarray],
    colors: np.ndarray,
    title: str = "IoU per class",
) -> None:
    """Write a PNG of a score per class, sorted within head, common and tail (or in columns without splits).

    scores: (C,) in 0..1; NaN for a class that does not occur ("absent"). splits: name -> class indices; {} for
    none. colors: (C, 3) uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scores = np.asarray(scores, dtype=np.float64)
    groups = _groups(scores, splits)
    rows = max(max(len(index) for _, index in groups), 3)
    width, height = 420 * len(groups) + 40, 17 * rows + (110 if splits else 86)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    figure.suptitle(f"{title}: {_mean(scores)}", fontsize=min(14, width / 42), y=1 - 22 / height)
    for k, (name, index) in enumerate(groups):
        box = ((k * 420 + 150) / width, 30 / height, 240 / width, 17 * rows / height)
        axes = figure.add_axes(box)
        _bars(axes, [names[c] for c in index], scores[index], np.asarray(colors)[index] / 255, rows)
        if name:
            axes.set_title(f"{name}: {_mean(scores[index])}", fontsize=11)
    save(figure, FigureCanvasAgg, path)


def _groups(scores: np.ndarray, splits: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Class indices by falling IoU, absent ones last: one group per split, or the whole cut into columns."""
    if splits:
        return [(name, _sorted(scores, np.asarray(index))) for name, index in splits.items() if len(index)]
    order = _sorted(scores, np.arange(len(scores)))
    columns = min(3, -(-len(order) // 25))
    return [("", part) for part in np.array_split(order, columns)]


def _sorted(scores: np.ndarray, index: np.ndarray) -> np.ndarray:
    return index[np.argsort(-np.nan_to_num(scores[index], nan=-1.0), kind="stable")]


def _mean(scores: np.ndarray) -> str:
    present = scores[~np.isnan(scores)]
    if not len(present):
        return "none of the classes occurs"
    return f"mean {100 * present.mean():.1f} % over {len(present)} classes present"


def _bars(axes, names: list[str], values: np.ndarray, colors: np.ndarray, rows: int) -> None:
    place = np.arange(len(names))
    absent = np.isnan(values)
    axes.barh(place, np.nan_to_num(values) * 100, color=colors, height=0.72, edgecolor="0.35", linewidth=0.4)
    for y, value, missing in zip(place, values, absent, strict=True):
        text = "absent" if missing else f"{100 * value:.1f}"
        axes.text(
            1 if missing else 100 * value + 1,
            y,
            text,
            va="center",
            fontsize=7,
            color="0.6" if missing else "0.2",
        )
    axes.set_yticks(place, [n if len(n) <= 24 else n[:23] + "\u2026" for n in names], fontsize=8)
    for label, missing in zip(axes.get_yticklabels(), absent, strict=True):
        label.set_color("0.6" if missing else "0.1")
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlim(0, 108)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
