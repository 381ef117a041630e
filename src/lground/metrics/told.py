"""Scores as they are told: in percent, and in JSON."""

import math


def percent(value: float) -> str:
    """A fraction in percent, seven characters wide; a dash where it is undefined."""
    return f"{'-' if math.isnan(value) else format(100 * value, '.2f'):>7}"


def or_none(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if math.isnan(value) else float(value)
