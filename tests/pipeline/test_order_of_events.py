"""Contract 3.2 rules 1 to 4, 6, 7 and 15 in the running line: every event first, last, twice and never."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal

import pytest

from giclee.publisher.standing import Pace
from giclee.schemas.events import (
    CancelRequested,
    CandidatesRequested,
    GenerationFailed,
    ImageApproved,
    ImageCleared,
    ImageGenerated,
    ImageRefused,
    ImageRouted,
    ImageScored,
    RequestClosed,
)
from tests.kit.pipeline import Line, running
from tests.kit.wait import until

WRITTEN = (
    "image.policy-cleared.v1",
    "image.routed.local.v1",
    "image.generated.v1",
    "image.scored.v1",
    "image.candidates-requested.v1",
)
READ_BY_PUBLISHER = tuple(
    f"giclee.publisher:{topic}" for topic in ("image.policy-cleared.v1", "image.generated.v1", "image.scored.v1")
)
QUICK = Pace(late_after_s=0.3, reseal_after_s=0.3, surplus_share=0.0)
"""Lateness within a test's patience; the rule is the same at five minutes."""


def second_try(event: ImageGenerated) -> bool:
    """The first wave's images fail, so that a second wave is needed."""
    return event.index >= 2


def check(line: Line, closed: RequestClosed) -> None:
    """What holds whatever happened on the way."""
    rid = closed.request_id
    approved = line.of(ImageApproved, rid)
    assert max(Counter((one.asset_id, one.version) for one in approved).values(), default=1) == 1
    assert {(one.asset_id, one.version) for one in approved} == {(one.asset_id, one.version) for one in closed.assets}
    assert len(approved) == closed.approved <= closed.wanted
    made = {one.candidate_id for one in line.of(ImageGenerated, rid)}
    assert {one.candidate_id for one in approved} <= made
    if closed.outcome not in ("cancelled",):
        assert closed.cost_usd == Decimal("0.0004") * closed.candidates


@pytest.mark.parametrize("topic", WRITTEN)
async def test_every_event_may_come_twice(database: str, topic: str) -> None:
    """Doubled events make no second image, no second wave, no second approval."""
    async with running(database, judged=second_try, rules={topic: "twice"}) as line:
        rid = await line.ask(wanted=2)
        closed = await line.closed(rid)

        check(line, closed)
        assert (closed.outcome, closed.candidates) == ("approved", 4)
        assert len({one.candidate_id for one in line.of(ImageGenerated, rid)}) == 4
        assert len(line.stub.batches) <= 4


@pytest.mark.parametrize("rule", (*WRITTEN, *READ_BY_PUBLISHER))
async def test_every_event_may_come_last(database: str, rule: str) -> None:
    """Whatever arrives after everything else changes only when the request closes, not how."""
    async with running(database, judged=second_try, rules={rule: "hold"}) as line:
        rid = await line.ask(wanted=2)
        await until(lambda: line.of(ImageCleared, rid) or line.gate.held)
        await line.quiet()
        assert not line.of(RequestClosed, rid)
        await line.gate.let_go(rule)
        closed = await line.closed(rid)

        check(line, closed)
        assert (closed.outcome, closed.candidates) == ("approved", 4)


@pytest.mark.parametrize("first", ["image.generated.v1", "image.scored.v1"])
async def test_every_event_may_come_first(database: str, first: str) -> None:
    """An order is opened by whatever is heard first, and waits for its verdict."""
    held = {rule: "hold" for rule in READ_BY_PUBLISHER if not rule.endswith(first)}
    async with running(database, rules=held) as line:
        rid = await line.ask(wanted=1)
        await until(lambda: line.of(ImageScored, rid))
        await line.quiet()
        for rule in reversed(list(held)):
            await line.gate.let_go(rule)
        closed = await line.closed(rid)

        check(line, closed)
        assert closed.outcome == "approved"


@pytest.mark.parametrize("topic", WRITTEN[1:])
async def test_an_event_that_never_came_is_asked_for_again(database: str, topic: str) -> None:
    """Silence is not loss: the late candidate's wave is repeated, and nobody pays twice."""
    async with running(database, judged=second_try, rules={topic: "drop"}, pace=QUICK) as line:
        rid = await line.ask(wanted=2)
        await until(lambda: line.of(ImageCleared, rid))
        await line.quiet()
        assert not line.of(RequestClosed, rid)
        del line.gate.rules[topic]
        await _sweep_until_closed(line, rid)
        closed = await line.closed(rid)

        assert closed.outcome == "approved"
        assert max(Counter(one.candidate_id for one in line.of(ImageApproved, rid)).values()) == 1
        paid = {(one.candidate_id, one.hop): one.image.sha256 for one in line.of(ImageGenerated, rid)}
        assert sum(asked for _, asked, _ in line.stub.batches) == len(paid)


async def _sweep_until_closed(line: Line, rid: object, within_s: float = 25.0) -> None:
    async def swept() -> bool:
        await line.sweep()
        return bool(line.of(RequestClosed, rid))  # type: ignore[arg-type]

    await until(swept, within_s)


@pytest.mark.parametrize("point", ("image.requested.v1", *WRITTEN))
async def test_a_cancel_at_every_point_ends_the_request_once(database: str, point: str) -> None:
    """Wherever the request is, the cancel closes it; what comes later changes nothing and costs nothing more."""
    async with running(database, judged=second_try, rules={point: "hold"}) as line:
        rid = await line.ask(wanted=2)
        await until(lambda: line.gate.held.get(point))
        await line.quiet()
        await line.cancel(rid)
        await until(lambda: line.of(CancelRequested, rid))
        await line.quiet()
        painted = sum(asked for _, asked, _ in line.stub.batches)
        await line.gate.let_go(point)
        closed = await line.closed(rid)

        assert (closed.outcome, closed.approved) == ("cancelled", 0)
        assert not line.of(ImageApproved, rid)
        if point not in ("image.requested.v1", "image.policy-cleared.v1"):
            assert sum(asked for _, asked, _ in line.stub.batches) == painted


async def test_a_cancel_after_the_end_changes_nothing(database: str) -> None:
    """The first to close wins."""
    async with running(database) as line:
        rid = await line.ask()
        first = await line.closed(rid)
        await line.cancel(rid)
        await line.quiet()

        assert await line.closed(rid) == first


async def test_a_cancel_touches_no_other_request(database: str) -> None:
    """It names a tenant and an id, and only that request ends."""
    async with running(database, rules={"image.routed.local.v1": "hold"}) as line:
        one, other = await line.ask(), await line.ask()
        await until(lambda: len(line.gate.held.get("image.routed.local.v1", ())) == 2)
        await line.cancel(one)
        await line.cancel(other, tenant="somebody-else")
        await line.gate.let_go("image.routed.local.v1")

        assert (await line.closed(one)).outcome == "cancelled"
        assert (await line.closed(other)).outcome == "approved"


async def test_the_same_request_twice_is_one(database: str) -> None:
    """Two records of one id with the same values lead to one closing and one set of images."""
    async with running(database) as line:
        rid = await line.ask(wanted=1)
        await line.ask(rid, wanted=1)
        closed = await line.closed(rid)

        assert closed.candidates == 1
        assert not line.dead_letters("image.requested.v1")


async def test_the_same_id_with_other_values_is_refused_and_said(database: str) -> None:
    """A conflict is one dead letter of class invalid; the first request goes on untouched."""
    async with running(database) as line:
        rid = await line.ask(wanted=1)
        first = await line.closed(rid)
        await line.ask(rid, wanted=2)
        letters = await until(lambda: line.dead_letters("image.requested.v1"))

        headers = dict(letters[0].headers)
        assert headers["dlq-class"] == b"invalid"
        assert headers["dlq-error-type"] == b"RequestIdConflict"
        assert await line.closed(rid) == first


async def test_a_refused_request_is_closed_as_refused(database: str) -> None:
    """Policy's refusal reaches the closing with its reasons, and nothing is made."""
    async with running(database) as line:
        rid = await line.ask(prompt="<lora:evil:1> a red circle")
        closed = await line.closed(rid)

        assert line.of(ImageRefused, rid)
        assert closed.outcome == "refused"
        assert closed.reasons
        assert not line.of(ImageRouted, rid)


async def test_a_budget_is_never_overshot(database: str) -> None:
    """Money is reserved before a candidate is routed; at its end the request closes with what it has."""
    async with running(database, judged=lambda event: event.index == 1) as line:
        rid = await line.ask(wanted=3, budget_usd="0.0016")
        closed = await line.closed(rid)

        assert closed.cost_usd <= Decimal("0.0016")
        assert closed.outcome == "partial"
        assert closed.approved == 1


async def test_what_no_provider_can_make_fails_with_the_reason(database: str) -> None:
    """A size no model has ends the request at once, and says which model refused it."""
    async with running(database) as line:
        rid = await line.ask(size={"width": 128, "height": 128})
        closed = await line.closed(rid)

        assert closed.outcome == "failed"
        assert line.of(GenerationFailed, rid)
        assert closed.reasons


async def test_a_deadline_that_passes_expires_the_request(database: str) -> None:
    """Past its closing time a request ends with what it has."""
    from datetime import UTC, datetime, timedelta

    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    async with running(database, rules={"image.generated.v1": "hold"}) as line:
        rid = await line.ask(deadline=soon)
        await until(lambda: line.of(ImageCleared, rid))
        await _sweep_until_closed(line, rid)
        closed = await line.closed(rid)

        assert (closed.outcome, closed.approved) == ("expired", 0)


async def test_selection_first_approves_as_they_pass(database: str) -> None:
    """With `first` an image is published although its siblings are still out."""
    async with running(database, judged=lambda event: event.index == 0) as line:
        rid = await line.ask(wanted=2, selection="first", max_candidates=3)
        closed = await line.closed(rid)

        assert closed.outcome == "partial"
        assert len(line.of(ImageApproved, rid)) == 1


async def test_many_requests_at_once_all_end(database: str) -> None:
    """Forty requests through two publishers: forty closings, every approval's blob is there with its hash."""
    async with running(database, judged=lambda event: event.index % 3 > 0) as line:
        ids = [await line.ask(wanted=2) for _ in range(40)]
        closings = await asyncio.gather(*(line.closed(rid, 60) for rid in ids))

        assert all(closed.outcome == "approved" for closed in closings)
        for closed in closings:
            check(line, closed)
            assert all([await line.blobs.get(one.image) for one in line.of(ImageApproved, closed.request_id)])
        assert len(line.events(CandidatesRequested)) == len(
            {(one.request_id, one.wave) for one in line.events(CandidatesRequested)}
        )
