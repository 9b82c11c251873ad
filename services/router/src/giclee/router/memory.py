"""What is remembered of a model at its provider for longer than a window. Pure arithmetic on plain dicts.

A memory is a dict that travels as JSON, like a window. Their fault and ours are told apart here: only what a provider
did counts against it, and what the request itself was refused for counts against nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from giclee.router import windows
from giclee.router.windows import MADE, percentile
from giclee.schemas.events import ProviderHealth, ProviderOutcome
from giclee.schemas.health import Accepted, ModelHealth

THEIRS = frozenset({"transient", "timeout", "unusable"})
"""A provider's own fault, for now: enough of it in a row opens its breaker."""
HOLDS = frozenset({"auth", "budget"})
"""Nothing that trying again mends: somebody must act, or a day must turn."""
RATE = "rate"
NEWER = 0.97
"""How much the outcomes before count beside a new one: about the last 33 attempts."""
NEWER_JUDGED = 0.985
"""The same for judged images of one asset type: about the last 67."""
STREAK_COUNTS = 3
"""Of failures in a row so many count in the ratio: an outage is the breaker's matter, a ratio is about brown-outs."""
FADING_S = 900.0
"""Outcomes of a quarter of an hour ago count half: brown-outs pass."""
SECONDS_MAX = 100
SECONDS_OLD_S = 6 * 3600.0
PAID_KEPT = 3
"""The newest calls whose bill is compared with what was expected; their median is believed."""

COUNTED = ("calls", "unmade", "stood_in", "paid_usd")
"""Sums over about the newest 33 calls, whoever's fault: what people look at. Nothing is chosen by them."""

Memory = dict[str, Any]


def with_outcome(memory: Memory, outcome: ProviderOutcome, now_s: float) -> Memory:
    """`memory` with one attempt in it; the same dict is never changed."""
    kept, at_s, word = {**memory}, min(outcome.at.timestamp(), now_s), outcome.outcome
    if word == MADE:
        seconds = [*kept.get("seconds", []), [round(at_s, 1), round(outcome.seconds, 3)]]
        kept |= {"streak": 0, "limited": 0, "held": None, "made_s": at_s, "seconds": seconds[-SECONDS_MAX:]}
        if outcome.expected_usd:
            ratio = float(outcome.price_usd / outcome.expected_usd)
            kept["paid"] = [*kept.get("paid", []), [at_s, ratio]][-PAID_KEPT:]
    elif word in THEIRS:
        kept |= {"streak": kept.get("streak", 0) + 1, "failed_s": at_s}
    elif word == RATE:
        kept |= {"limited": kept.get("limited", 0) + 1, "limited_s": at_s}
    elif word in HOLDS:
        kept["held"] = kept.get("held") or {"why": word, "since_s": at_s}
        kept["held"] = {**kept["held"], "last_s": at_s}
    if outcome.queue_s is not None:
        kept["queue"] = [at_s, round(outcome.queue_s, 3)]
    counts = {"calls": 1.0, "unmade": word != MADE, "stood_in": outcome.hop > 0, "paid_usd": float(outcome.price_usd)}
    kept |= {name: round(kept.get(name, 0.0) * NEWER + one, 9) for name, one in counts.items()}
    if word == MADE or (word in THEIRS and kept["streak"] <= STREAK_COUNTS):
        left = NEWER * 0.5 ** (max(0.0, at_s - kept.get("tried_s", at_s)) / FADING_S)
        kept["tried"] = round(kept.get("tried", 0.0) * left + 1, 4)
        kept["failed"] = round(kept.get("failed", 0.0) * left + (word != MADE), 4)
        kept["tried_s"] = max(at_s, kept.get("tried_s", at_s))
    return kept


def with_score(memory: Memory, asset_type: str, *, passed: bool, at_s: float) -> Memory:
    """`memory` of judged images, `{asset type: [passed, scored, at_s]}`, with one more in it."""
    before = memory.get(asset_type, [0.0, 0.0, at_s])
    now = [round(before[0] * NEWER_JUDGED + passed, 4), round(before[1] * NEWER_JUDGED + 1, 4), max(at_s, before[2])]
    return {**memory, asset_type: now}


def told(attempts: Memory, scores: Memory, now_s: float) -> ModelHealth:
    """What both memories come to at `now_s`, as others read it."""
    seconds = sorted(value for at_s, value in attempts.get("seconds", []) if now_s - at_s <= SECONDS_OLD_S)
    paid, held = attempts.get("paid", []), attempts.get("held") or {}
    waited_s, queue_s = attempts.get("queue", [0.0, None])
    return ModelHealth(
        tried=attempts.get("tried", 0.0),
        failed=attempts.get("failed", 0.0),
        streak=attempts.get("streak", 0),
        failed_at=_at(attempts.get("failed_s")),
        made_at=_at(attempts.get("made_s")),
        limited=attempts.get("limited", 0),
        limited_at=_at(attempts.get("limited_s")),
        held=held.get("why"),
        held_since=_at(held.get("since_s")),
        held_until=_until(held),
        p50_s=percentile(seconds, 0.5),
        p95_s=percentile(seconds, 0.95),
        samples=len(seconds),
        queue_s=queue_s if now_s - waited_s <= windows.WINDOW_S else None,
        **{name: attempts.get(name, 0.0) for name in COUNTED},
        paid_ratio=median(ratio for _, ratio in paid) if len(paid) == PAID_KEPT else None,
        paid_since=_at(paid[0][0]) if len(paid) == PAID_KEPT else None,
        accepted={kind: Accepted(passed=row[0], scored=row[1], at=_at(row[2])) for kind, row in scores.items()},
    )


def _until(held: Mapping[str, Any]) -> datetime | None:
    """When a hold ends by itself: a budget with the day (UTC) after it was last refused, a key never."""
    if held.get("why") != "budget":
        return None
    refused = datetime.fromtimestamp(held["last_s"], UTC)
    return (refused + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


def _at(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


# ---- a model's record in a table: its window and its memory ------------------------------------


def counted(record: Memory, outcome: ProviderOutcome, now_s: float) -> Memory:
    """A record `{"window", "memory"}` of attempts with one more in it."""
    return {
        "window": windows.with_outcome(record.get("window", {}), outcome, now_s),
        "memory": with_outcome(record.get("memory", {}), outcome, now_s),
    }


def judged(record: Memory, asset_type: str, *, passed: bool, at_s: float, now_s: float) -> Memory:
    """A record `{"window", "memory"}` of judged images with one more in it."""
    at_s = min(at_s, now_s)
    return {
        "window": windows.with_score(record.get("window", {}), passed=passed, at_s=at_s, now_s=now_s),
        "memory": with_score(record.get("memory", {}), asset_type, passed=passed, at_s=at_s),
    }


def health(provider: str, models: Mapping[str, tuple[Memory, Memory]], now_s: float) -> ProviderHealth:
    """How a provider does: the windows of all its models together, and each model's memory.

    `models`: by name, the record of attempts and the record of judged images.
    """
    last_minute = [record.get("window", {}) for pair in models.values() for record in pair]
    found = windows.health(provider, last_minute, now_s)
    remembered = {
        name: told(attempts.get("memory", {}), scores.get("memory", {}), now_s)
        for name, (attempts, scores) in models.items()
    }
    return found.model_copy(update={"models": remembered})
