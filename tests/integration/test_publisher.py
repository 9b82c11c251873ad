"""The publisher on a real Postgres: facts stored, orders decided once, whatever order and however often events come."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from itertools import permutations

import pytest

from giclee.bus.errors import Poison, Transient
from giclee.publisher.belief import Belief
from giclee.publisher.rates import Counts
from giclee.publisher.standing import Pace
from giclee.publisher.store import Store
from giclee.publisher.sweep import Sweeper
from giclee.schemas.events import CandidatesRequested, Event
from tests.kit.wait import until
from tests.unit.publisher.builders import Request
from tests.unit.publisher.desk import PUBLIC_URL, Desk, desk, request

pytestmark = pytest.mark.real


async def test_a_passing_image_becomes_an_asset_with_its_evidence(publisher: Desk) -> None:
    """Approval, asset and closing come of one decision and carry everything that led to it."""
    asked = request(wanted=1, first_wave=2)
    await publisher.tell(
        asked.cleared(),
        asked.generated(0, spent_usd="0.004"),
        asked.scored(0, 0.8),
        asked.generated(1, spent_usd="0.006"),
        asked.scored(1, 0.2, passes=False),
    )

    (approval,) = await publisher.approvals(asked)
    assert (approval.version, approval.status, approval.seed) == (1, "approved", 100)
    assert approval.labels == {"campaign": "winter"}
    assert approval.client_ref == "order-7"
    assert approval.cost_usd == Decimal("0.004")
    assert approval.model.weights_sha256 == "ab"
    assert approval.scores["alignment"].value == 0.8
    assert (approval.approval.by, approval.approval.gate_version, approval.approval.policy_version) == (
        "gate",
        "g1",
        "p1",
    )
    assert approval.links.self == f"{PUBLIC_URL}/v1/assets/{approval.asset_id}"
    assert approval.image.key.startswith(f"assets/default/{asked.id}/")
    assert approval.image.sha256 == asked.image(0).sha256
    assert await publisher.blobs.get(approval.image)
    (thumbnail,) = approval.derivatives
    assert (thumbnail.role, thumbnail.content_type, thumbnail.width, thumbnail.height) == (
        "thumbnail",
        "image/webp",
        32,
        16,
    )
    assert await publisher.blobs.get(thumbnail)

    closed = await publisher.closing(asked)
    assert (closed.outcome, closed.wanted, closed.candidates, closed.approved) == ("approved", 1, 2, 1)
    assert [(one.asset_id, one.version) for one in closed.assets] == [(approval.asset_id, 1)]
    assert (closed.cost_usd, closed.cost_final, closed.cost_per_approved_usd) == (
        Decimal("0.01"),
        True,
        Decimal("0.01"),
    )
    assert closed.rejected == {"alignment": 1}
    assert (closed.policy_version, closed.gate_version) == ("p1", "g1")
    rows = await publisher.pool.fetch("SELECT DISTINCT xmin::text FROM publisher.outbox WHERE lane = 'transactional'")
    assert len(rows) == 1  # one transaction


def _line(asked: Request) -> list[Event]:
    return [
        asked.cleared(),
        asked.generated(0),
        asked.scored(0, 0.7),
        asked.generated(1, spent_usd="0.005"),
        asked.scored(1, 0.9),
    ]


async def _summary(publisher: Desk, asked: Request) -> tuple[object, ...]:
    closed = await publisher.closing(asked)
    return closed.outcome, closed.candidates, closed.cost_usd, closed.cost_final, len(closed.assets)


async def test_every_order_of_events_each_twice_gives_one_closing(publisher: Desk) -> None:
    """120 orders, every event delivered twice: the same end each time, the same picture chosen, once."""
    requests = [(request(wanted=1, first_wave=2), places) for places in permutations(range(5))]

    async def line(asked: Request, places: tuple[int, ...]) -> tuple[object, ...]:
        events = _line(asked)
        for place in places:
            await publisher.tell(events[place], events[place])
        (approval,) = await publisher.approvals(asked)
        assert approval.image.sha256 == asked.image(1).sha256
        return await _summary(publisher, asked)

    seen = set(await asyncio.gather(*(line(*one) for one in requests)))
    assert seen == {("approved", 2, Decimal("0.009"), True, 1)}


@pytest.mark.parametrize("lost", range(5))
async def test_an_event_that_never_comes(publisher: Desk, lost: int) -> None:
    """Whichever event is lost for ever, the sweeper or intake's clock ends the order with what there is."""
    asked = request(wanted=1, first_wave=2)
    events = _line(asked)
    del events[lost]
    await publisher.tell(*events)
    await publisher.age(asked, 72 * 3600 + 1)
    await publisher.sweeper.sweep()
    if lost == 0:
        assert await publisher.closings(asked) == []  # nobody knows what was asked
        await publisher.tell(asked.cancel("expired", complete=True))

    closed = await publisher.closing(asked)
    assert (closed.outcome, closed.approved) == (("expired", 0) if lost == 0 else ("approved", 1))


async def test_two_publishers_on_one_order_close_it_once(database: str) -> None:
    """Two replicas get the same events at the same time in different orders: one closing, no asset twice."""
    dice = random.Random(11)
    async with desk(database) as one, desk(database, one.blobs) as two:
        requests = [request(wanted=2, first_wave=3, selection=dice.choice(["best", "first"])) for _ in range(40)]
        work = []
        for asked in requests:
            events = [*_line(asked), asked.generated(2), asked.scored(2, passes=dice.random() < 0.5)]
            work += [replica.tell(event) for replica in (one, two) for event in events]
        dice.shuffle(work)
        await asyncio.gather(*work)

        for asked in requests:
            closed, approvals = await one.closing(asked), await one.approvals(asked)
            assert (closed.outcome, closed.approved) == ("approved", 2)
            assert {a.asset_id for a in approvals} == {name.asset_id for name in closed.assets}
            assert len(approvals) == 2
        assert await one.fetchval("SELECT count(*) FROM publisher.assets") == 2 * len(requests)


@pytest.mark.parametrize("place", range(6))
async def test_a_cancel_at_every_point(publisher: Desk, place: int) -> None:
    """A cancel ends an order wherever it comes in, before the closing; after it, it changes nothing."""
    asked = request(wanted=1, first_wave=2)
    events = _line(asked)
    events.insert(place, asked.cancel(note="changed my mind"))
    await publisher.tell(*events)

    closed = await publisher.closing(asked)
    if place == 5:
        assert closed.outcome == "approved"
    else:
        assert closed.outcome == "cancelled"
        assert await publisher.approvals(asked) == []
        assert closed.reasons[0].message == "changed my mind"


async def test_a_cancel_with_the_requests_fields_closes_at_once(publisher: Desk) -> None:
    """Intake's cancel needs nobody else: it names what was wanted and when (rule 15)."""
    asked = request(wanted=3)
    await publisher.tell(asked.cancel("user", complete=True))
    closed = await publisher.closing(asked)
    await publisher.tell(asked.cleared())

    assert (closed.outcome, closed.wanted, closed.cost_usd, closed.candidates) == ("cancelled", 3, Decimal(0), 0)
    assert closed.labels == {"campaign": "winter"}
    assert len(await publisher.closings(asked)) == 1


async def test_a_cancel_touches_no_other_tenant(publisher: Desk) -> None:
    """The same request id of another tenant is another request."""
    mine = request()
    other = Request(closes_by=mine.closes_by, tenant="acme")
    other.id = mine.id
    other.echo["request_id"] = mine.id
    await publisher.tell(mine.cleared(), other.cleared(), other.cancel())

    assert [closed.tenant for closed in await publisher.closings()] == ["acme"]


async def test_a_refusal_closes_with_policys_reasons(publisher: Desk) -> None:
    """The caller reads why."""
    asked = request()
    await publisher.tell(asked.refused())

    closed = await publisher.closing(asked)
    assert (closed.outcome, closed.reasons[0].rule, closed.cost_final) == ("refused", "blocked-terms", True)


async def test_money_is_settled_cost_plus_limits_of_those_out(publisher: Desk) -> None:
    """Rule 4: the largest sum ever reported counts, the rest at its limit, and the closing says it is not final."""
    asked = request(wanted=1, first_wave=4, limit_usd="0.02")
    await publisher.tell(
        asked.cleared(),
        asked.generated(0, spent_usd="0.004"),
        asked.failed(0, spent_usd="0.011"),  # ignored as an outcome, heard as a cost
        asked.failed(1, spent_usd="0.003"),
        asked.stalled(2, paid_usd="0.015"),  # not settled: its limit counts
        asked.cancel(),
    )

    closed = await publisher.closing(asked)
    assert closed.cost_usd == Decimal("0.011") + Decimal("0.003") + Decimal("0.02") + Decimal("0.02")
    assert closed.cost_final is False


async def test_a_rejected_set_is_replaced_until_the_cap(publisher: Desk) -> None:
    """Waves go out on the plain lane with contiguous indices; the end says what kept images from passing."""
    asked = request(wanted=1, max_candidates=3, selection="first")
    await publisher.tell(asked.cleared())
    for index in range(3):
        await publisher.tell(asked.generated(index), asked.scored(index, 0.1, passes=False))

    assert await publisher.waves(asked) == [(1, 1, 1), (2, 2, 1)]
    closed = await publisher.closing(asked)
    assert (closed.outcome, closed.candidates, closed.rejected) == ("failed", 3, {"alignment": 3})
    assert [reason.code for reason in closed.reasons] == ["cap_reached", "dimension_failed"]
    lanes = await publisher.pool.fetch("SELECT DISTINCT lane FROM publisher.outbox WHERE topic LIKE '%requested%'")
    assert [row["lane"] for row in lanes] == ["plain"]


async def test_what_orders_come_to_is_believed_of_the_next(publisher: Desk) -> None:
    """Counted once per closing, shared through the database, by asset type, quality and model; waves grow with it."""
    for _ in range(3):
        asked = request(wanted=1, max_candidates=4)
        await publisher.tell(asked.cleared())
        for index in range(4):
            await publisher.tell(asked.generated(index), asked.scored(index, 0.1, passes=False))
            await publisher.tell(asked.scored(index, 0.1, passes=False))
    other = Store(publisher.pool, Pace(), PUBLIC_URL)
    await publisher.store.rates.share(publisher.store)
    await publisher.store.rates.share(publisher.store)
    await other.rates.share(other)
    belief = other.rates.beliefs["generic", "final", "shapes-final@r1"]
    asked = request(wanted=1, max_candidates=20)
    await publisher.tell(asked.cleared(), asked.generated(0), asked.scored(0, 0.1, passes=False))

    assert (belief.passes, belief.fails) == (1.0, 1.0 + 12)
    assert other.rates.beliefs["generic", "final", ""] == belief
    assert await publisher.waves(asked) == [(1, 1, 4)]


async def test_counts_wait_for_a_database_that_is_away(publisher: Desk) -> None:
    """Nothing of them is lost or counted twice."""
    asked = request(wanted=1)
    await publisher.tell(asked.cleared(), asked.generated(0), asked.scored(0))

    class Away:
        async def add_rates(self, fresh: Counts) -> Counts:
            raise Transient("away")

    rates = publisher.store.rates
    with pytest.raises(Transient):
        await rates.share(Away())
    await rates.share(publisher.store)
    assert rates.beliefs["generic", "final", ""] == Belief(2.0, 1.0)


async def test_a_draft_that_goes_on_as_final_says_so(publisher: Desk) -> None:
    """The wave asks for the final quality at its limit; the approval lists the difference."""
    asked = request(wanted=1, max_candidates=5, quality="draft", limit_usd="0.001", escalation_limit_usd="0.004",
                    first_wave=3)  # fmt: skip
    await publisher.tell(asked.cleared())
    for index in range(3):
        await publisher.tell(asked.generated(index), asked.scored(index, 0.1, passes=False))
    (wave,) = [one for one in await publisher.emitted(asked) if isinstance(one, CandidatesRequested)]
    await publisher.tell(asked.generated(3), asked.scored(3), asked.generated(4), asked.scored(4))
    (approval,) = await publisher.approvals(asked)

    assert (wave.request.quality, wave.limit_usd, wave.request.limit_usd) == ("final", Decimal("0.004"), wave.limit_usd)
    assert [(one.field, one.asked, one.used) for one in approval.adjustments] == [("quality", "draft", "final")]


def looks(seed: int, flips: int = 0) -> str:
    """A fingerprint, with so many of its bits turned."""
    dice = random.Random(seed)
    bits = dice.getrandbits(768)
    for bit in dice.sample(range(768), flips):
        bits ^= 1 << bit
    return f"{bits:0192x}"


async def test_of_near_duplicates_in_an_order_the_best_counts(publisher: Desk) -> None:
    """The other is refused by name, and another image is asked for in its place."""
    asked = request(wanted=2)
    await publisher.tell(asked.cleared(), asked.generated(0), asked.scored(0, 0.7, phash=looks(1)))
    await publisher.tell(asked.generated(1), asked.scored(1, 0.9, phash=looks(1, flips=6)))
    assert await publisher.waves(asked) == [(1, 2, 1)]
    await publisher.tell(asked.generated(2), asked.scored(2, 0.8, phash=looks(1, flips=60)))
    closed = await publisher.closing(asked)

    assert {one.seed - 100 for one in await publisher.approvals(asked)} == {1, 2}
    assert (closed.outcome, closed.rejected) == ("approved", {"near_duplicate": 1})


async def test_what_the_tenant_has_already_is_not_approved_again(publisher: Desk) -> None:
    """Nearly the same as an asset of an earlier order: refused, whatever its score; another tenant's does not count."""
    first, second, other = (request(wanted=1, copies="tenant", tenant=t) for t in ("acme", "acme", "zeta"))
    for asked in (first, second, other):
        await publisher.tell(
            asked.cleared(), asked.generated(0), asked.scored(0, phash=looks(1, flips=asked is second))
        )
    assert [len(await publisher.approvals(one)) for one in (first, second, other)] == [1, 0, 1]
    await publisher.tell(second.generated(1), second.scored(1, 0.6, phash=looks(2)))
    (approval,) = await publisher.approvals(second)

    assert approval.seed == 101
    assert (await publisher.closing(second)).rejected == {"near_duplicate": 1}


async def test_who_allows_copies_gets_them(publisher: Desk) -> None:
    """An order that is compared with itself only, or with nothing."""
    first, second, third = (request(wanted=1, copies=word) for word in ("tenant", "order", "allow"))
    for asked in (first, second, third):
        await publisher.tell(asked.cleared(), asked.generated(0), asked.scored(0, phash=looks(1)))

    assert [len(await publisher.approvals(one)) for one in (first, second, third)] == [1, 1, 1]


async def test_of_two_orders_with_the_same_picture_one_gets_it(database: str) -> None:
    """Decided at the same time, in one transaction or at two replicas: never both, and both end."""
    asked = {"wanted": 1, "copies": "tenant", "max_candidates": 1}
    async with desk(database) as one, desk(database) as two:
        pairs = [(request(**asked), request(**asked)) for _ in range(20)]
        work = []
        for number, pair in enumerate(pairs):
            for publisher, mine in zip((one, two), pair, strict=True):
                events = (mine.cleared(), mine.generated(0), mine.scored(0, phash=looks(number)))
                work.append(publisher.tell(*events))
        await asyncio.gather(*work)
        for pair in pairs:
            assert sorted([(await one.closing(mine)).outcome for mine in pair]) == ["approved", "failed"]


async def test_the_sweeper_repeats_hedges_and_expires(publisher: Desk) -> None:
    """By the database's time: repeat and hedge at 5 minutes, repeat at 15, end at the closing time (rules 3, 5)."""
    asked = request(wanted=1, closes_in_s=7200)
    await publisher.tell(asked.cleared())
    assert await publisher.sweeper.sweep() == 0
    await publisher.age(asked, 301)
    assert await publisher.sweeper.sweep() == 1
    assert await publisher.waves(asked) == [(0, 0, 1), (1, 1, 1)]
    assert await publisher.sweeper.sweep() == 0
    await publisher.age(asked, 301)
    await publisher.sweeper.sweep()
    assert (await publisher.waves(asked))[2:] == [(1, 1, 1)]  # the hedge is late now; wave 0 waits for 15 minutes
    await publisher.age(asked, 301)
    await publisher.sweeper.sweep()
    assert (await publisher.waves(asked))[3:] == [(0, 0, 1)]
    await publisher.age(asked, 7200)
    await publisher.sweeper.sweep()

    closed = await publisher.closing(asked)
    assert (closed.outcome, closed.candidates, closed.cost_final) == ("expired", 2, False)


async def test_the_sweeper_wakes_only_orders_with_a_verdict(publisher: Desk) -> None:
    """An order that nobody cleared is intake's to end."""
    asked = request()
    await publisher.tell(asked.generated(0), asked.cancel())
    await publisher.age(asked, 80 * 3600)

    assert await publisher.sweeper.sweep() == 0


async def test_two_sweepers_share_the_work(database: str) -> None:
    """Due orders go to one of two sweepers each, and every one is looked at."""
    async with desk(database) as one, desk(database, one.blobs) as two:
        requests = [request(wanted=1, closes_in_s=100) for _ in range(60)]
        await asyncio.gather(*(one.tell(asked.cleared()) for asked in requests))
        for asked in requests:
            await one.age(asked, 200)
        counts = await asyncio.gather(one.sweeper.sweep(), two.sweeper.sweep())

        assert sum(counts) == 60
        assert len(await one.closings()) == 60


async def test_the_sweeper_seals_what_a_crash_left(publisher: Desk) -> None:
    """A passer whose handler died before sealing is sealed and approved by the sweeper."""
    asked = request(wanted=1)

    class Dies:
        async def seal(self, *_: object) -> None:
            raise asyncio.CancelledError

    whole, publisher.sealer = publisher.sealer, Dies()  # type: ignore[assignment]
    await publisher.tell(asked.cleared(), asked.generated(0))
    with pytest.raises(asyncio.CancelledError):
        await publisher.tell(asked.scored(0))
    publisher.sealer = whole
    assert await publisher.closings(asked) == []
    await publisher.age(asked, 61)
    await publisher.sweeper.sweep()

    assert (await publisher.closing(asked)).outcome == "approved"


async def test_a_picture_that_is_gone_is_its_own_events_fault(publisher: Desk) -> None:
    """The record that completes it is poison; the order's other events go on, and so does the clock."""
    asked = request(wanted=1, first_wave=2, closes_in_s=3600)
    await publisher.tell(asked.cleared(), asked.generated(0), asked.generated(1))
    del publisher.blobs.stored[asked.image(0).key]
    with pytest.raises(Poison):
        await publisher.tell(asked.scored(0, 0.9))
    await publisher.tell(asked.scored(1, 0.8))
    assert await publisher.closings(asked) == []
    await publisher.age(asked, 3601)
    await publisher.sweeper.sweep()

    (approval,) = await publisher.approvals(asked)
    assert approval.image.sha256 == asked.image(1).sha256


async def test_unclaimed_cancels_are_forgotten_after_a_week(publisher: Desk) -> None:
    """A cancel of a request that never comes does not stay for ever; whatever else is known does."""
    unheard, heard = request(), request()
    await publisher.tell(unheard.cancel(), heard.cancel(), heard.generated(0))
    for asked in (unheard, heard):
        await publisher.age(asked, 8 * 86_400)
    await publisher.store.forget_unclaimed()

    assert await publisher.fetchval("SELECT array_agg(request_id) FROM publisher.orders") == [heard.id]


async def test_one_event_that_cannot_be_stored_fails_alone(publisher: Desk) -> None:
    """Events share a transaction; one that the database refuses takes no other down."""
    good, bad = request(), request()
    broken = bad.stalled(0)
    object.__setattr__(broken, "stage", "nul\x00")
    done = await asyncio.gather(
        publisher.tell(good.cleared()), publisher.tell(broken), publisher.tell(good.cancel()), return_exceptions=True
    )

    assert [type(one) for one in done] == [type(None), Poison, type(None)]
    assert (await publisher.closing(good)).outcome == "cancelled"


async def test_the_sweeper_runs_until_cancelled(publisher: Desk) -> None:
    """As background work it keeps sweeping by itself."""
    asked = request(wanted=1, closes_in_s=60)
    await publisher.tell(asked.cleared())
    await publisher.age(asked, 120)
    running = asyncio.create_task(Sweeper(publisher.store, publisher.sealer, 0.05).run())
    await until(lambda: publisher.closings(asked))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
