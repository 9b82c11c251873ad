"""Is there room for an overlay: how much of a named part of the picture is one colour or a soft gradient of it.

The value is the share of the zone that is clear; of several zones the clearest, since an overlay needs one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from giclee.schemas.parts import StrictPart
from giclee.scorer.colour import lab
from giclee.scorer.dimension import Evaluator, Measured, Picture, versioned
from giclee.scorer.pixels import from_ground, trouble

CELLS = 32
"""Cells along each side of a zone, however many pixels it has."""
CELL_PX = 4
"""Pixels along each side of a cell: what differs within one is texture, and no more empty than an edge."""
SIDE_MIN_PX = 8

Share = Annotated[float, Field(ge=0, le=1, strict=False)]


class Zone(StrictPart):
    """A rectangle in shares of the picture, from its upper left corner."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")] = "zone"
    left: Share = 0.0
    top: Share = 0.0
    right: Share = 1.0
    bottom: Share = 1.0

    @model_validator(mode="after")
    def _has_an_area(self) -> Zone:
        if self.right - self.left < 0.05 or self.bottom - self.top < 0.05:
            raise ValueError("right lies right of left and bottom under top, by 0.05 or more")
        return self


class Zones(StrictPart):
    """`zones`: where an overlay may stand, one is enough. `distance`: in Lab, from which on something is there."""

    zones: Annotated[tuple[Zone, ...], Field(min_length=1, max_length=8, strict=False)]
    distance: Annotated[float, Field(gt=0, le=100, strict=False)] = 12.0


class SafeZone:
    """Over the zones of one layout."""

    def __init__(self, layout: Zones) -> None:
        self._layout = layout

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [self._one(picture.pixels) for picture in pictures]

    def describe(self) -> Evaluator:
        return Evaluator(
            "safe-zone",
            versioned("1", self._layout),
            unit="share of the zone, 0 to 1",
            blind_to="whether the overlay's own colour can be read on it, and where the layout really puts it",
        )

    def _one(self, pixels: np.ndarray) -> Measured:
        if why := trouble(pixels):
            return Measured(None, reason=why)
        found = {zone.name: self._clear(pixels, zone) for zone in self._layout.zones}
        known = {name: value for name, value in found.items() if value is not None}
        if not known:
            return Measured(None, reason=f"too small to tell: no zone has {SIDE_MIN_PX} px a side")
        name, value = max(known.items(), key=lambda pair: pair[1])
        return Measured(value, reason=f"{value:.2f} of {name} is clear")

    def _clear(self, pixels: np.ndarray, zone: Zone) -> float | None:
        """Share of the zone's cells that are near its ground and even in themselves; None for too few pixels."""
        height, width = pixels.shape[:2]
        box = zone.left * width, zone.top * height, zone.right * width, zone.bottom * height
        if min(box[2] - box[0], box[3] - box[1]) < SIDE_MIN_PX:
            return None
        side = CELLS * CELL_PX
        cut = Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX, box=box)
        fine = lab(np.asarray(cut)).reshape(CELLS, CELL_PX, CELLS, CELL_PX, 3)
        cells = fine.mean(axis=(1, 3))  # (CELLS, CELLS, 3)
        texture = np.linalg.norm(fine.std(axis=(1, 3)), axis=2)  # (CELLS, CELLS)
        apart = from_ground(cells, np.ones((CELLS, CELLS), bool))
        return float(((apart <= self._layout.distance) & (texture <= self._layout.distance / 2)).mean())
