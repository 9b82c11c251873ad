"""What holds at the end of every history, read from the log, the bucket, the database and the provider's account."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from typing import Any

import asyncpg

from giclee.bus.outbox import EXACTLY_ONCE
from giclee.bus.transport import NUMBER
from giclee.schemas.events import (
    EVENTS,
    Event,
    ImageApproved,
    ImageCleared,
    ImageGenerated,
    ImageRequested,
    ImageReviewed,
    RequestClosed,
)
from giclee.schemas.topics import topic_of
from tests.interleavings.line import World


@dataclass
class Sent:
    """What clients did, and which of it they were promised an end for."""

    bodies: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    promised: set[str] = field(default_factory=set)

    def invoked(self, body: dict[str, Any]) -> None:
        """A POST whose answer has not come."""
        self.bodies.setdefault(body["request_id"], []).append(body)

    def accepted(self, body: dict[str, Any]) -> None:
        self.promised.add(body["request_id"])

    def published(self, kind: str, body: dict[str, Any]) -> None:
        """A record that the broker acknowledged."""
        if kind == "cancel":
            return
        if body["wanted"] > 0:
            self.invoked(body)
            self.accepted(body)

    def open(self, world: World) -> set[str]:
        """Promised requests without an end."""
        return self.promised - {str(event.request_id) for event in events(world, RequestClosed)}

    def counted(self, closed: RequestClosed) -> dict[str, Any]:
        """Of several bodies with one id the one that the closing is about."""
        bodies = self.bodies[str(closed.request_id)]
        return next((body for body in bodies if body["wanted"] == closed.wanted), bodies[0])


def events(world: World, kind: type[Event]) -> list[Any]:
    """All events of a kind, as a committed reader sees them."""
    records = world.broker.records(topic_of(kind))
    named = [one for one in records if dict(one.headers).get("ce_type", b"").decode() == kind.type_name]
    return [EVENTS[kind.type_name].model_validate_json(one.value or b"") for one in named]


async def broken(sent: Sent, world: World, database: asyncpg.Connection, *, quiet: bool) -> list[str]:
    """Every invariant that does not hold, in a sentence each. `quiet`: there was no fault at all."""
    found = [*_ends(sent, world), *_numbers(world), *_letters(world), *await _status(world, database)]
    for closed in events(world, RequestClosed):
        found += [f"{closed.request_id}: {said}" for said in _request(sent, world, closed)]
    if quiet:
        found += [
            f"{about} was made {times} times without a fault" for about, times in world.fate.made.items() if times > 1
        ]
    return found


def _ends(sent: Sent, world: World) -> Iterator[str]:
    ends = Counter(str(event.request_id) for event in events(world, RequestClosed))
    yield from (f"{rid} has {number} ends" for rid, number in ends.items() if number > 1)
    yield from (f"{rid} has no end" for rid in sent.promised - set(ends))
    yield from (f"{rid} ended and was never asked for" for rid in set(ends) - set(sent.bodies))


def _numbers(world: World) -> Iterator[str]:
    """The exactly-once lane: every number once, none missing."""
    topics = sorted({topic_of(kind) for kind in EXACTLY_ONCE})
    records = [one for topic in topics for one in world.broker.records(topic)]
    numbers = sorted(int(dict(one.headers)[NUMBER].decode().rpartition("/")[2]) for one in records)
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the exactly-once lane has the numbers {numbers}"


def _letters(world: World) -> Iterator[str]:
    """Only what was wrong by itself died: what is invalid, and another's id; each record once."""
    counted = {str(one.request_id): one.request.wanted for one in events(world, ImageCleared)}
    to_die = set()
    for record in world.broker.records(topic_of(ImageRequested)):
        body = json.loads(record.value or b"")
        if body["wanted"] != counted.get(body["request_id"], body["wanted"]) or body["wanted"] == 0:
            to_die.add(record.origin())
    died = set()
    for topic in world.topics():
        for one in world.broker.records(topic) if topic.endswith(".dlq") else ():
            said = {name: text.decode() for name, text in one.headers if name.startswith("dlq-")}
            place = [said[f"dlq-original-{what}"] for what in ("topic", "partition", "offset")]
            died.add(":".join(place))
            if said["dlq-class"] != "invalid":
                yield f"{topic}: {said['dlq-class']} {said['dlq-error-message']}"
    if died != to_die:
        yield f"{sorted(died)} died, {sorted(to_die)} had to"


async def _status(world: World, database: asyncpg.Connection) -> list[str]:
    outcomes = {str(event.request_id): event.outcome for event in events(world, RequestClosed)}
    rows = await database.fetch("SELECT request_id::text, outcome FROM intake.requests")
    shown = {row["request_id"]: row["outcome"] for row in rows}
    return [
        f"{rid} is shown as {shown.get(rid)} and ended {end}" for rid, end in outcomes.items() if shown.get(rid) != end
    ]


def _request(sent: Sent, world: World, closed: RequestClosed) -> Iterator[str]:
    asked = sent.counted(closed)
    approved = [one for one in events(world, ImageApproved) if one.request_id == closed.request_id]
    made = {one.candidate_id for one in _told(world, closed, ImageGenerated)}
    named = {(one.asset_id, one.version) for one in closed.assets}
    if {(one.asset_id, one.version) for one in approved} != named or len(approved) != len(named):
        yield f"approved {len(approved)}, and the closing names {len(named)} others"
    if len(approved) > asked["wanted"] or closed.approved != len(approved):
        yield f"{len(approved)} approved, {closed.approved} counted, {asked['wanted']} wanted"
    if (closed.outcome == "approved") != (len(approved) == asked["wanted"]) and closed.outcome != "cancelled":
        yield f"{closed.outcome} with {len(approved)} of {asked['wanted']}"
    before = asked["selection"] == "first"  # then what had passed by the time of a cancel stays
    if closed.outcome in ("refused", "failed", "expired", *(() if before else ("cancelled",))) and approved:
        yield f"{closed.outcome} with {len(approved)} approvals"
    if closed.outcome == "expired":
        yield "it expired although nothing was in its way"
    if len(made) > asked["max_candidates"]:
        yield f"{len(made)} candidates, {asked['max_candidates']} allowed"
    images = Counter((one.candidate_id, one.hop) for one in _told(world, closed, ImageGenerated))
    yield from (f"{one} images of candidate {about}" for about, one in images.items() if one > 1)
    looked = {one.candidate_id: one for one in _told(world, closed, ImageReviewed)}
    passed = {candidate for candidate, one in looked.items() if one.verdict == "pass"}
    for one in approved:
        if (one.approval.by == "reviewer") != (one.candidate_id in passed and not one.approval.sampled):
            yield f"{one.asset_id} was approved by {one.approval.by}"
        if any(score.verdict != "pass" for score in one.scores.values()) and one.candidate_id not in passed:
            yield f"{one.asset_id} was approved without passing"
        for ref in (one.image, *one.derivatives):
            body = world.blobs.stored.get(ref.key)
            if body is None or sha256(body).hexdigest() != ref.sha256:
                yield f"{ref.key} is not what was approved"
    yield from _money(asked, world.fate.paid.get(asked["prompt"], Decimal(0)), closed)


def _told(world: World, closed: RequestClosed, kind: type[Event]) -> list[Any]:
    """What was said about a request, each thing once however often it was sent."""
    mine = [one for one in events(world, kind) if one.request_id == closed.request_id]
    return list({one.model_dump_json(exclude={"envelope"}): one for one in mine}.values())


def _money(asked: dict[str, Any], paid_usd: Decimal, closed: RequestClosed) -> Iterator[str]:
    budget = asked.get("budget_usd")
    if budget is not None and paid_usd > Decimal(budget):
        yield f"paid {paid_usd} of a budget of {budget}"
    if closed.policy_version and closed.cost_usd < paid_usd:
        yield f"paid {paid_usd}, and the closing says {closed.cost_usd}"
