"""Colours that tell objects apart."""

import colorsys

import numpy as np

TONES = ((0.85, 0.95), (0.55, 0.95), (0.9, 0.65))  # saturation and value: strong, pale, dark
NO_OBJECT = (150, 150, 150)


def object_colors(count: int) -> np.ndarray:
    """Distinct colours of `count` objects, and grey for none as the last row (index -1): (count + 1, 3) uint8.

    Hues go round the circle by the golden ratio, so that neighbours in the list look different; the colour of an
    object does not depend on how many there are.
    """
    hues = np.arange(count) * 0.618033988749895 % 1.0
    colors = [colorsys.hsv_to_rgb(hue, *TONES[k % len(TONES)]) for k, hue in enumerate(hues)]
    return np.rint(np.array([*(np.multiply(c, 255) for c in colors), NO_OBJECT])).astype(np.uint8)
