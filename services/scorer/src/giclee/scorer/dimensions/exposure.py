"""Is it lit: not all black, not all white, not clipped away. The weakest of three shares, 1 where nothing is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from giclee.scorer.dimension import Evaluator, Measured, Picture
from giclee.scorer.pixels import central, luma, share

SHOWN_FULL = 0.02
"""Share of the picture that must be neither pure black nor pure white."""
DARK_FULL, BRIGHT_FULL = 60.0, 15.0
"""Luma that the brightest thousandth must reach, and distance from white that the darkest must keep."""


class Exposure:
    """Over the middle of the picture."""

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [_one(picture.pixels) for picture in pictures]

    def describe(self) -> Evaluator:
        return Evaluator("exposure", "1", blind_to="taste: night scenes and high key are well exposed here")


def _one(pixels: np.ndarray) -> Measured:
    cut = central(pixels)
    dark, bright = np.percentile(luma(cut), [0.1, 99.9])
    clipped = float(((cut <= 2).all(axis=2) | (cut >= 253).all(axis=2)).mean())
    found = {
        "clipped": share((1 - clipped) / SHOWN_FULL),
        "too dark": share(float(bright) / DARK_FULL),
        "too bright": share((255 - float(dark)) / BRIGHT_FULL),
    }
    name, value = min(found.items(), key=lambda pair: pair[1])
    return Measured(value, reason=None if value >= 1 else f"{name}: {value:.2f}")
