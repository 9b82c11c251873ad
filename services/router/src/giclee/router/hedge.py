"""When somebody waits for a candidate that takes longer than it should: when a second is asked for, and where. Pure.

A hedge is an extra index of the request at another provider, never a second run of one candidate (contract rules 2
and 3). The router says after how long (`hedge_after_s` of ImageRouted); the publisher, which alone knows what an
order still wants and may cost, asks for it by CandidatesRequested that names who is silent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from giclee.router.advice import Standing
from giclee.router.places import WELL, Place

AFTER_TIMES = 1.1
"""Times the p95: so few are slower that hedging costs about one per cent of everything (docs/router.md)."""
UNKNOWN_TIMES = 4.0
"""Without measured durations: so many times what the model's row says."""
LEAST_S = 1.0
DEARER_TIMES = 1.5
"""A hedge buys time: it may cost half as much again as the cheapest does for an approved image, not more."""


def after_s(priority: str, standing: Standing, seconds: float) -> float | None:
    """How long to wait for a candidate at a model before another is asked for; None where nobody waits for it.

    `seconds` is what its row says an image takes.
    """
    if priority != "interactive":
        return None
    return max(LEAST_S, standing.p95_s * AFTER_TIMES if standing.p95_s else seconds * UNKNOWN_TIMES)


def fastest_first(places: Sequence[Place], silent: Collection[str]) -> list[Place]:
    """The chain of a hedge: who is usually fastest of those that are well, not silent and not too dear; then the rest.

    `silent` are providers that somebody is waiting for.
    """
    heard = [place for place in places if place.model.provider not in silent]
    if not heard:
        return list(places)
    most = DEARER_TIMES * min(place.per_approved for place in heard)
    fast = [place for place in heard if place.tier == WELL and place.per_approved <= most]
    fast.sort(key=lambda place: place.seconds)
    return [*fast, *(place for place in heard if place not in fast)]
