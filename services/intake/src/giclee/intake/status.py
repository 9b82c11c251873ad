"""From facts to what a caller sees: each candidate's state, and how far the whole request is. Pure.

A request is as far as its furthest live candidate. `stalled` says that a record of it is a dead letter, `stuck`
that in addition nothing else of it moves. The one word for all of that is a generated column of the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from giclee.intake.facts import Candidate, Facts, Known
from giclee.schemas.parts import usd_text

STAGE_OF = {"generating": "generating", "scoring": "scoring", "passed": "scoring", "in-review": "in-review"}
"""The stage of a request whose furthest live candidate is in this state; states that are not here have ended."""

_FURTHEST_FIRST = ("in-review", "passed", "scoring", "generating")

STATES = ("pending", "clearing", "routing", "generating", "scoring", "in-review", "held", "stalled", "cancelling")
OUTCOMES = ("approved", "partial", "refused", "failed", "cancelled", "expired")


def state_of(facts: Facts) -> str:
    """A candidate's state: generating, scoring, in-review, passed, approved, rejected or failed."""
    if "asset" in facts:
        return "approved"
    if facts.get("failed"):
        return "failed"
    if is_in_review(facts):
        return "in-review"
    verdict = _verdict(facts)
    if verdict is not None:
        return "passed" if verdict else "rejected"
    return "scoring" if facts.get("made") else "generating"


def image_of(facts: Facts) -> Facts | None:
    """The image that counts: of the furthest hop that made one."""
    made = facts.get("made")
    return made[max(made, key=int)] if made else None


def score_of(facts: Facts) -> Facts | None:
    """The score of the image that counts; of any image as long as none is known, since topics overtake each other."""
    scores, image = facts.get("scores") or {}, image_of(facts)
    if image is not None:
        found: Facts | None = scores.get(image["sha256"])
        return found
    return min(scores.values(), key=lambda score: (score["at"], str(score)), default=None)


def _verdict(facts: Facts) -> bool | None:
    """Whether the image passes; a person's word counts more than the gate's. None while nobody has said."""
    image, score = image_of(facts), score_of(facts)
    review = (facts.get("reviews") or {}).get(image["sha256"]) if image else None
    if review is not None:
        return bool(review["verdict"] == "pass")
    return None if score is None else bool(score["passes"])


def is_in_review(facts: Facts) -> bool:
    """Whether a person was asked about the image and nobody has said anything yet."""
    image = image_of(facts)
    asked, said = facts.get("asked") or {}, facts.get("reviews") or {}
    return bool(asked.keys() - said.keys()) if image is None else image["sha256"] in asked.keys() - said.keys()


def is_stalled(facts: Facts) -> bool:
    """Whether a dead letter still keeps this candidate from going on."""
    return any(_holds_up(stall, facts) for stall in (facts.get("stalls") or {}).values())


def _holds_up(stall: Facts, facts: Facts) -> bool:
    """A stall is over when the stage that announced it has done its work after all.

    What the publisher makes of an event is seen only by an approval or a closing.
    """
    stage, hop = stall["stage"], stall.get("hop") or 0
    if stage.startswith("gpu-worker"):
        ends = [*(facts.get("made") or {}), *(facts.get("failed") or {})]
        return not any(int(end) >= hop for end in ends) and not any(int(go) > hop for go in facts.get("routed") or {})
    if stage == "scorer":
        return state_of(facts) in ("generating", "scoring")
    return "asset" not in facts


def wave_of(facts: Facts) -> int | None:
    """The wave that a candidate was first routed in."""
    waves = [fact["wave"] for fact in (facts.get("routed") or {}).values()]
    return min(waves, default=None)


def columns_of(candidate: Candidate) -> dict[str, Any]:
    """The columns that follow from a candidate's facts. Settled: its cost is known to the end."""
    facts = candidate.facts
    return {
        "candidate_id": str(candidate.candidate_id),
        "index": facts.get("index"),
        "wave": wave_of(facts),
        "state": state_of(facts),
        "stalled": is_stalled(facts),
        "spent_usd": facts.get("spent_usd", "0"),
        "settled": bool(facts.get("made") or facts.get("failed")),
        "facts": facts,
    }


@dataclass(frozen=True, slots=True)
class Tally:
    """How many candidates of one request share a state, and what they cost together."""

    state: str
    stalled: bool
    count: int
    settled: int
    spent_usd: Decimal
    wave: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a request is: the columns that follow from its facts and its candidates."""

    stage: str
    stalled: bool
    stuck: bool
    shown: dict[str, Any]
    all_approved_seen: bool


def standing(known: Known, tallies: Sequence[Tally]) -> Standing:
    """The standing of a request with these candidates."""
    moving = {tally.state for tally in tallies if tally.state in STAGE_OF and not tally.stalled}
    waiting = {tally.state for tally in tallies if tally.state in STAGE_OF and tally.stalled}
    closing: Facts = known.facts.get("closed", {}).get("closing", {})
    stalled = not closing and (any(tally.stalled for tally in tallies) or _request_stalled(known.facts, tallies))
    approved = sum(tally.count for tally in tallies if tally.state == "approved")
    return Standing(
        stage=_stage(known.facts, moving or waiting, any_candidate=bool(tallies)),
        stalled=stalled,
        stuck=stalled and not moving,
        shown={"progress": _progress(known, tallies, approved), **cost(closing, tallies)},
        all_approved_seen=approved >= len(closing.get("assets", ())),
    )


def _stage(facts: Facts, live: set[str], *, any_candidate: bool) -> str:
    for state in _FURTHEST_FIRST:
        if state in live:
            return STAGE_OF[state]
    if any_candidate or "cleared" in facts:
        return "routing"  # of wave 0, or of the next one
    return "clearing" if {"seen", "refused"} & facts.keys() else "pending"


def _request_stalled(facts: Facts, tallies: Sequence[Tally]) -> bool:
    """Whether a dead letter that names no candidate still keeps the request from going on."""
    wave = max((tally.wave for tally in tallies if tally.wave is not None), default=-1)
    for stall in (facts.get("stalls") or {}).values():
        if stall["stage"] == "policy":
            over = bool({"cleared", "refused"} & facts.keys())
        elif stall["stage"] == "router":
            over = wave >= (stall.get("wave") or 0)
        else:
            over = False
        if not over:
            return True
    return False


def _progress(known: Known, tallies: Sequence[Tally], approved: int) -> dict[str, Any]:
    """Counts of candidates; `wanted` is null only while nobody has said what was asked."""
    closing: Facts = known.facts.get("closed", {}).get("closing", {})

    def count(*states: str, stalled: bool | None = None) -> int:
        return sum(t.count for t in tallies if t.state in states and stalled in (None, t.stalled))

    return {
        "wanted": known.request.wanted if known.request else closing.get("wanted"),
        "approved": max(approved, closing.get("approved", 0)),
        "in_flight": count("generating", "scoring", stalled=False),
        "in_review": 0 if closing else count("in-review", stalled=False),
        "rejected": count("rejected"),
        "stalled": count(*STAGE_OF, stalled=True),
        "passed": count("passed", stalled=False),
        "failed": count("failed"),
    }


def cost(closing: Facts, tallies: Sequence[Tally]) -> dict[str, Any]:
    """What was spent. A closing that was not final is replaced by the sum once every candidate has settled."""
    spent = sum((tally.spent_usd for tally in tallies), Decimal(0))
    settled = sum(tally.settled for tally in tallies)
    if not closing:
        return {"cost_usd": usd_text(spent), "cost_final": False}
    said = Decimal(closing["cost_usd"])
    if closing.get("cost_final", True):
        return {"cost_usd": usd_text(max(said, spent)), "cost_final": True}
    final = settled >= max(closing["candidates"], sum(tally.count for tally in tallies))
    return {"cost_usd": usd_text(spent if final else said), "cost_final": final}
