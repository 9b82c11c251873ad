"""Reviews on a real Postgres: asked once, leased to one, judged, undone, taken into effect, withdrawn; and who wins."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from giclee.publisher.facts import override_fact
from giclee.publisher.review_queue import Conflict, Filters, Said
from giclee.publisher.store import Lesson
from giclee.schemas.events import ImageReviewed, ImageRevoked, ReviewRequested
from giclee.schemas.parts import ReviewTerms, candidate_id
from tests.unit.publisher.builders import Request
from tests.unit.publisher.desk import Desk, desk, request

pytestmark = pytest.mark.real
TENANT = "default"


async def doubted(publisher: Desk, count: int = 1, **asked: Any) -> Request:
    """An order of one image that has nothing but doubts, and no room for more."""
    one = request(**{"wanted": 1, "first_wave": count, "max_candidates": count, **asked})
    await publisher.tell(one.cleared())
    for index in range(count):
        await publisher.tell(one.generated(index), one.doubted(index, 0.6 - 0.01 * index))
    return one


def said(asked: Request, index: int = 0, verdict: str = "pass", by: str = "mira") -> Said:
    codes = ("on-brief",) if verdict == "pass" else ("hands",)
    return Said(
        reviewer=by, verdict=verdict, sha256=asked.image(index).sha256, reason_codes=codes, note="fine", seconds=4.5
    )


def about(asked: Request, index: int = 0) -> uuid.UUID:
    return candidate_id(asked.tenant, asked.id, index)


async def give(publisher: Desk, asked: Request, index: int = 0, verdict: str = "pass", by: str = "mira") -> None:
    assert await publisher.store.reviews.give(TENANT, about(asked, index), said(asked, index, verdict, by))


async def undone_time(publisher: Desk) -> None:
    """Eleven seconds go by for every verdict that was given."""
    await publisher.pool.execute(
        """UPDATE publisher.reviews SET given_at = given_at - interval '11 s',
        effective_at = effective_at - interval '11 s', look_at = look_at - interval '11 s' WHERE state = 'given'"""
    )


async def state(publisher: Desk, asked: Request, index: int = 0) -> str:
    found = await publisher.store.reviews.one(TENANT, about(asked, index))
    return str(found["state"])


async def refused(publisher: Desk, asked: Request, what: Said | str) -> str:
    """The code with which a verdict, or an undo by somebody, is refused."""
    with pytest.raises(Conflict) as caught:
        if isinstance(what, Said):
            await publisher.store.reviews.give(TENANT, about(asked), what)
        else:
            await publisher.store.reviews.undo(TENANT, about(asked), what)
    return caught.value.code


async def of(publisher: Desk, asked: Request, kind: type[Any]) -> list[Any]:
    return [event for event in await publisher.emitted(asked) if isinstance(event, kind)]


async def test_a_doubt_is_asked_about_once_with_reasons_and_a_due_time(publisher: Desk) -> None:
    """One ReviewRequested a candidate on the plain lane, whatever is delivered again; the order stays open."""
    asked = await doubted(publisher, 2)
    await publisher.tell(asked.doubted(0), asked.generated(1), asked.cleared())
    requests = await of(publisher, asked, ReviewRequested)

    assert sorted(one.index for one in requests) == [0, 1]
    first = requests[0]
    assert (first.sha256, first.image) == (asked.image(0).sha256, asked.image(0))
    assert [(r.code, r.dimension) for r in first.reasons] == [("review_doubt", None), ("dimension_unsure", "alignment")]
    assert first.due_at is not None and first.due_at < asked.closes_by
    lanes = await publisher.pool.fetch("SELECT DISTINCT lane FROM publisher.outbox")
    assert [row["lane"] for row in lanes] == ["plain"]
    assert await publisher.closings(asked) == []


async def test_a_pass_takes_effect_by_the_clock_and_is_approved_with_its_evidence(publisher: Desk) -> None:
    """Not before ten seconds; then the image is sealed, approved by the reviewer, and the verdict is an event."""
    asked = await doubted(publisher)
    await give(publisher, asked)
    await publisher.sweeper.sweep()
    assert (await state(publisher, asked), await publisher.closings(asked)) == ("given", [])
    await undone_time(publisher)
    await publisher.sweeper.sweep()

    (approval,) = await publisher.approvals(asked)
    said_so = approval.approval
    assert (said_so.by, said_so.reviewer, said_so.reason_codes, said_so.note) == (
        "reviewer",
        "mira",
        ("on-brief",),
        "fine",
    )
    assert approval.scores["alignment"].verdict == "unsure"
    assert approval.image.sha256 == asked.image(0).sha256
    assert (await publisher.closing(asked)).outcome == "approved"
    (event,) = await of(publisher, asked, ImageReviewed)
    assert (event.verdict, event.reviewer, event.seconds, event.sha256) == ("pass", "mira", 4.5, asked.image(0).sha256)
    assert await state(publisher, asked) == "done"


async def test_a_fail_rejects_and_the_closing_says_so(publisher: Desk) -> None:
    """The last doubt that people fail ends the order by what kept it from more."""
    asked = await doubted(publisher)
    await give(publisher, asked, verdict="fail")
    await undone_time(publisher)
    await publisher.sweeper.sweep()

    closed = await publisher.closing(asked)
    assert (closed.outcome, closed.rejected) == ("failed", {"review_failed": 1})
    assert {reason.code for reason in closed.reasons} == {"cap_reached", "review_failed"}


async def test_the_end_of_an_order_withdraws_what_nobody_has_judged(publisher: Desk) -> None:
    """At `closes_by` pending and not yet effective verdicts are withdrawn: 409, nothing comes of them."""
    asked = await doubted(publisher, 2)
    await give(publisher, asked, 0)
    await publisher.age(asked, 259_300)
    await publisher.sweeper.sweep()

    closed = await publisher.closing(asked)
    assert closed.outcome == "expired"
    assert ("review_withdrawn", 2) in {(reason.code, reason.count) for reason in closed.reasons}
    assert [await state(publisher, asked, index) for index in (0, 1)] == ["withdrawn", "withdrawn"]
    assert await refused(publisher, asked, said(asked)) == "review_withdrawn"
    assert await refused(publisher, asked, "mira") == "review_withdrawn"
    await undone_time(publisher)
    await publisher.sweeper.sweep()
    assert await of(publisher, asked, ImageReviewed) == []


async def test_reviewers_who_lease_at_once_get_different_images(publisher: Desk) -> None:
    """Forty images, eight reviewers at the same time, each five: every image exactly once, the soonest due first."""
    await doubted(publisher, 40)
    leases = await asyncio.gather(
        *(publisher.store.reviews.lease(TENANT, f"r{number}", Filters(limit=5)) for number in range(8))
    )

    got = [row["candidate_id"] for lease in leases for row in lease]
    assert len(got) == len(set(got)) == 40
    assert {row["leased_by"] for lease in leases for row in lease} == {f"r{number}" for number in range(8)}
    assert await publisher.store.reviews.lease(TENANT, "late", Filters(limit=5)) == []


async def test_a_lease_keeps_others_out_until_it_expires(publisher: Desk) -> None:
    """Its holder may judge and renew; another is refused, and gets it when the time is over."""
    asked = await doubted(publisher)
    reviews = publisher.store.reviews
    assert len(await reviews.lease(TENANT, "mira", Filters(limit=5))) == 1
    assert await refused(publisher, asked, said(asked, by="noor")) == "review_leased"
    assert await reviews.renew(TENANT, "noor", [about(asked)]) == []
    before = (await reviews.one(TENANT, about(asked)))["leased_until"]
    (renewed,) = await reviews.renew(TENANT, "mira", [about(asked)])
    assert renewed["leased_until"] > before
    await publisher.pool.execute("UPDATE publisher.reviews SET leased_until = leased_until - interval '301 s'")
    (row,) = await reviews.lease(TENANT, "noor", Filters(limit=5))

    assert row["leased_by"] == "noor"
    assert await refused(publisher, asked, said(asked, by="mira")) == "review_leased"
    await give(publisher, asked, by="noor")


async def test_of_two_verdicts_at_once_one_counts(publisher: Desk) -> None:
    """Ten pairs of reviewers judge one image each at the same time: one is written, the other is told whose it was."""
    orders = [await doubted(publisher) for _ in range(10)]
    reviews = publisher.store.reviews

    async def judge(asked: Request, by: str, verdict: str) -> str:
        try:
            await reviews.give(TENANT, about(asked), said(asked, verdict=verdict, by=by))
            return by
        except Conflict as conflict:
            return conflict.code

    for asked in orders:
        both = await asyncio.gather(judge(asked, "mira", "pass"), judge(asked, "noor", "fail"))
        row = await reviews.one(TENANT, about(asked))
        assert sorted(both) == sorted([row["reviewer"], "review_decided"])


async def test_the_same_verdict_again_is_no_conflict(publisher: Desk) -> None:
    """A call whose answer was lost can be made again; another verdict by the same person is one."""
    asked = await doubted(publisher)
    await give(publisher, asked)
    await give(publisher, asked)

    assert await refused(publisher, asked, said(asked, verdict="fail")) == "review_decided"


async def test_a_verdict_about_other_bytes_does_not_count(publisher: Desk) -> None:
    """It names the sha256 of what was looked at."""
    asked = await doubted(publisher)
    other = Said(reviewer="mira", verdict="pass", sha256="0" * 64)

    assert await refused(publisher, asked, other) == "review_other_bytes"
    assert await state(publisher, asked) == "pending"


async def test_a_verdict_can_be_undone_for_ten_seconds_by_whoever_gave_it(publisher: Desk) -> None:
    """Then the reviewer has the image again and may say something else; later, or by another, it is refused."""
    asked = await doubted(publisher)
    reviews = publisher.store.reviews
    await give(publisher, asked)
    assert await refused(publisher, asked, "noor") == "review_not_undoable"
    assert await reviews.undo(TENANT, about(asked), "mira")
    row = await reviews.one(TENANT, about(asked))
    assert (row["state"], row["leased_by"], row["verdict"]) == ("pending", "mira", None)
    await give(publisher, asked, verdict="fail")
    await undone_time(publisher)

    assert await refused(publisher, asked, "mira") == "review_not_undoable"


async def test_an_undo_and_the_effect_exclude_each_other(publisher: Desk) -> None:
    """Both at the moment when the time is over, twenty times: the order has the verdict, or the undo was in time."""
    outcomes = set()
    for number in range(20):
        asked = await doubted(publisher)
        await give(publisher, asked)
        # at the edge: some undos come a little before the effect, some a little after it
        await publisher.pool.execute(
            """UPDATE publisher.reviews SET effective_at = clock_timestamp() + make_interval(secs => $2),
            look_at = clock_timestamp() WHERE candidate_id = $1""",
            about(asked),
            0.004 * (number % 5) - 0.004,
        )

        async def undo(asked: Request = asked) -> bool:
            try:
                return await publisher.store.reviews.undo(TENANT, about(asked), "mira")
            except Conflict:
                return False

        was_undone, _ = await asyncio.gather(undo(), publisher.sweeper.sweep())
        reviewed, now = await of(publisher, asked, ImageReviewed), await state(publisher, asked)
        assert (was_undone, now, len(reviewed)) in {(True, "pending", 0), (False, "done", 1), (False, "given", 0)}
        outcomes.add(was_undone)
    assert outcomes == {True, False}


async def test_an_end_and_a_verdict_exclude_each_other(publisher: Desk) -> None:
    """A verdict given while the order is cancelled: withdrawn, whoever came first; it never has an effect."""
    for _ in range(10):
        asked = await doubted(publisher)

        async def judge(asked: Request = asked) -> str:
            try:
                await give(publisher, asked)
                return "given"
            except Conflict as conflict:
                return conflict.code

        answer, _ = await asyncio.gather(judge(), publisher.tell(asked.cancel()))
        assert answer in ("given", "review_withdrawn")
        assert await state(publisher, asked) == "withdrawn"
        assert (await publisher.closing(asked)).outcome == "cancelled"
    await undone_time(publisher)
    await publisher.sweeper.sweep()
    assert await publisher.approvals() == []


async def test_a_verdict_that_is_due_counts_before_the_order_is_looked_at(publisher: Desk) -> None:
    """Whatever wakes the order finds the verdict that can no longer be undone, without waiting for the sweeper."""
    asked = await doubted(publisher)
    await give(publisher, asked, verdict="fail")
    await undone_time(publisher)
    await publisher.tell(asked.doubted(0))

    assert (await publisher.closing(asked)).outcome == "failed"


async def test_two_sweepers_take_a_verdict_into_effect_once(database: str) -> None:
    """Two replicas at the same time: one ImageReviewed, one approval."""
    async with desk(database) as one, desk(database, one.blobs) as two:
        orders = [await doubted(one) for _ in range(8)]
        for asked in orders:
            await give(one, asked)
        await undone_time(one)
        await asyncio.gather(*(replica.sweeper.sweep() for replica in (one, two, one, two)))
        for asked in orders:
            assert len(await of(one, asked, ImageReviewed)) == len(await one.approvals(asked)) == 1


async def test_what_the_gate_failed_needs_two_people(publisher: Desk) -> None:
    """Four eyes: the same person twice, and a call without a name, are refused; the second one's pass counts."""
    asked = request(wanted=1, first_wave=2, max_candidates=2)
    await publisher.tell(asked.cleared(), asked.generated(0), asked.scored(0, 0.4, passes=False))
    lesson = Lesson(tenant=TENANT, request_id=asked.id, facts=[override_fact(0, "mira")])
    await publisher.store.learn(lesson)
    (event,) = await of(publisher, asked, ReviewRequested)
    assert event.reasons[0].code == "review_override"

    assert await refused(publisher, asked, said(asked, by="api-key")) == "review_second_reviewer"
    await give(publisher, asked, by="mira")
    assert await state(publisher, asked) == "pending"
    assert await refused(publisher, asked, said(asked, by="mira")) == "review_second_reviewer"
    assert await publisher.store.reviews.lease(TENANT, "mira", Filters(limit=1)) == []
    await give(publisher, asked, by="noor")
    await undone_time(publisher)
    await publisher.sweeper.sweep()

    await publisher.tell(asked.failed(1, code="no_route"))
    (approval,) = await publisher.approvals(asked)
    assert (approval.approval.by, approval.approval.reviewer) == ("reviewer", "mira, noor")


async def test_either_of_two_can_undo(publisher: Desk) -> None:
    """The second one's undo leaves the first one's pass; the first one's leaves nothing."""
    asked = request(wanted=1, first_wave=2, max_candidates=2)
    await publisher.tell(asked.cleared(), asked.generated(0), asked.scored(0, 0.4, passes=False))
    await publisher.store.learn(Lesson(tenant=TENANT, request_id=asked.id, facts=[override_fact(0, "mira")]))
    reviews = publisher.store.reviews
    for who, left in (("noor", "mira"), ("mira", None)):
        for by in ("mira", "noor"):
            if (await reviews.one(TENANT, about(asked)))["seconded_by"] != by:
                await give(publisher, asked, by=by)
        await reviews.undo(TENANT, about(asked), who)
        row = await reviews.one(TENANT, about(asked))
        assert (row["state"], row["seconded_by"], row["leased_by"]) == ("pending", left, who)
        await publisher.pool.execute("UPDATE publisher.reviews SET leased_by = NULL, leased_until = NULL")


async def test_a_failed_sample_revokes_its_asset(publisher: Desk) -> None:
    """After the order closed: ImageReviewed, then version 2 on the lane of approvals; the evidence stays."""
    asked = request(wanted=1, review=ReviewTerms(share=1.0))
    await publisher.tell(asked.cleared(), asked.generated(0), asked.scored(0))
    (approval,) = await publisher.approvals(asked)
    assert approval.approval.sampled
    assert (await publisher.closing(asked)).outcome == "approved"
    (sample,) = await of(publisher, asked, ReviewRequested)
    assert (sample.reasons[0].code, sample.image.key) == ("review_sample", approval.image.key)
    await publisher.store.reviews.give(
        TENANT,
        about(asked),
        Said(reviewer="mira", verdict="fail", sha256=sample.sha256, reason_codes=("brand",), note="wrong red"),
    )
    await undone_time(publisher)
    await publisher.sweeper.sweep()
    await publisher.sweeper.sweep()

    (revoked,) = await of(publisher, asked, ImageRevoked)
    assert (revoked.asset_id, revoked.version, revoked.reason_code) == (approval.asset_id, 2, "brand")
    assert (revoked.revoked_by, "wrong red" in revoked.reason) == ("mira", True)
    assert {blob.key for blob in revoked.blobs} == {approval.image.key, approval.derivatives[0].key}
    assert len(await of(publisher, asked, ImageReviewed)) == 1
    row = await publisher.pool.fetchrow("SELECT version, status FROM publisher.assets")
    assert row is not None and tuple(row) == (2, "revoked")
    lane = await publisher.fetchval(
        "SELECT lane FROM publisher.outbox WHERE headers->>'ce_type' = 'giclee.ImageRevoked.v1'"
    )
    assert lane == "transactional"


async def test_samples_outlive_their_order(publisher: Desk) -> None:
    """Nothing withdraws a sample, and one that passes changes nothing."""
    asked = request(wanted=1, review=ReviewTerms(share=1.0))
    await publisher.tell(asked.cleared(), asked.generated(0), asked.scored(0))
    assert await state(publisher, asked) == "pending"
    await give(publisher, asked)
    await undone_time(publisher)
    await publisher.sweeper.sweep()

    assert len(await of(publisher, asked, ImageReviewed)) == 1
    assert await of(publisher, asked, ImageRevoked) == []
    assert (await publisher.closing(asked)).approved == 1
