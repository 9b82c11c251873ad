"""Is it free of banding and blocking: what too few levels and too strong a compression leave. The weaker of two shares.

Blocking is how much more neighbours differ across most borders of 8 x 8 blocks than inside them. Banding is
the share of the picture that is a small step between two plateaus without any grain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from giclee.scorer.dimension import Evaluator, Measured, Picture
from giclee.scorer.pixels import central, luma, share

BLOCK_PX = 8
STEEP_LEVELS = 8.0
"""More of a difference counts no more: an edge of the picture must not outweigh its plains."""
GRAIN_LEVELS = 0.15
"""Added to both sides, so that two kinds of next to nothing are the same."""
BLOCKING_CLEAN, BLOCKING_FULL = 2.0, 12.0
"""How many times as much: up to the first nothing is seen, from the second on every block."""
STEP_LEVELS = (1.5, 24.0)
PLATEAU_PX = 3
BANDING_FULL = 0.04
"""Share of steps from which on a gradient is a staircase."""
SIDE_MIN_PX = 16 * BLOCK_PX
"""Fewer borders than that and one edge of the picture decides what their median is."""


class Compression:
    """Over the middle of the picture, on the grid of its upper left corner."""

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [_one(picture.pixels) for picture in pictures]

    def describe(self) -> Evaluator:
        return Evaluator("compression", "1", blind_to="blocks of other sizes, or scaled after they were made")


def _one(pixels: np.ndarray) -> Measured:
    if min(pixels.shape[:2]) < SIDE_MIN_PX:
        return Measured(1.0, reason=f"too small to tell: under {SIDE_MIN_PX} px")
    height, width = (side // BLOCK_PX * BLOCK_PX for side in pixels.shape[:2])
    plane = luma(central(pixels[:height, :width]))
    blocking = max(_blocking(plane), _blocking(plane.T))
    found = {
        "blocking": share(1 - (blocking - BLOCKING_CLEAN) / (BLOCKING_FULL - BLOCKING_CLEAN)),
        "banding": share(1 - max(_banding(plane), _banding(plane.T)) / BANDING_FULL),
    }
    name, value = min(found.items(), key=lambda pair: pair[1])
    return Measured(value, reason=None if value >= 1 else f"{name}: {value:.2f}")


def _blocking(plane: np.ndarray) -> float:
    """The difference across the median border of blocks over that inside blocks, along the rows of (height, width).

    The median, since an edge of the picture may lie on one border or another, and blocks are everywhere.
    """
    steps = np.minimum(np.abs(np.diff(plane, axis=1)), STEEP_LEVELS).mean(axis=0)  # (width - 1,)
    at_border = np.zeros(steps.shape[0], bool)
    at_border[BLOCK_PX - 1 :: BLOCK_PX] = True
    inside, across = np.median(steps[~at_border]), np.median(steps[at_border])
    return float((across + GRAIN_LEVELS) / (inside + GRAIN_LEVELS))


def _banding(plane: np.ndarray) -> float:
    """Share of pixels that are a small step between two plateaus, along the rows of (height, width)."""
    steps = np.abs(np.diff(plane, axis=1))
    flat = steps < STEP_LEVELS[0] / 10
    small = (steps >= STEP_LEVELS[0]) & (steps <= STEP_LEVELS[1])
    around = np.ones_like(small)
    for away in range(1, PLATEAU_PX + 1):
        around[:, away:] &= flat[:, :-away]
        around[:, :-away] &= flat[:, away:]
    return float((small & around).mean())
