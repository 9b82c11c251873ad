"""How even the ground around the subject is: its spread in CIEDE2000 along the border.

The value is 1 for one colour and 0.5 where nine tenths of the border lie within `spread_max` of its median.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from giclee.schemas.parts import StrictPart
from giclee.scorer.colour import ciede2000, lab
from giclee.scorer.dimension import Evaluator, Measured, Picture, versioned
from giclee.scorer.pixels import reduced, ring, share, trouble

LONG_SIDE_PX, SIDE_MIN_PX = 128, 8
BORDER = 0.08
"""Width of what is looked at, in shares of the shorter side: a subject that fills four fifths leaves it free."""
COUNTED = 0.9
"""Share of the border that counts: a tenth may be the subject, where it reaches in."""


class Evenness(StrictPart):
    """`spread_max`: distance from the border's median colour, CIEDE2000, that nine tenths of it may reach."""

    spread_max: Annotated[float, Field(gt=0, le=50, strict=False)] = 8.0


class Background:
    """Over the border of the picture."""

    def __init__(self, evenness: Evenness) -> None:
        self._evenness = evenness

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [self._one(picture.pixels) for picture in pictures]

    def describe(self) -> Evaluator:
        return Evaluator(
            "background",
            versioned("1", self._evenness),
            unit="0 to 1, 0.5 at spread_max",
            blind_to="the ground further in than the border, texture under 1/128 of the picture, which colour it is",
        )

    def _one(self, pixels: np.ndarray) -> Measured:
        if why := trouble(pixels):
            return Measured(None, reason=why)
        small = reduced(pixels, LONG_SIDE_PX)
        if min(small.shape[:2]) < SIDE_MIN_PX:
            return Measured(None, reason="too small or too narrow to have a border")
        colours = lab(small[ring(small, BORDER)])  # (pixels, 3)
        spread = float(np.quantile(ciede2000(colours, np.median(colours, axis=0)), COUNTED))
        value = share(1 - spread / self._evenness.spread_max / 2)
        return Measured(value, reason=f"a spread of {spread:.1f} along the border")
