"""What the router makes of provider health. Everything here works when the numbers are old or missing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from giclee.schemas.events import ProviderHealth

STALE = timedelta(seconds=60)
"""Numbers older than their own window say nothing about now."""
ATTEMPTS_MIN = 5
SUCCESS_MIN = 0.5
SCORED_PRIOR, PASSED_PRIOR = 10, 6
"""Before an image is judged, and to steady the first few: as if 6 of 10 had passed."""


def fresh(rows: Mapping[str, ProviderHealth], now: datetime) -> dict[str, ProviderHealth]:
    """The rows that speak about now, by provider."""
    return {row.provider: row for row in rows.values() if abs(now - row.at) <= STALE}


def ailing(rows: Mapping[str, ProviderHealth], now: datetime) -> frozenset[str]:
    """Providers whose attempts mostly fail; too few attempts say nothing."""
    return frozenset(
        name
        for name, row in fresh(rows, now).items()
        if row.attempts >= ATTEMPTS_MIN and row.success_ratio is not None and row.success_ratio < SUCCESS_MIN
    )


def acceptance(row: ProviderHealth | None) -> float:
    """The share of a provider's images that pass, between 0 and 1, pulled towards 0.6 while few were judged."""
    scored, passed = (row.scored, row.passed) if row else (0, 0)
    return (min(passed, scored) + PASSED_PRIOR) / (scored + SCORED_PRIOR)
