"""Are its edges sharp: the steepest ones relative to the picture's own contrast, per pixel.

Fair to flat pictures and to all sizes: a disc on a plain ground is as sharp as a photograph, and a picture that was
scaled up is not. 1 is sharp, 0.8 a blur of 2 px, 0.4 one of 4 px.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from giclee.scorer.dimension import Evaluator, Measured, Picture
from giclee.scorer.pixels import central, share, strongest

EDGE_FULL = 0.25
"""Steepest edges, in shares of the contrast per pixel: 0.5 is a hard edge, 0.2 a blur of 2 px, 0.1 one of 4 px."""


class Sharpness:
    """Over the middle of the picture."""

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [_one(picture.pixels) for picture in pictures]

    def describe(self) -> Evaluator:
        return Evaluator("sharpness", "1", blind_to="which part is sharp: a blurred subject before a sharp ground")


def _one(pixels: np.ndarray) -> Measured:
    plane, spread = strongest(central(pixels))
    value = share(_steepest(plane) / max(spread, 1.0) / EDGE_FULL)
    return Measured(value, reason=None if value >= 1 else f"edges of {value * EDGE_FULL:.2f} of the contrast a pixel")


def _steepest(plane: np.ndarray) -> float:
    """The change per pixel at the steepest thousandth of a (height, width) plane, over two pixels."""
    across = np.abs(plane[1:-1, 2:] - plane[1:-1, :-2]) / 2
    down = np.abs(plane[2:, 1:-1] - plane[:-2, 1:-1]) / 2
    return float(np.percentile(np.maximum(across, down), 99.9)) if across.size else 0.0
