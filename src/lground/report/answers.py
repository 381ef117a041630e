"""What a query found, as a scan in heat colours and as a picture."""

import os
from collections.abc import Sequence

import numpy as np

from lground.report.heat import heat_colors
from lground.report.panels import panels, plain_colors
from lground.scans import Scan


def paint_answers(scan: Scan, scores: np.ndarray) -> Scan:
    """The scan in the heat of the first text, with scores (N, T) as extras `score_0`, `score_1`, ..."""
    extras = scan.extras | {f"score_{k}": column for k, column in enumerate(scores.T)}
    return Scan(scan.points, heat_colors(scores[:, 0], scan.colors), scan.faces, extras, scan.offset)


def draw_answers(path: str | os.PathLike, scan: Scan, texts: Sequence[str], scores: np.ndarray) -> None:
    """Write a PNG: the scan, and beside it the heat (N, T) of each text."""
    heats = [
        (f'"{text}"', scan.points, heat_colors(column, scan.colors))
        for text, column in zip(texts, scores.T, strict=True)
    ]
    panels(path, [("the scan", scan.points, plain_colors(scan)), *heats])
