"""Several pictures of one room side by side, with titles and a legend."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lground.files import atomic_file
from lground.report.camera import Camera
from lground.report.render import Drawing, draw
from lground.scans import Scan

Legend = list[tuple[str, tuple[int, int, int]]]
Named = tuple[
    np.ndarray, Sequence[str]
]  # the thing of each point (N,), -1 for none, and what things are called
DPI = 100
TITLE, LINE, ENTRY = 34, 22, 190  # pixels: a title's and a legend line's height, an entry's least width
MARGIN, MARK = 16, 22  # pixels: beside the legend and after an entry, and of the square before its name
CHARACTER = 6.5  # pixels, the width of one of a name
LEAST_SEEN = 60  # pixels of a thing that is named
UNPAINTED = 190  # grey, of a scan without colours


def label_legend(labels: np.ndarray, names: Sequence[str], colors: np.ndarray, limit: int = 24) -> Legend:
    """(name, colour) of the classes present in labels (N,), class indices or -1, most frequent first."""
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    present = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    entries = [(names[k], tuple(int(v) for v in colors[k])) for k in present[:limit]]
    rest = len(present) - limit
    return [*entries, (f"and {rest} more", (255, 255, 255))] if rest > 0 else entries


def plain_colors(scan: Scan) -> np.ndarray:
    """(N, 3) uint8: the scan's own colours, grey where it has none."""
    return np.full((len(scan), 3), UNPAINTED, np.uint8) if scan.colors is None else scan.colors


def panels(
    path: str | os.PathLike,
    pictures: Sequence[tuple[str, np.ndarray, np.ndarray]],
    legend: Legend | None = None,
    size: tuple[int, int] = (640, 480),
    columns: int | None = None,
    view: str = "corner",
    names: Sequence[Named | None] = (),
) -> None:
    """Write one PNG of panels (title, points (N, 3), colors (N, 3) uint8), seen by the first one's camera.

    size: (width, height) of each panel in pixels. columns: panels in a row (default: all up to three, else
    two). legend: what `label_legend` returns, drawn below. names: what things in the first panels are called; written
    on those that are seen, large ones first, where there is room.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = columns or (len(pictures) if len(pictures) <= 3 else 2)
    rows = -(-len(pictures) // columns)
    longest = max((len(name) for name, _ in legend or []), default=0)
    entry = max(ENTRY, int(MARK + CHARACTER * longest + MARGIN))
    per_line = max(1, (columns * size[0] - MARGIN) // entry)
    footer = LINE * -(-len(legend) // per_line) + 12 if legend else 0
    width, height = columns * size[0], rows * (size[1] + TITLE) + footer
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    for k, (title, drawing, picture) in enumerate(_paint_all(pictures, size, view)):
        row, column = divmod(k, columns)
        left, top = column * size[0], height - row * (size[1] + TITLE)
        axes = _panel(figure, picture, title, left, top)
        if k < len(names) and names[k] is not None:
            _write_names(axes, drawing, *names[k])
    for k, (name, color) in enumerate(legend or []):
        line, column = divmod(k, per_line)
        x, y = MARGIN + column * entry, footer - LINE * (line + 0.5)
        figure.text(x / width, y / height, "\u25a0", color=np.array(color) / 255, fontsize=15, va="center")
        figure.text((x + MARK) / width, y / height, name, fontsize=10, va="center", color="0.15")
    save(figure, FigureCanvasAgg, path)


def _paint_all(
    pictures: Sequence[tuple[str, np.ndarray, np.ndarray]], size: tuple[int, int], view: str
) -> Iterator[tuple[str, Drawing, np.ndarray]]:
    camera = Camera.look_at(np.asarray(pictures[0][1], dtype=np.float64), size, view)
    drawn, drawing = None, None
    for title, points, colors in pictures:
        if points is not drawn:  # most often all panels show one scan
            drawn, drawing = points, draw(points, size, view, camera=camera)
        yield title, drawing, drawing.paint(colors)


def _panel(figure, picture: np.ndarray, title: str, left: int, top: int):
    """Put a picture under its title, pixel on pixel, the panel's upper left corner at (left, top); its axes."""
    width, height = figure.get_size_inches() * DPI
    high, wide, _ = picture.shape
    axes = figure.add_axes((left / width, (top - TITLE - high) / height, wide / width, high / height))
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    middle = (left + wide / 2) / width, (top - TITLE / 2) / height
    figure.text(*middle, title, ha="center", va="center", fontsize=13, color="0.15")
    return axes


def _write_names(axes, drawing: Drawing, things: np.ndarray, names: Sequence[str]) -> None:
    from matplotlib.patheffects import withStroke

    taken = np.empty((0, 4))  # left, top, right, bottom of the texts so far
    height, width = drawing.size
    for thing, x, y in drawing.middles(things, LEAST_SEEN):
        wide, high = CHARACTER * len(names[thing]) / 2, LINE / 3
        box = np.array([x - wide, y - high, x + wide, y + high])
        outside = box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height
        meets = (np.maximum(taken[:, :2], box[:2]) < np.minimum(taken[:, 2:], box[2:])).all(axis=1)
        if outside or meets.any():
            continue
        taken = np.vstack([taken, box])
        edge = [withStroke(linewidth=2.5, foreground="white")]
        axes.text(x, y, names[thing], ha="center", va="center", fontsize=8, color="0.05", path_effects=edge)


def save(figure, canvas, path: str | os.PathLike) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_file(Path(path)) as part:
        canvas(figure).print_png(str(part))
