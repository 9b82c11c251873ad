"""Is there a picture at all: not uniform, not noise, not a frame that providers send instead of an image.

The weaker of contrast and structure, each in [0, 1], and 0 for a stock frame. A provider that blocks an image
answers with a black, grey or blurred one and calls it success.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from giclee.scorer.dimension import Evaluator, Measured, NotUsable, Picture
from giclee.scorer.phash import distance, fingerprint
from giclee.scorer.pixels import central, share, strongest

CONTRAST_FULL = 25.0
"""Levels of 255 between the darkest and brightest thousandth of some channel that count as full contrast."""
CORRELATION_FULL = 0.5
"""Correlation of neighbouring pixels: pictures have 0.8 and more, noise has none."""
STOCK_DISTANCE_MAX = 20
"""Bits of 768 in which a stock frame may differ from its kept fingerprint: it was scaled or encoded again."""

STOCK_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Content:
    """`stock` are fingerprints of frames that are no answer, as `phash.fingerprint` gives them."""

    def __init__(self, stock: Iterable[str] = ()) -> None:
        self._stock = tuple(stock)

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [self._one(picture.pixels) for picture in pictures]

    def describe(self) -> Evaluator:
        return Evaluator("content", "1", blind_to="whether the picture is the one that was asked for")

    def _one(self, pixels: np.ndarray) -> Measured:
        if self._stock:
            mine = fingerprint(pixels)
            if any(distance(mine, known) <= STOCK_DISTANCE_MAX for known in self._stock):
                return Measured(0.0, reason="a stock frame that stands for a blocked picture")
        plane, spread = strongest(central(pixels))
        found = {
            "contrast": share(spread / CONTRAST_FULL),
            "structure": share(_correlation(plane) / CORRELATION_FULL),
        }
        name, value = min(found.items(), key=lambda pair: pair[1])
        return Measured(value, reason=None if value >= 1 else f"{name}: {value:.2f}")


def stock_of(folder: Path) -> tuple[str, ...]:
    """Fingerprints of the frames in a folder. Errors: NotUsable naming the file that is no picture, or having none."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in STOCK_SUFFIXES)
    if not paths:
        raise NotUsable(f"content: GICLEE_SCORER_STOCK_DIR={folder} has no {', '.join(STOCK_SUFFIXES)} file")
    return tuple(_fingerprint_of(path) for path in paths)


def _fingerprint_of(path: Path) -> str:
    try:
        with Image.open(path) as frame:
            return fingerprint(np.asarray(frame.convert("RGB")))
    except (OSError, ValueError, SyntaxError) as error:
        raise NotUsable(f"content: {path} is no picture: {error}") from error


def _correlation(plane: np.ndarray) -> float:
    """The smaller correlation of neighbours along the two axes; 0 for a flat plane."""
    centred = plane - plane.mean()
    power = float((centred**2).mean())
    if power < 1e-6 or min(plane.shape) < 2:
        return 0.0
    across = float((centred[:, 1:] * centred[:, :-1]).mean())
    down = float((centred[1:] * centred[:-1]).mean())
    return min(across, down) / power
