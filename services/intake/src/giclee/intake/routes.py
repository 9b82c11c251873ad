"""What came of every route, told as metrics: a route is (asset type, quality, provider, model). Pure but for `tell`.

Only this projection sees a candidate from its first provider to its approval, each event once and under a lock. What
its facts come to is worked out before and after a batch, and the difference is counted when the batch is committed:
so order and repetition change nothing, and a crash loses one batch's counts at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from giclee.bus import telemetry
from giclee.intake import status
from giclee.intake.facts import Candidate, Facts

Counted = dict[tuple[str, "Route"], float]

CANDIDATES, FALLBACKS = "giclee_route_candidates_total", "giclee_route_fallbacks_total"
JUDGED, PASSED = "giclee_route_judged_total", "giclee_route_passed_total"
APPROVED, USD = "giclee_route_approved_total", "giclee_route_usd_total"
SECONDS = "giclee_route_seconds"


class Route(NamedTuple):
    """The labels of a route."""

    asset_type: str
    quality: str
    provider: str
    model: str


def came_to(facts: Facts) -> Counted:
    """What one candidate counts for, by metric and route.

    What was paid for it counts, once it has settled, where its image came from, else where its chain ended; its
    seconds are from being given to a provider until its image was told.
    """
    routed, made = facts.get("routed") or {}, facts.get("made") or {}
    routes = {hop: route for hop, fact in routed.items() if (route := _route(fact)) is not None}
    found: Counted = {}
    for hop, route in routes.items():
        _add(found, CANDIDATES, route)
        if any(int(other) > int(hop) for other in routed):
            _add(found, FALLBACKS, route)
        if hop in made:
            _add(found, SECONDS, route, max(0.0, _s(made[hop]["at"]) - _s(routed[hop]["at"])))
    ended = made or facts.get("failed") or {}
    last = routes.get(max(ended, key=int)) if ended else None
    if last is not None:
        _add(found, USD, last, float(facts.get("spent_usd", "0")))
        score = status.score_of(facts) if made else None
        if score is not None:
            _add(found, JUDGED, last)
            _add(found, PASSED, last, float(bool(score["passes"])))
        if made and "asset" in facts:
            _add(found, APPROVED, last)
    return found


def tell(candidates: Iterable[Candidate]) -> None:
    """Count what these candidates came to beyond what they were loaded with."""
    for one in candidates:
        before = one.counted
        for (metric, route), amount in came_to(one.facts).items():
            known = before.get((metric, route))
            if metric == SECONDS:
                if known is None:
                    telemetry.observe(metric, amount, **route._asdict())
            elif amount > (known or 0.0):
                telemetry.count(metric, amount - (known or 0.0), **route._asdict())


def _route(fact: Facts) -> Route | None:
    """None for what was noted by a release that kept no more than the provider."""
    if "quality" not in fact:
        return None
    return Route(fact["asset_type"], fact["quality"], fact["provider"], fact["model"])


def _add(found: Counted, metric: str, route: Route, amount: float = 1.0) -> None:
    found[metric, route] = found.get((metric, route), 0.0) + amount


def _s(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
