"""Hedges in the running line (ADR 19): somebody waits, a candidate is silent, another index decides."""

from __future__ import annotations

from giclee.schemas.events import CandidatesRequested, ImageApproved, ImageRouted, RequestClosed
from giclee.schemas.parts import candidate_id
from tests.kit.pipeline import Line, running

GENERATED = "image.generated.v1"


async def a_minute_later(line: Line) -> None:
    """What was waited for has been waited for a minute longer, and the clock looks."""
    await line.pool.execute("UPDATE publisher.facts SET at = at - interval '1 minute' WHERE kind = 'routed'")
    await line.pool.execute("UPDATE publisher.orders SET wake_at = now() WHERE closed_at IS NULL")
    await line.sweep()
    await line.quiet()


async def test_a_silent_candidate_is_hedged_and_its_own_image_comes_too_late(database: str) -> None:
    """The hedge is approved; the first image, late, is paid for and changes nothing."""
    async with running(database, rules={GENERATED: "hold"}) as line:
        rid = await line.ask(priority="interactive", quality="draft")
        await line.quiet()
        assert line.of(CandidatesRequested, rid) == []
        line.gate.rules.clear()
        await a_minute_later(line)
        closed = await line.closed(rid)
        await line.gate.let_go(GENERATED)
        await a_minute_later(line)

        (asked,) = line.of(CandidatesRequested, rid)
        assert (asked.first_index, asked.count, asked.hedges) == (1, 1, ("stub",))
        (approved,) = line.of(ImageApproved, rid)
        assert approved.candidate_id == candidate_id("default", rid, 1)
        assert (closed.outcome, closed.candidates, closed.cost_final) == ("approved", 2, False)
        assert len(line.of(RequestClosed, rid)) == 1
        assert {one.index: one.hedge_after_s is None for one in line.of(ImageRouted, rid)} == {0: False, 1: True}


async def test_work_that_nobody_waits_for_is_not_hedged(database: str) -> None:
    """The same silence of a standard request asks for nothing."""
    async with running(database, rules={GENERATED: "hold"}) as line:
        rid = await line.ask(quality="draft")
        await line.quiet()
        await a_minute_later(line)
        assert line.of(CandidatesRequested, rid) == []
        await line.gate.let_go(GENERATED)

        assert (await line.closed(rid)).candidates == 1
