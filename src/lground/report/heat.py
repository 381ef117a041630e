"""Scores as heat over a greyed scan."""

import numpy as np


def heat_colors(scores: np.ndarray, colors: np.ndarray | None = None) -> np.ndarray:
    """(N, 3) uint8: a perceptually even colour map over the scan in grey.

    scores: (N,), any scale; the lower half stays grey, the best 0.2 % are hottest. colors: (N, 3) uint8 of
    the scan, for its grey; without them one grey.
    """
    from matplotlib import colormaps

    scores = np.nan_to_num(
        np.asarray(scores, dtype=np.float64), nan=-np.inf, neginf=np.nanmin(scores, initial=0.0)
    )
    low, high = np.percentile(scores, [50, 99.8])
    heat = np.clip((scores - low) / max(high - low, 1e-9), 0, 1)
    hot = colormaps["inferno"](0.25 + 0.65 * heat)[:, :3] * 255
    grey = np.full(len(scores), 205.0) if colors is None else 150 + 0.38 * (colors @ [0.299, 0.587, 0.114])
    share = np.clip(heat * 1.6, 0, 1)[:, None]
    return np.rint(hot * share + grey[:, None] * (1 - share)).astype(np.uint8)
