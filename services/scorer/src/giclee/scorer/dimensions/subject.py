"""Where the subject stands: how much of the picture it takes, how far from the middle, whether it is cut off.

The subject is what differs from the ground, an even colour or a soft gradient read off the border. The value is the
weakest of four shares, each 0.5 at its bound and falling on: a gate's 0.5 is the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from giclee.schemas.parts import StrictPart
from giclee.scorer.colour import lab
from giclee.scorer.dimension import Evaluator, Measured, Picture, versioned
from giclee.scorer.pixels import from_ground, reduced, ring, share, trouble

LONG_SIDE_PX, SIDE_MIN_PX = 128, 16
"""What is looked at: grain is averaged away, and place and size do not depend on the picture's."""
BORDER = 0.03
"""Width of the border that the ground is read off, in shares of the shorter side: a subject that leaves less than that
free all around is not told from its ground."""
DIFFERENT_LAB, SPREADS = 12.0, 4.0
"""A pixel is of the subject from that distance in Lab on, or so many spreads of the border where that is more. What our
models draw as one colour strays by 3 to 5."""
STRAY = 0.01
"""Share of the subject's pixels at either end that may lie anywhere."""
BUSY_LAB = 12.0
"""A border of which a quarter is further from its own ground is no ground to tell a subject from."""

Share = Annotated[float, Field(ge=0, le=1, strict=False)]


class Framing(StrictPart):
    """`coverage_min`, `coverage_max`: of the box around the subject, in shares of the picture. `offset_max`: of its
    centre of mass, in shares of the sides. `cut_max`: share of the picture's outline that the subject touches."""

    coverage_min: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.08
    coverage_max: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.85
    offset_max: Annotated[float, Field(gt=0, le=0.5, strict=False)] = 0.12
    cut_max: Annotated[float, Field(gt=0, le=0.5, strict=False)] = 0.05


class Subject:
    """By one framing."""

    def __init__(self, framing: Framing) -> None:
        self._framing = framing

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [self._one(picture.pixels) for picture in pictures]

    def describe(self) -> Evaluator:
        return Evaluator(
            "subject",
            versioned("1", self._framing),
            unit="0 to 1, 0.5 at the framing's bounds",
            blind_to="what the subject is; one on a busy ground (unsure), of the ground's colour, or only a shadow",
        )

    def _one(self, pixels: np.ndarray) -> Measured:
        if why := trouble(pixels):
            return Measured(None, reason=why)
        small = reduced(pixels, LONG_SIDE_PX)
        if min(small.shape[:2]) < SIDE_MIN_PX:
            return Measured(None, reason="too small or too narrow to tell a subject from its ground")
        border = ring(small, BORDER)
        apart = from_ground(lab(small), border)
        around = apart[border]
        mask = _without_specks(apart > max(DIFFERENT_LAB, SPREADS * float(np.median(around))))
        if not mask.any():
            return Measured(0.0, certain=False, reason="nothing stands out from the ground")
        is_plain = float(np.quantile(around, 0.75)) <= BUSY_LAB
        return self._judged(mask, is_plain=is_plain)

    def _judged(self, mask: np.ndarray, *, is_plain: bool) -> Measured:
        framing = self._framing
        (high, y), (wide, x) = _extent(mask.sum(axis=1)), _extent(mask.sum(axis=0))
        covers, offset = high * wide, max(abs(y - 0.5), abs(x - 0.5))
        cut = float(mask[ring(mask, 0)].mean())
        found = {
            "too small": covers / framing.coverage_min / 2,
            "too large": (1 - covers) / (1 - framing.coverage_max) / 2,
            "off centre": 1 - offset / framing.offset_max / 2,
            "cut off": 1 - cut / framing.cut_max / 2,
        }
        name, value = min(found.items(), key=lambda pair: pair[1])
        said = f"covers {covers:.2f}, {offset:.2f} off centre, {cut:.2f} of the outline touched"
        said += f"; {name}" if value < 0.5 else ""
        return Measured(share(value), certain=is_plain, reason=said if is_plain else f"a busy ground; {said}")


def _extent(mass: np.ndarray) -> tuple[float, float]:
    """How far a line's mass reaches, strays at either end aside, and its middle, in shares of the line's length."""
    along = np.cumsum(mass) / mass.sum()
    first, last = int(np.searchsorted(along, STRAY)), int(np.searchsorted(along, 1 - STRAY))
    middle = float(mass @ (np.arange(mass.size) + 0.5)) / float(mass.sum())
    return float(last - first + 1) / mass.size, middle / mass.size


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """Pixels that are set and of whose 3 x 3 at least four others are: thin lines and corners stay, grain goes."""
    padded = np.pad(mask.astype(np.uint8), 1)  # what lies outside is not set: a speck on the outline is a speck
    height, width = mask.shape
    near = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    found: np.ndarray = mask & (near >= 5)
    return found
