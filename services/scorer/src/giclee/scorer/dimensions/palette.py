"""Is the picture in the brand's colours: the share of its pixels that look like one of them, by CIEDE2000.

Every n-th pixel is looked at, so that mixtures which scaling makes along edges do not count as colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from giclee.schemas.parts import StrictPart
from giclee.scorer.colour import ciede2000, lab, of_hex
from giclee.scorer.dimension import Evaluator, Measured, Picture, versioned
from giclee.scorer.pixels import trouble

LONG_SIDE_PX = 256
"""Pixels looked at along the longer side, at most twice as many."""


class Palette(StrictPart):
    """`colours`: sRGB as #rrggbb. `distance`: CIEDE2000 up to which a pixel is of one: 2 to 3 is hardly seen."""

    colours: Annotated[
        tuple[Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")], ...],
        Field(min_length=1, max_length=32, strict=False),
    ]
    distance: Annotated[float, Field(gt=0, le=50, strict=False)]


class PaletteShare:
    """Over one palette."""

    def __init__(self, palette: Palette) -> None:
        self._palette = palette
        self._known = lab(np.array([of_hex(one) for one in palette.colours], np.uint8))  # (colours, 3)

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [self._one(picture.pixels) for picture in pictures]

    def describe(self) -> Evaluator:
        return Evaluator(
            "palette",
            versioned("1", self._palette),
            unit="share of the pixels, 0 to 1",
            blind_to="where in the picture a colour stands, and how much of each",
        )

    def _one(self, pixels: np.ndarray) -> Measured:
        if why := trouble(pixels):
            return Measured(None, reason=why)
        step = max(1, max(pixels.shape[:2]) // LONG_SIDE_PX)
        seen, counts = np.unique(pixels[::step, ::step].reshape(-1, 3), axis=0, return_counts=True)
        colours = lab(seen)  # (different colours, 3)
        nearest = np.min([ciede2000(colours, known) for known in self._known], axis=0)
        value = float(counts[nearest <= self._palette.distance].sum() / counts.sum())
        return Measured(value, reason=f"{value:.2f} within {self._palette.distance:g} of the palette")
