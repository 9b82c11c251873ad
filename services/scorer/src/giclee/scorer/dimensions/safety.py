"""May it be shown: independent votes of detectors, which pass together, fail together, and else leave a doubt.

The value is 1 minus the highest risk that any vote sees; `highest` is 1 minus the lowest. The gate passes by the
first and fails by the second, so no vote alone lets a picture through, and none alone throws one away (ADR 0014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from giclee.scorer.detector import Detector, Vote
from giclee.scorer.dimension import Evaluator, Measured, Picture
from giclee.scorer.pixels import share, trouble

ROUNDING = 1e-3
"""A risk that lies farther outside 0 to 1 is no risk but an error."""


class Safety:
    """Over detectors that have nothing in common. A vote that is not a number leaves nothing measured."""

    def __init__(self, first: Detector, *others: Detector) -> None:
        self._detectors = (first, *others)
        self._names = [detector.describe().name for detector in self._detectors]

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        shown = [picture.pixels for picture in pictures]
        strange = [trouble(pixels) for pixels in shown]
        seen = [pixels for pixels, why in zip(shown, strange, strict=True) if why is None]
        votes = zip(*(_asked(detector, seen) for detector in self._detectors), strict=True)
        return [Measured(None, reason=why) if why is not None else self._together(next(votes)) for why in strange]

    def describe(self) -> Evaluator:
        """All who vote: the version changes whenever one of them does."""
        who = [detector.describe() for detector in self._detectors]
        return Evaluator(
            " + ".join(one.name for one in who),
            "+".join(one.version for one in who),
            blind_to="; ".join(f"{one.name}: {one.blind_to}" for one in who if one.blind_to),
        )

    def _together(self, votes: Sequence[Vote]) -> Measured:
        reason = "; ".join(f"{name} {_told(vote)}" for name, vote in zip(self._names, votes, strict=True))[:200]
        safe = [1 - vote.risk for vote in votes if vote.risk is not None]
        if not safe or not all(-ROUNDING <= one <= 1 + ROUNDING for one in safe):  # NaN is not between
            return Measured(None, certain=False, reason=reason)
        return Measured(share(min(safe)), highest=share(max(safe)), reason=reason)


def _asked(detector: Detector, pictures: Sequence[np.ndarray]) -> Sequence[Vote]:
    """A vote per picture. Errors: ValueError when the detector leaves one out."""
    found = detector.votes(pictures) if pictures else []
    if len(found) != len(pictures):
        raise ValueError(f"{detector.describe().name} voted on {len(found)} of {len(pictures)} pictures")
    return found


def _told(vote: Vote) -> str:
    """A vote in a verdict's reason, as the value that the gate compares."""
    value = "abstains" if vote.risk is None else "not a number" if math.isnan(vote.risk) else f"{1 - vote.risk:.2f}"
    return f"{value} ({vote.why})" if vote.why else value
