"""Arrays as the evaluators take them: tensors become arrays, numbers of the wrong kind are refused."""

import numpy as np
from torch import Tensor


def whole_numbers(values: Tensor | np.ndarray, name: str, length: int | None = None) -> np.ndarray:
    """`values` as (N,) int64. Raises ValueError that names them: for another shape or length, or for floats."""
    values = _vector(values, name, length)
    if values.dtype.kind not in "iu" and len(values):
        raise ValueError(f"{name} must be whole numbers, not {values.dtype}")
    return values.astype(np.int64)


def finite_numbers(values: Tensor | np.ndarray, name: str, length: int | None = None) -> np.ndarray:
    """`values` as (N,) float64. Raises ValueError that names them: also for NaN and infinity."""
    values = _vector(values, name, length)
    if values.dtype.kind not in "fiu" and len(values):
        raise ValueError(f"{name} must be numbers, not {values.dtype}")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite; number {int(np.isfinite(values).argmin())} is not")
    return values


def _vector(values: Tensor | np.ndarray, name: str, length: int | None) -> np.ndarray:
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if values.ndim != 1 or length not in (None, len(values)):
        wanted = "(N,)" if length is None else f"({length},)"
        raise ValueError(f"{name} have the shape {values.shape}, not {wanted}")
    return values
