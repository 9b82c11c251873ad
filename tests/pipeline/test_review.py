"""Contract rule 18 in the running line: a doubt goes to people, the request is in review, and their word decides."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from giclee.publisher.review_queue import Filters, Said
from giclee.schemas.events import ImageApproved, ImageReviewed, ReviewRequested
from tests.kit.pipeline import Line, running
from tests.kit.wait import until


async def shown(line: Line, rid: uuid.UUID) -> tuple[str, dict[str, Any]]:
    """The state of a request and its progress, as a caller sees them."""
    row = await line.pool.fetchrow(
        "SELECT state, shown -> 'progress' AS p FROM intake.requests WHERE request_id = $1", rid
    )
    return (row["state"], row["p"]) if row else ("pending", {})


async def in_review(line: Line, rid: uuid.UUID) -> bool:
    return (await shown(line, rid))[0] == "in-review"


async def judge(line: Line, verdict: str) -> None:
    """A reviewer takes the next image and says what they think; eleven seconds go by."""
    (row,) = await line.reviews[0].lease("default", "mira", Filters(limit=1))
    said = Said(reviewer="mira", verdict=verdict, sha256=row["sha256"], reason_codes=("hands",), note="so", seconds=2.0)
    assert await line.reviews[1].give("default", row["candidate_id"], said)
    await line.pool.execute(
        """UPDATE publisher.reviews SET effective_at = effective_at - interval '11 s',
        look_at = look_at - interval '11 s' WHERE state = 'given'"""
    )
    await line.sweep()


@pytest.mark.parametrize(("verdict", "outcome"), [("pass", "approved"), ("fail", "failed")])
async def test_a_doubt_is_decided_by_a_person(database: str, verdict: str, outcome: str) -> None:
    """Request, doubt, in-review; a person's pass becomes an approval with its evidence, a fail ends the request."""
    async with running(database, judged=lambda event: None if event.index == 1 else False) as line:
        rid = await line.ask(wanted=1, max_candidates=3)
        await until(lambda: in_review(line, rid))
        await line.quiet()
        _, progress = await shown(line, rid)
        assert (progress["in_review"], progress["rejected"], progress["approved"]) == (1, 2, 0)
        (asked,) = line.of(ReviewRequested, rid)
        await judge(line, verdict)
        closed = await line.closed(rid)

        (reviewed,) = line.of(ImageReviewed, rid)
        assert (reviewed.candidate_id, reviewed.verdict, reviewed.reviewer) == (asked.candidate_id, verdict, "mira")
        assert (closed.outcome, closed.candidates) == (outcome, 3)
        approvals = line.of(ImageApproved, rid)
        assert [one.candidate_id for one in approvals] == ([asked.candidate_id] if verdict == "pass" else [])
        for one in approvals:
            by = one.approval
            assert (by.by, by.reviewer, by.reason_codes, by.note) == ("reviewer", "mira", ("hands",), "so")
            assert await line.blobs.get(one.image)
        state, progress = await shown(line, rid)
        assert (state, progress["in_review"], progress["approved"]) == (outcome, 0, len(approvals))


async def test_people_are_not_asked_while_machines_can_do_it(database: str) -> None:
    """With room for more the line makes another image, and nobody is disturbed."""
    async with running(database, judged=lambda event: None if event.index < 2 else True) as line:
        rid = await line.ask(wanted=1)
        closed = await line.closed(rid)

        assert (closed.outcome, closed.candidates) == ("approved", 3)
        asked = [one for one in line.of(ReviewRequested, rid) if one.reasons[0].code != "review_sample"]
        assert asked == []  # one approval of fifty is looked at afterwards, whatever machines could do
