"""Windows of provider health: what happened in the last 60 s, in buckets of 10 s. Pure arithmetic.

A window is a plain dict, because it is kept in a table whose values travel as JSON:
`{bucket start in s, as text: {"made": n, "failures": {class: n}, "seconds": [...], "scored": n, "passed": n}}`.
Numbers are advisory: a restart may count an attempt twice or not at all, so ratios and percentiles only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from giclee.schemas.events import ProviderHealth, ProviderOutcome

BUCKET_S = 10
WINDOW_S = 60
SAMPLES_MAX = 100
"""Durations kept per bucket; percentiles of more would cost more and say the same."""
MADE = "made"

Bucket = dict[str, Any]
Window = dict[str, Bucket]


def _bucket(window: Window, at_s: float) -> Bucket:
    start = str(int(at_s // BUCKET_S) * BUCKET_S)
    empty: Bucket = {"made": 0, "failures": {}, "seconds": [], "scored": 0, "passed": 0}
    return window.setdefault(start, empty)


def recent(window: Window, now_s: float) -> Window:
    """The buckets of `window` that are not over: none is older than a window, none from the future."""
    oldest = now_s - WINDOW_S
    return {start: bucket for start, bucket in window.items() if oldest < int(start) + BUCKET_S and int(start) <= now_s}


def with_outcome(window: Window, outcome: ProviderOutcome, now_s: float) -> Window:
    """`window` with one attempt in it; one that ended before the window began changes nothing."""
    kept = {start: {**bucket} for start, bucket in recent(window, now_s).items()}
    bucket = _bucket(kept, min(outcome.at.timestamp(), now_s))
    if outcome.outcome == MADE:
        bucket["made"] += 1
        bucket["seconds"] = [*bucket["seconds"], round(outcome.seconds, 3)][-SAMPLES_MAX:]
    else:
        failures = bucket["failures"]
        bucket["failures"] = {**failures, outcome.outcome: failures.get(outcome.outcome, 0) + 1}
    return recent(kept, now_s)


def with_score(window: Window, *, passed: bool, at_s: float, now_s: float) -> Window:
    """`window` with one judged image in it."""
    kept = {start: {**bucket} for start, bucket in recent(window, now_s).items()}
    bucket = _bucket(kept, min(at_s, now_s))
    bucket["scored"] += 1
    bucket["passed"] += passed
    return recent(kept, now_s)


def health(provider: str, windows: Iterable[Window], now_s: float) -> ProviderHealth:
    """What the buckets of all `windows` add up to at `now_s`."""
    buckets = [bucket for window in windows for bucket in recent(window, now_s).values()]
    failures: dict[str, int] = {}
    for bucket in buckets:
        for name, times in bucket["failures"].items():
            failures[name] = failures.get(name, 0) + times
    made = sum(bucket["made"] for bucket in buckets)
    attempts = made + sum(failures.values())
    seconds = sorted(second for bucket in buckets for second in bucket["seconds"])
    return ProviderHealth(
        provider=provider,
        attempts=attempts,
        made=made,
        failures=failures,
        success_ratio=made / attempts if attempts else None,
        p50_s=percentile(seconds, 0.5),
        p95_s=percentile(seconds, 0.95),
        scored=sum(bucket["scored"] for bucket in buckets),
        passed=sum(bucket["passed"] for bucket in buckets),
        window_s=WINDOW_S,
        at=datetime.fromtimestamp(now_s, UTC),
    )


def percentile(ordered: list[float], share: float) -> float | None:
    """The smallest value that at least `share` of `ordered` do not exceed; None without values."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
