"""What `giclee requests show` says of routing: who was asked, what an approved image was expected to cost, who lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from giclee.cli.output import show

CHAIN = ("waves", "asked", "provider", "model", "price_usd", "per_approved_usd", "passes", "made", "why")
LOST = ("waves", "provider", "code", "why")
FAILED = ("candidates", "stage", "provider", "code", "why")


def tell_routes(found: dict[str, Any]) -> None:
    """The chain of each wave in its order, who is not in it, and why candidates failed; nothing where nothing is."""
    told = list(_decisions(found.get("routes") or ()))
    candidates = found.get("candidates") or ()
    for rows, columns in (
        ([row for waves, route in told for row in _chain(waves, route, candidates)], CHAIN),
        ([row for waves, route in told for row in _losers(waves, route)], LOST),
        (list(_failures(candidates)), FAILED),
    ):
        if rows:
            show(rows, as_json=False, columns=columns)


def made_by(candidate: dict[str, Any]) -> str | None:
    """Who made a candidate, or is asked now."""
    model = (candidate.get("model") or {}).get("name")
    return f"{candidate['provider']}/{model}" if candidate.get("provider") else None


def fallbacks(candidate: dict[str, Any]) -> str | None:
    """Who was asked before and why that came to nothing: `fal/flux (transient)`."""
    hops = pairwise(candidate.get("hops") or ())
    said = [f"{one['provider']}/{one['model']} ({(then.get('reason') or {}).get('code', '?')})" for one, then in hops]
    return ", ".join(said) or None


def _decisions(routes: Any) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Each decision with the waves that it was made for: most waves of a request are decided alike."""
    alike: dict[str, tuple[list[int], dict[str, Any]]] = {}
    for route in routes:
        decided = {name: value for name, value in route.items() if name != "wave"}
        alike.setdefault(json.dumps(decided, sort_keys=True), ([], decided))[0].append(route["wave"])
    yield from alike.values()


def _chain(waves: list[int], route: dict[str, Any], candidates: Any) -> Iterator[dict[str, Any]]:
    mine = [one for one in candidates if one.get("wave") in waves]
    for at, step in enumerate(route["chain"]):
        asked = [one for one in mine if len(one.get("hops") or ()) > at]
        made = [one for one in asked if one.get("sha256") and len(one["hops"]) == at + 1]
        passes = step.get("acceptance")
        yield {
            **step,
            "waves": _named(waves),
            "asked": len(asked),
            "made": len(made),
            "passes": None if passes is None else f"{passes:.0%}",
        }


def _losers(waves: list[int], route: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for loser in route["losers"]:
        yield {**loser, "waves": _named(waves), "why": loser["message"]}


def _failures(candidates: Any) -> Iterator[dict[str, Any]]:
    """Why candidates failed, each reason once with whom it is about; also where no provider could serve a wave."""
    about: dict[tuple[Any, ...], list[int]] = {}
    for one in candidates:
        for reason in one.get("reasons") or ():
            key = tuple(reason.get(name) for name in ("stage", "provider", "code", "message"))
            about.setdefault(key, []).append(one.get("index"))
    for (stage, provider, code, message), named in about.items():
        yield {"candidates": _named(named), "stage": stage, "provider": provider, "code": code, "why": message}


def _named(numbers: list[int]) -> str:
    """`0-3, 7`."""
    found: list[list[int]] = []
    for number in sorted({one for one in numbers if one is not None}):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
