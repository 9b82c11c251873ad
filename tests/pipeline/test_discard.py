"""Rule 11: giving up a dead letter ends what hung on it, decided by the stage that failed, and nothing else."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from functools import partial

import pytest

from giclee.bus import dlq
from giclee.bus.transport import Record
from giclee.schemas.events import GenerationFailed, ImageApproved, ImageGenerated, ImageScored, ImageStalled
from tests.kit.pipeline import PROMPT, Line, running
from tests.kit.wait import until

pytestmark = pytest.mark.real
REQUESTED, CLEARED = "image.requested.v1", "image.policy-cleared.v1"
GENERATED, SCORED = "image.generated.v1", "image.scored.v1"


def letter(stage: str, record: Record, dead_class: str = "poison") -> Record:
    """The dead letter that `stage` would have made of a record."""
    now = "2026-11-21T09:00:00+00:00"
    found = dlq.DeadLetter(
        stage=stage, dead_class=dead_class, error_type="Poison", message="it broke", attempts=1,
        origin=record.origin() if record.offset >= 0 else f"{record.topic}:0:0", timestamp_ms=5, group="g",
        first_failed_at=now, last_failed_at=now, version="0.1.0",
    )  # fmt: skip
    return found.record(record)


async def discard(line: Line, stage: str, record: Record, dead_class: str = "poison") -> None:
    """An operator gives the record up."""
    await line.send(dlq.discard_of(letter(stage, record, dead_class), run_id="r1"))
    await until(lambda: line.gate.inner.lag(f"giclee.{stage}", [record.topic]) == 0)
    await line.quiet()


async def lying_on(line: Line, topic: str, which: Callable[[dict[str, object]], bool] = lambda value: True) -> Record:
    """The first record on a topic whose value is wanted, as soon as it is there."""

    def found() -> list[Record]:
        return [one for one in line.gate.inner.records(topic) if which(json.loads(one.value or b"{}"))]

    records: list[Record] = await until(found, 30)
    return records[0]


def asked(rid: uuid.UUID, **fields: object) -> Record:
    body = {"request_id": str(rid), "prompt": PROMPT, **fields}
    return Record(topic=REQUESTED, key=str(rid).encode(), value=json.dumps(body).encode())


async def test_a_request_without_a_verdict_ends_and_stays_ended(database: str) -> None:
    """It closes as failed with its own fields; a copy of it, or a second discard, begins nothing."""
    rid = uuid.uuid4()
    record = asked(rid, wanted=2, client_ref="mine")
    async with running(database) as line:
        for _ in range(2):
            await discard(line, "policy", record)
        await line.send(record)
        closed = await line.closed(rid)

        assert (closed.outcome, closed.wanted, closed.client_ref) == ("failed", 2, "mine")
        assert [reason.code for reason in closed.reasons] == ["discarded"]
        assert line.gate.inner.records(CLEARED) == []


async def test_a_request_with_a_verdict_is_no_business_of_policys_any_more(database: str) -> None:
    """Discarding its letter, a conflicting one, or one for a projection, ends nothing."""
    async with running(database, rules={GENERATED: "hold"}) as line:
        rid = await line.ask()
        await lying_on(line, CLEARED)
        await discard(line, "policy", asked(rid))
        await discard(line, "policy", asked(rid, prompt="a blue square"), "invalid")
        await discard(line, "intake.status", asked(rid))
        await line.gate.let_go(GENERATED)

        assert (await line.closed(rid)).outcome == "approved"
        assert line.events(ImageStalled) == []


@pytest.mark.parametrize(("cap", "outcome"), [(1, "failed"), (2, "approved")])
async def test_a_wave_without_a_choice_fails_and_the_order_goes_on(database: str, cap: int, outcome: str) -> None:
    """Every index is answered once; where the cap allows, the publisher asks for another candidate (rule 6)."""
    async with running(database, rules={f"giclee.router:{CLEARED}": "replays"}) as line:
        rid = await line.ask(max_candidates=cap)
        await discard(line, "router", await lying_on(line, CLEARED))
        await line.gate.let_go(f"giclee.router:{CLEARED}")  # the record itself comes too late
        closed = await line.closed(rid)

        assert closed.outcome == outcome
        failed = line.of(GenerationFailed, rid)
        assert {(one.index, one.reasons[0].code) for one in failed} == {(0, "discarded")}
        assert ("discarded" in {reason.code for reason in closed.reasons}) is (outcome == "failed")


async def test_a_wave_with_a_choice_is_left_alone(database: str) -> None:
    """The router answers it again as it did."""
    async with running(database, rules={GENERATED: "hold"}) as line:
        rid = await line.ask(max_candidates=1)
        await until(lambda: line.gate.held.get(GENERATED))
        await discard(line, "router", await lying_on(line, CLEARED))
        await line.gate.let_go(GENERATED)

        assert (await line.closed(rid)).outcome == "approved"


@pytest.mark.parametrize(("stage", "topic"), [("scorer", GENERATED), ("publisher", GENERATED), ("publisher", SCORED)])
async def test_a_candidate_ends_where_its_letter_is_given_up(database: str, stage: str, topic: str) -> None:
    """What was paid for it counts, nothing of it is approved, and the closing says why there is none."""
    async with running(database, rules={f"giclee.{stage}:{topic}": "replays"}) as line:
        rid = await line.ask(max_candidates=1)
        record = await lying_on(line, topic)
        await line.quiet()  # an outcome that its reader has not seen yet would count with its limit
        await discard(line, stage, record)
        closed = await line.closed(rid)

        assert (closed.outcome, closed.candidates, str(closed.cost_usd)) == ("failed", 1, "0.0004")
        assert "discarded" in {reason.code for reason in closed.reasons}
        assert line.of(ImageApproved, rid) == []


async def test_a_sealed_candidate_cannot_be_given_up(database: str) -> None:
    """The image is safe and passes: the discard of its letter changes nothing, that of its open sibling ends that."""
    async with running(database, rules={f"giclee.scorer:{GENERATED}": "replays"}) as line:
        rid = await line.ask(wanted=2, max_candidates=2)
        records = [await lying_on(line, GENERATED, partial(_is_of, index)) for index in (0, 1)]
        await line.send(*_for_scorer(records[0]))
        await lying_on(line, SCORED)
        await line.quiet()
        await discard(line, "publisher", await lying_on(line, SCORED))
        await discard(line, "scorer", records[0])
        assert line.of(ImageApproved, rid) == []
        await discard(line, "scorer", records[1])
        closed = await line.closed(rid)

        assert (closed.outcome, closed.approved, closed.candidates) == ("partial", 1, 2)


def _is_of(index: int, value: dict[str, object]) -> bool:
    return value["index"] == index


def _for_scorer(record: Record) -> list[Record]:
    """The record as a replay for the scorer, which nothing here keeps back."""
    return [dlq.replay_of(letter("scorer", record), run_id="r0")]


async def test_what_is_no_event_ends_nothing(database: str) -> None:
    """Giving up a record that nobody can read makes neither an end nor another dead letter."""
    async with running(database) as line:
        rid = uuid.uuid4()
        broken = Record(topic=REQUESTED, key=str(rid).encode(), value=b'{"request_id": "%s"' % str(rid).encode())
        await discard(line, "policy", broken, "invalid")

        assert line.dead_letters(REQUESTED) == []
        assert line.events(ImageStalled) == line.events(ImageScored) == line.events(ImageGenerated) == []
