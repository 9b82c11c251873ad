"""Is the picture as bright as its neighbours in a layout: mean linear luminance against a reference, in stops.

A stop is twice or half the light. The value is 1 at the reference, 0.5 at `stops` away from it, 0 at twice that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from giclee.schemas.parts import StrictPart
from giclee.scorer.colour import luminance
from giclee.scorer.dimension import Evaluator, Measured, Picture, versioned
from giclee.scorer.pixels import share, trouble


class Light(StrictPart):
    """`reference`: mean relative luminance, 0.18 is a mid grey and 1 white. `stops`: how far from it is the bound."""

    reference: Annotated[float, Field(gt=0, le=1, strict=False)]
    stops: Annotated[float, Field(gt=0, le=10, strict=False)]


class Luminance:
    """Over the whole picture."""

    def __init__(self, light: Light) -> None:
        self._light = light

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [self._one(picture.pixels) for picture in pictures]

    def describe(self) -> Evaluator:
        return Evaluator(
            "luminance",
            versioned("1", self._light),
            unit="0 to 1, 0.5 at the bound",
            blind_to="how the light is spread: half black and half white is a bright grey",
        )

    def _one(self, pixels: np.ndarray) -> Measured:
        if why := trouble(pixels):
            return Measured(None, reason=why)
        mean = float(luminance(pixels).mean(dtype=np.float64))
        if mean <= 0:
            return Measured(0.0, reason="black")
        stops = math.log2(mean / self._light.reference)
        value = share(1 - abs(stops) / self._light.stops / 2)
        return Measured(value, reason=f"{stops:+.2f} stops from the reference")
