"""Paid calls on a real Postgres: the shop's bill against ledger, claims and caps, with a death at every step.

A death is what SIGKILL leaves: the worker's tasks end where they are and nothing of its memory survives. Leases expire
by moving rows back in time, never by waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from giclee.bus import database as databases
from giclee.bus import failpoints, telemetry
from giclee.bus.blobs import MemoryBlobs
from giclee.bus.errors import Poison, Transient
from giclee.bus.layers import codec
from giclee.bus.settings import DatabaseSettings
from giclee.bus.transport import Record
from giclee.gpu_worker.batch import Batcher
from giclee.gpu_worker.bill import call_key
from giclee.gpu_worker.calls import Calls
from giclee.gpu_worker.claims import SCHEMA, Claims
from giclee.gpu_worker.handle import Worker
from giclee.gpu_worker.inquiries import Inquiries
from giclee.gpu_worker.ledger import Ledger
from giclee.gpu_worker.provider import Answer, Ask, NotMade
from giclee.gpu_worker.shelf import Shelf
from giclee.gpu_worker.sweep import Sweeper
from giclee.schemas import envelope as wire
from giclee.schemas.events import Event, GenerationFailed, ImageGenerated, ImageRouted, ProviderOutcome
from giclee.schemas.models import Model
from giclee.schemas.spend_caps import Cap
from tests.kit.candidates import closing, delivered, hop, model, replay, routed
from tests.kit.shop import NAME, STEPS, Paid, Shop, unexplained
from tests.kit.wait import until

pytestmark = pytest.mark.real

PRICE = Decimal("0.04")
ROW = model("flux", provider=NAME, pool="hosted", price_usd=str(PRICE))
DEATHS = 20
CAP = Cap(NAME, "", Decimal(10))
"""Never reached: so that what a day has set aside and spent is there to be added up."""
PLACES: dict[str, tuple[tuple[int, int], tuple[int, int] | None]] = {
    "before-claim-commit": ((1, 1), (1, 1)),
    "after-claim-commit": ((1, 1), (1, 1)),
    "before-call-commit": ((1, 1), (1, 1)),
    "after-call-commit": ((1, 2), (1, 2)),  # set aside, and perhaps asked: nobody can know that it was not
    "before-provider-call": ((1, 2), (1, 2)),
    "submitted": ((2, 2), (2, 2)),  # billed, and its job in nobody's row: paid again
    "before-job-commit": ((2, 2), None),
    "after-job-commit": ((1, 1), None),
    "noted": ((1, 1), (2, 2)),
    "fetched": ((1, 1), (2, 2)),
    "after-provider-call": ((1, 1), (2, 2)),
    "before-finish-commit": ((1, 1), (2, 2)),
    "after-finish-commit": ((1, 1), (1, 1)),
}
"""Where a worker dies: images billed and images counted for a candidate, at a provider whose jobs can be looked up and
at one that has none."""


@pytest.fixture
async def pool(database: str) -> AsyncIterator[databases.Pool]:
    settings = DatabaseSettings(url=SecretStr(database), pool_max=8)
    async with databases.connect(settings, SCHEMA) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _disarmed() -> Any:
    yield
    failpoints.arm((), "gpu-worker")


LAPSED = """
UPDATE gpu_worker.claims c SET lease_until = clock_timestamp() - interval '1 minute'
FROM (SELECT candidate_id, hop FROM gpu_worker.claims WHERE NOT acknowledged FOR UPDATE SKIP LOCKED) AS free
WHERE c.candidate_id = free.candidate_id AND c.hop = free.hop
"""


class Process:
    """One worker process of the hosted pool, and how it dies."""

    def __init__(self, pool: databases.Pool, blobs: MemoryBlobs, shop: Shop, caps: Sequence[Cap], **paid: Any) -> None:
        self.paid, self.pool = Paid(shop, **paid), pool
        ledger = Ledger(pool, {NAME: self.paid.capabilities}, caps)
        self.claims = Claims(pool, "hosted", ledger=ledger)
        rows = {ROW.name: ROW}
        self.worker = Worker(
            claims=self.claims,
            shelf=Shelf(rows),
            batcher=Batcher({}),
            blobs=blobs,
            calls=Calls({NAME: self.paid}),
        )
        self.sweeper = Sweeper(self.claims, self.submit)
        self.sent: list[Event] = []
        self.letters: list[Any] = []

    async def submit(self, record: Record) -> None:
        event = codec.decode_own(record, wire.read(record.headers))
        event.delivered(wire.read(record.headers).at(record.origin(), record.timestamp_ms, record.value))
        await self.deliver(event)

    async def deliver(self, event: Any) -> Sequence[Event]:
        """Handle as the bus would: what the handler raises is buried, what it returns is sent and acknowledged."""
        try:
            found = list(await self.worker.handle(event))
        except Poison as error:
            burial = await self.worker.bury(event, error)
            self.letters += [burial] if burial.wanted else []
            found = []
        self.sent += found
        await self.worker.settled([event])
        return found

    async def die_handling(self, event: ImageRouted, reached: Callable[[], bool]) -> None:
        """Handle until `reached`, then die."""
        await self.die(self.deliver(event), reached)

    async def die(self, work: Coroutine[Any, Any, Any], reached: Callable[[], bool]) -> None:
        """Work until `reached`, then end as a killed process does: no task goes on, nothing is tidied up."""
        before = asyncio.all_tasks()
        asyncio.create_task(work)
        await until(reached)
        mine = asyncio.all_tasks() - before
        for task in mine:
            task.cancel()
        await asyncio.wait(mine)
        self.claims.in_hand.clear()

    def has_noted(self, event: ImageRouted) -> Callable[[], bool]:
        """Whether the claim knows the provider's job by now."""

        def noted() -> bool:
            claim = self.claims.in_hand.get((event.candidate_id, event.hop))
            return claim is not None and claim.row.job is not None

        return noted

    async def sweep(self) -> None:
        """Whatever vanished is over at once, and what nobody acknowledged is told."""
        await self.pool.execute(LAPSED)
        await self.sweeper.once()

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.sent if isinstance(event, kind)]


@pytest.fixture
def shop() -> Shop:
    return Shop(usd=PRICE)


@pytest.fixture
async def processes(pool: databases.Pool, shop: Shop) -> Any:
    """A maker of worker processes that share the database, the bucket and the shop."""
    blobs = MemoryBlobs()

    def start(*caps: Cap, **paid: Any) -> Process:
        return Process(pool, blobs, shop, caps, **paid)

    return start


def candidate(*hops: dict[str, Any], at: int = 0, **fields: Any) -> ImageRouted:
    """A candidate for the shop; its limit holds the price twice unless told otherwise."""
    return routed(*(hops or (hop(ROW),)), offset=at, seed=at, **{"limit_usd": 2 * PRICE, **fields})


async def rows_of(pool: databases.Pool, event: ImageRouted) -> list[Any]:
    query = "SELECT * FROM gpu_worker.calls WHERE candidate_id = $1 AND hop = $2 ORDER BY fence"
    return list(await pool.fetch(query, event.candidate_id, event.hop))


async def claim_of(pool: databases.Pool, event: ImageRouted) -> Any:
    query = "SELECT *, base_usd + prior_usd + job_usd AS spent_usd FROM gpu_worker.claims WHERE candidate_id = $1"
    return await pool.fetchrow(f"{query} AND hop = $2", event.candidate_id, event.hop)


def armed(point: str, mode: str) -> Callable[[], bool]:
    """Arm a point once; whether it has fired since."""
    name = f"gpu-worker.{point}"

    def fired() -> float:
        return telemetry.value("giclee_failpoints_fired_total", point=name, mode=mode)

    before = fired()
    failpoints.arm([failpoints.parse(f"{name}:{mode}")], "gpu-worker")
    return lambda: fired() > before


# ---- one call -----------------------------------------------------------------------------------


async def test_a_paid_call_is_in_the_ledger_before_and_costs_what_the_provider_says(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """One image, one bill, one row; the told cost, not the expected one, is what the candidate cost."""
    seen: list[Any] = []

    async def at(step: str) -> None:
        seen.append((step, await rows_of(pool, event), await claim_of(pool, event)))

    event, shop.usd = candidate(), Decimal("0.0437")
    one = processes(at=at)
    made, attempt = await one.deliver(event)
    assert isinstance(made, ImageGenerated) and isinstance(attempt, ProviderOutcome)
    assert (made.spent_usd, attempt.price_usd) == (shop.usd, shop.usd)
    (submitted, noted, _) = seen
    assert (submitted[1][0]["expected_usd"], submitted[1][0]["ended_at"]) == (PRICE, None)
    assert (submitted[2]["at_risk_usd"], submitted[2]["job"]) == (PRICE, None)
    assert (noted[2]["at_risk_usd"], noted[2]["job"], noted[2]["job_usd"]) == (0, "job-0", PRICE)
    (row,) = await rows_of(pool, event)
    assert (row["actual_usd"], row["counted_usd"], row["outcome"], row["again"]) == (shop.usd, shop.usd, "made", False)
    assert (row["key"], row["jobs"]) == (f"{event.candidate_id}-0", ["job-0"])
    assert (await claim_of(pool, event))["job"] is None, "nothing is left to be asked for"
    assert await unexplained(pool, shop) == []


async def test_who_does_not_say_what_it_cost_is_taken_at_its_price(processes: Any, pool: databases.Pool) -> None:
    """actual_usd stays null; an invoice will tell."""
    event = candidate()
    made, _ = await processes(tells=False).deliver(event)
    (row,) = await rows_of(pool, event)
    assert (made.spent_usd, row["counted_usd"], row["actual_usd"]) == (PRICE, PRICE, None)


class Silent(Paid):
    """A provider that never answers; as every hosted one, it takes the model's price for what it may have billed."""

    async def _one(self, model: Model, ask: Ask) -> Answer:
        return NotMade(outcome="timeout", message="no answer", paid_usd=model.price_usd)


async def test_what_may_have_been_billed_is_the_price_that_the_router_expected(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """A price that was set since the worker read its rows counts for its time-outs too, and for what follows."""
    dearer = Decimal("0.06")
    event = candidate(hop(ROW, price_usd=dearer), hop(ROW), limit_usd=3 * PRICE)
    one = processes(CAP)
    one.worker = replace(one.worker, calls=Calls({NAME: Silent(shop)}))
    following, _ = await one.deliver(event)
    (row,) = await rows_of(pool, event)
    assert (following.spent_usd, row["expected_usd"], row["counted_usd"]) == (dearer, dearer, dearer)
    assert await unexplained(pool, shop) == []


async def test_a_call_that_came_to_nothing_costs_nothing_and_the_chain_goes_on(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """The provider says that it did not bill: 0 is told, and no price difference is raised for it."""
    shop.fails = lambda _: NotMade(outcome="transient", message="the model fell over")
    event = candidate(hop(ROW), hop(ROW))
    following, _ = await processes().deliver(event)
    assert isinstance(following, ImageRouted) and following.spent_usd == 0
    (row,) = await rows_of(pool, event)
    assert (row["outcome"], row["actual_usd"], row["counted_usd"]) == ("transient", 0, 0)
    assert (await Inquiries(processes().claims).calls({"state": "differs"}))["calls"] == []


# ---- deaths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "looks_up", "expected"),
    [
        pytest.param(place, looks_up, expected, id=f"{place}-{'lookup' if looks_up else 'none'}")
        for place, both in PLACES.items()
        for looks_up, expected in zip((True, False), both, strict=True)
        if expected is not None
    ],
)
async def test_a_death_at_any_step_leaves_no_bill_unexplained(
    processes: Any, pool: databases.Pool, shop: Shop, place: str, looks_up: bool, expected: tuple[int, int]
) -> None:
    """Twenty deaths each; redelivery and sweeper finish every candidate. What the shop billed is in the ledger and
    counted by the claim; with a stored job the paid image is taken, and only where nobody can know is it paid again."""
    stuck = asyncio.Event()

    async def at(step: str) -> None:
        if step == place:
            stuck.set()
            await asyncio.Event().wait()

    events = [candidate(at=number) for number in range(DEATHS)]
    for event in events:
        stuck.clear()
        victim = processes(CAP, looks_up=looks_up, at=at)
        await victim.die_handling(event, stuck.is_set if place in STEPS else armed(place, "hang"))
    heir = processes(CAP, looks_up=looks_up)
    await asyncio.gather(*(heir.deliver(delivered(event, offset=at)) for at, event in enumerate(events)))
    for _ in range(3):
        await heir.sweep()
    made = {event.candidate_id: event for event in heir.told(ImageGenerated)}
    assert len(made) == DEATHS, "every candidate has its image"
    assert await unexplained(pool, shop) == []
    for event in events:
        calls = await rows_of(pool, event)
        counted = sum(row["counted_usd"] for row in calls)
        assert (len(shop.sold(f"{event.candidate_id}-0")), counted / PRICE) == expected
        assert made[event.candidate_id].spent_usd == counted
        assert calls[-1]["again"] is (expected[1] == 2), "paid again, or perhaps: said so"


@pytest.mark.parametrize("point", [place for place in PLACES if place not in STEPS])
async def test_an_effect_of_unknown_outcome_leaves_no_bill_unexplained(
    processes: Any, pool: databases.Pool, shop: Shop, point: str
) -> None:
    """The mode `raise`, twenty times each: the bus tries the record again in the same process, a sweeper finishes."""
    one = processes(CAP)
    events = [candidate(at=number) for number in range(DEATHS)]
    for event in events:
        fired = armed(point, "raise")
        for _ in range(3):
            try:
                await one.deliver(event)
                break
            except Transient:
                continue
        assert fired()
    for _ in range(3):
        await one.sweep()
    assert len({event.candidate_id for event in one.told(ImageGenerated)}) == DEATHS
    assert await unexplained(pool, shop) == []
    assert len(shop.bill) == DEATHS, "this process knows its job, even where nobody could store it"
    counted = await pool.fetchval("SELECT sum(counted_usd) FROM gpu_worker.calls")
    assert counted == DEATHS * PRICE * (2 if point == "before-provider-call" else 1)


# ---- jobs ---------------------------------------------------------------------------------------


async def left_behind(one: Process, event: ImageRouted, shop: Shop) -> None:
    """A worker that died after it had noted the job of `event`."""
    shop.open.clear()
    await one.die_handling(event, one.has_noted(event))
    shop.open.set()


async def test_a_job_that_cannot_be_found_any_more_is_paid_again_and_said_so(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """The metric, the ledger and the candidate's sum know of both; the second job is found if its worker dies too."""
    event, before = candidate(), telemetry.value("giclee_paid_again_total", provider=NAME)
    await left_behind(processes(CAP), event, shop)
    shop.jobs.clear()
    await left_behind_by_sweeper(processes(CAP), shop, "job-1")
    heir = processes(CAP)
    await heir.sweep()
    (made,) = heir.told(ImageGenerated)
    assert heir.paid.asked[0].job == "job-1"
    assert made.spent_usd == 2 * PRICE and len(shop.bill) == 2
    first, second, third = await rows_of(pool, event)
    assert (first["outcome"], first["counted_usd"], first["jobs"]) == ("lost", PRICE, ["job-0"])
    assert (second["outcome"], second["counted_usd"], second["jobs"]) == ("made", PRICE, ["job-1"])
    assert (third["outcome"], third["counted_usd"]) == ("looked-up", 0)
    assert second["again"] and not first["again"]
    assert await unexplained(pool, shop) == []
    assert telemetry.value("giclee_paid_again_total", provider=NAME) == before + 1


async def left_behind_by_sweeper(one: Process, shop: Shop, job: str) -> None:
    """A worker that took over and died once it had noted `job`."""

    def noted() -> bool:
        return any(claim.row.job is not None and claim.row.job.id == job for claim in one.claims.in_hand.values())

    shop.open.clear()
    await one.die(one.sweep(), noted)
    shop.open.set()


async def test_a_worker_that_dies_while_it_asks_for_a_job_may_have_made_another(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """It may have found the job gone, or failed, and paid for a second one that nobody noted: counted, though here it
    did not. The image is paid for once and told."""
    event = candidate()
    await left_behind(processes(CAP), event, shop)
    shop.open.clear()
    second, heir = processes(CAP), processes(CAP)
    await second.die(second.sweep(), lambda: second.paid.asked)
    shop.open.set()
    await heir.sweep()
    (made,) = heir.told(ImageGenerated)
    assert (made.spent_usd, len(shop.bill)) == (2 * PRICE, 1)
    assert [row["outcome"] for row in await rows_of(pool, event)] == ["made", "lost", "looked-up"]
    assert await unexplained(pool, shop) == []


async def test_an_earlier_job_that_failed_for_nothing_is_not_counted(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """The provider says that it did not bill the first: the second is the only one the candidate paid."""
    event, shop.fails = candidate(), lambda _: NotMade(outcome="transient", message="fell over")
    shop.open.clear()
    one = processes(CAP)
    await one.die_handling(event, one.has_noted(event))
    shop.open.set()
    shop.fails = lambda _: None
    heir = processes(CAP)
    await heir.sweep()
    (made,) = heir.told(ImageGenerated)
    assert (made.spent_usd, len(shop.bill)) == (PRICE, 1)
    assert [(row["outcome"], row["counted_usd"]) for row in await rows_of(pool, event)] == [
        ("unbilled", 0),
        ("made", PRICE),
    ]
    assert await unexplained(pool, shop) == []


async def test_a_stored_job_is_asked_for_though_its_price_would_not_fit_the_limit_twice(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """Asking after a job is no payment, whatever its age and however full the cap is."""
    tight, roomy, capped = candidate(at=1, limit_usd=PRICE), candidate(at=2), candidate(at=3)
    for event in (tight, roomy, capped):
        await left_behind(processes(CAP), event, shop)
    heir = processes(Cap(NAME, "", 3 * PRICE))
    await heir.sweep()
    made = {event.candidate_id: event.spent_usd for event in heir.told(ImageGenerated)}
    assert made == dict.fromkeys((tight.candidate_id, roomy.candidate_id, capped.candidate_id), PRICE)
    assert [row["expected_usd"] for row in await rows_of(pool, roomy)] == [PRICE, PRICE], "set aside, and free again"
    assert len(shop.bill) == 3 and await unexplained(pool, shop) == []


async def test_a_job_that_is_gone_is_not_paid_again_over_the_candidates_limit(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """However young it is: rule 4 holds for second payments too. What the first may have cost stays counted."""
    event = candidate(limit_usd=2 * PRICE - PRICE / 2)
    await left_behind(processes(CAP), event, shop)
    shop.jobs.clear()
    heir = processes(CAP)
    await heir.sweep()
    (failed,) = heir.told(GenerationFailed)
    assert (failed.spent_usd, failed.reasons[-1].code, len(shop.bill)) == (PRICE, "limit", 1)
    assert [(row["outcome"], row["counted_usd"]) for row in await rows_of(pool, event)] == [
        ("lost", PRICE),
        ("budget", 0),
    ]
    assert await unexplained(pool, shop) == []


async def test_a_job_that_is_gone_is_not_paid_again_over_a_cap_and_another_day_it_is(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """A quota is no failure: a dead letter, no attempt that would count against the provider, and a replay pays."""
    event, cap = candidate(), Cap(NAME, "", PRICE + PRICE / 2)
    await left_behind(processes(cap), event, shop)
    shop.jobs.clear()
    heir = processes(cap)
    await heir.sweep()
    assert (len(heir.letters), len(shop.bill), heir.told(ImageGenerated)) == (1, 1, [])
    assert await pool.fetchval("SELECT count(*) FROM gpu_worker.outbox") == 0
    assert await unexplained(pool, shop) == []
    made, _ = await processes(CAP).deliver(replay(event, offset=9))
    assert (made.spent_usd, len(shop.bill)) == (2 * PRICE, 2)
    assert await unexplained(pool, shop) == []


async def test_a_replay_takes_the_image_of_a_job_that_was_given_up(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """The provider could not be reached for its answer: the candidate counts the price, its dead letter names it, and a
    replay asks for the job instead of paying again."""
    one, event = processes(CAP), candidate()
    answers = [NotMade(outcome="timeout", message="no answer", paid_usd=PRICE, job="job-0")]
    make = one.paid.make

    async def cut_off(*asked: Any) -> Any:
        made = await make(*asked)
        return [answers.pop()] if answers else made

    one.paid.make = cut_off
    await one.deliver(event)
    assert [letter.paid_usd for letter in one.letters] == [PRICE]
    assert (await claim_of(pool, event))["job"] == "job-0"
    made, _ = await one.deliver(replay(event, offset=9))
    assert isinstance(made, ImageGenerated)
    assert (made.spent_usd, len(shop.bill), one.paid.asked[-1].job) == (PRICE, 1, "job-0")
    assert await unexplained(pool, shop) == []


async def test_an_outage_of_the_database_while_a_job_is_noted_pays_nothing_twice(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """The process keeps the id in memory, stores it once it can, and asks for that job."""
    one, event = processes(CAP), candidate()
    armed("before-job-commit", "raise")
    with pytest.raises(Transient):
        await one.deliver(event)
    made, _ = await one.deliver(event)
    assert (made.spent_usd, len(shop.bill), one.paid.asked[-1].job) == (PRICE, 1, "job-0")


# ---- owners that come late ----------------------------------------------------------------------


async def test_who_lost_the_claim_before_its_job_was_noted_gives_up_and_the_ledger_names_the_job(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """A zombie: its bill is explained by its own row, and it tells nothing."""
    go = asyncio.Event()

    async def at(step: str) -> None:
        if step == "submitted":
            await go.wait()

    zombie, heir, event = processes(CAP, at=at), processes(CAP), candidate()
    late = asyncio.create_task(zombie.deliver(event))
    await until(lambda: shop.bill)
    await heir.sweep()
    go.set()
    assert await late == []
    (made,) = heir.told(ImageGenerated)
    assert made.spent_usd == 2 * PRICE
    first, second = await rows_of(pool, event)
    assert (first["jobs"], first["outcome"]) == (["job-0"], "lost") and second["again"]
    assert await unexplained(pool, shop) == []


@pytest.mark.parametrize("handler", ["stays", "is cut off"])
async def test_a_success_after_the_chain_moved_on_is_booked_and_never_told(
    processes: Any, pool: databases.Pool, shop: Shop, handler: str
) -> None:
    """Rule 8: the ledger knows what the late image cost, the claim counts what it cost beyond what was counted, whether
    a handler still waited for it or not."""
    shop.usd = Decimal("0.05")
    shop.open.clear()
    zombie, heir, event = processes(CAP, looks_up=False), processes(CAP, looks_up=False), candidate()
    late = asyncio.create_task(zombie.deliver(event))
    await until(lambda: shop.bill)
    if handler == "is cut off":
        late.cancel()
        await asyncio.wait({late})
    taken = asyncio.create_task(heir.sweep())
    await until(lambda: len(shop.bill) == 2)
    if handler == "is cut off":
        zombie.claims.in_hand.clear()  # what `renew` does to a claim that waits too long
    shop.open.set()
    await taken
    await until(lambda: _is_late(pool, event))
    assert handler == "is cut off" or await late == []
    assert [len(one.told(ImageGenerated)) for one in (zombie, heir)] == [0, 1]
    first, second = await rows_of(pool, event)
    assert (first["outcome"], first["actual_usd"], first["counted_usd"]) == ("late", shop.usd, shop.usd)
    assert (second["outcome"], second["counted_usd"]) == ("made", shop.usd)
    assert (await claim_of(pool, event))["spent_usd"] == 2 * shop.usd
    assert await unexplained(pool, shop) == []


async def _is_late(pool: databases.Pool, event: ImageRouted) -> bool:
    return bool((await rows_of(pool, event))[0]["outcome"] == "late")


async def test_an_ended_request_is_not_asked_for_and_its_call_counts(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """Rule 7: nobody asks for the job of a request that is over; what it may have cost is told."""
    event = candidate()
    await left_behind(processes(CAP), event, shop)
    heir = processes(CAP)
    await heir.worker.handle(closing(event))
    await heir.sweep()
    (failed,) = heir.told(GenerationFailed)
    assert (failed.spent_usd, failed.reasons[-1].code) == (PRICE, "ended")
    assert not heir.paid.asked and await unexplained(pool, shop) == []


# ---- caps ---------------------------------------------------------------------------------------


async def test_two_workers_that_race_for_a_cap_never_overshoot_it(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """Ten rounds with room for 5 of 24 candidates of two workers at once, under three caps: exactly 5 are made."""
    for number in range(10):
        shop.bill.clear()
        await pool.execute("TRUNCATE gpu_worker.spending, gpu_worker.calls, gpu_worker.claims")
        caps = (Cap(NAME, "", 5 * PRICE + PRICE / 2), Cap("", "acme", Decimal(1)), Cap("", "", Decimal(2)))
        one, two = processes(*caps), processes(*caps)
        events = [candidate(at=24 * number + at) for at in range(24)]
        await asyncio.gather(*(each.deliver(event) for each, event in zip([one, two] * 12, events, strict=True)))
        assert len(shop.bill) == 5 == len(one.told(ImageGenerated) + two.told(ImageGenerated))
        assert await pool.fetchval("SELECT spent_usd FROM gpu_worker.spending WHERE provider = $1", NAME) == 5 * PRICE
        assert await unexplained(pool, shop) == []


async def test_a_cap_that_is_reached_is_a_dead_letter_at_the_end_of_a_chain_and_no_fault_of_the_provider(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """Rule 9: a quota is no failure. Nobody was asked, so no attempt is told; another day a replay succeeds."""
    one = processes(Cap(NAME, "acme", PRICE / 2))
    event, chained = candidate(), candidate(hop(ROW), hop(ROW), at=1)
    assert await one.deliver(event) == []
    assert len(one.letters) == 1 and not shop.bill
    (following,) = await one.deliver(chained)
    assert isinstance(following, ImageRouted) and following.only_transient
    assert following.reasons[-1].code == "spend_cap" and "0.02 US dollars" in following.reasons[-1].message
    assert await pool.fetchval("SELECT count(*) FROM gpu_worker.outbox") == 0
    assert await pool.fetchval("SELECT count(*) FROM gpu_worker.calls") == 0
    made, _ = await processes(CAP).deliver(replay(event, offset=9))
    assert isinstance(made, ImageGenerated)


async def test_a_cap_holds_only_its_own_provider_tenant_and_day(
    processes: Any, pool: databases.Pool, shop: Shop
) -> None:
    """What others spent, and what was spent yesterday, leaves room."""
    one = processes(Cap(NAME, "acme", PRICE), Cap("other", "", Decimal(0)), Cap("", "umbrella", Decimal(0)))
    assert len(await one.deliver(candidate(at=1))) == 2
    assert await one.deliver(candidate(at=2)) == [], "today's cap is used up"
    assert len(await one.deliver(candidate(at=3, tenant="zenith"))) == 2
    yesterday = "UPDATE gpu_worker.{} SET day = day - 1"
    for table in ("calls", "spending"):
        await pool.execute(yesterday.format(table))
    assert len(await one.deliver(candidate(at=4))) == 2
    assert await unexplained(pool, shop) == []


async def test_a_cap_that_is_new_today_counts_what_the_day_has_cost_before(processes: Any, shop: Shop) -> None:
    """Its row begins with the ledger's sum."""
    await processes().deliver(candidate(at=1))
    capped = processes(Cap("", "", PRICE + PRICE / 2))
    assert await capped.deliver(candidate(at=2)) == []
    assert len(shop.bill) == 1


# ---- prices -------------------------------------------------------------------------------------


async def test_a_price_that_changed_is_counted_and_listed(processes: Any, pool: databases.Pool, shop: Shop) -> None:
    """5 % more is within the bound; 25 % more is an alert, by provider and model, and on the list with its job."""
    labels = {"provider": NAME, "model": ROW.name}
    one, before = processes(), telemetry.value("giclee_price_differences_total", **labels)
    shop.usd = Decimal("0.042")
    await one.deliver(candidate(at=1))
    assert telemetry.value("giclee_price_differences_total", **labels) == before
    shop.usd = Decimal("0.05")
    await one.deliver(event := candidate(at=2))
    assert telemetry.value("giclee_price_differences_total", **labels) == before + 1
    assert telemetry.value("giclee_price_difference_ratio", **labels) == pytest.approx(0.25)
    told = await Inquiries(one.claims).calls({"state": "differs"})
    (listed,) = told["calls"]
    assert (listed["candidate_id"], listed["expected_usd"], listed["actual_usd"]) == (
        str(event.candidate_id), "0.04", "0.05",
    )  # fmt: skip
    assert listed["jobs"] == ["job-1"]
    (spent,) = told["spent"]
    assert (spent["calls"], spent["actual_usd"], spent["counted_usd"]) == (2, "0.092", "0.092")


async def test_calls_are_found_by_what_people_know_of_them(processes: Any, pool: databases.Pool, shop: Shop) -> None:
    """A time, a provider, a request, a candidate, how they stand; the sums are of the time and the provider alone."""
    one = processes()
    await one.deliver(first := candidate(at=1))
    await one.deliver(second := candidate(at=2))
    await left_behind(processes(), third := candidate(at=3), shop)
    asked = Inquiries(one.claims).calls

    async def found(**body: Any) -> list[str]:
        return [row["candidate_id"] for row in (await asked(body))["calls"]]

    newest = [str(event.candidate_id) for event in (third, second, first)]
    assert await found() == await found(provider=NAME) == newest
    assert await found(limit=1) == await found(state="open") == newest[:1]
    assert await found(candidate_id=newest[1]) == newest[1:2]
    assert await found(request_id=str(first.request_id)) == [
        one for one, event in zip(newest, (third, second, first), strict=True) if event.request_id == first.request_id
    ]
    assert (
        await found(provider="nobody") == await found(since="2100-01-01T00:00:00Z") == await found(state="lost") == []
    )
    assert sum(row["calls"] for row in (await asked({"state": "lost"}))["spent"]) == 3
    assert (await asked({"provider": "nobody"}))["spent"] == []
    for wrong in (
        {"limit": 0},
        {"state": "unheard"},
        {"since": "yesterday"},
        {"since": "2026-11-22T00:00"},
        {"request_id": "x"},
    ):
        with pytest.raises(ValueError):
            await asked(wrong)


async def test_old_calls_are_forgotten_and_open_ones_kept(processes: Any, pool: databases.Pool, shop: Shop) -> None:
    """An invoice comes within months."""
    one = processes(CAP)
    await one.deliver(candidate(at=1))
    await left_behind(processes(CAP), candidate(at=2), shop)
    await pool.execute("UPDATE gpu_worker.calls SET ended_at = ended_at - interval '500 days'")
    await pool.execute("UPDATE gpu_worker.spending SET day = day - 500")
    await one.claims.forget()
    assert await pool.fetchval("SELECT count(*) FROM gpu_worker.calls") == 1
    assert await pool.fetchval("SELECT count(*) FROM gpu_worker.spending") == 0


# ---- everything at once -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_in_whatever_order_every_bill_is_explained(
    processes: Any, pool: databases.Pool, shop: Shop, seed: int
) -> None:
    """Forty candidates, three workers, drawn by the seed: deaths anywhere, leases that run out under the living, jobs
    that are forgotten or fail for nothing, prices that fall, redeliveries. No candidate has two images, or bills over
    its limit, no bill is unexplained, no sum is below what was billed, and the cap's row adds up."""
    chance = random.Random(seed)

    async def at(step: str) -> None:
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.01)))

    def draw(ask: Any) -> NotMade | None:
        shop.usd = PRICE / chance.choice((1, 1, 2))
        return NotMade(outcome="transient", message="fell over") if chance.random() < 0.2 else None

    shop.fails = draw
    events = [candidate(at=number, limit_usd=chance.choice((1, 2, 100)) * PRICE) for number in range(40)]
    workers = [processes(CAP, at=at) for _ in range(3)]
    everybody, images = list(workers), []
    running: dict[asyncio.Task[Any], Process] = {}

    def work(one: Process, event: ImageRouted) -> None:
        running[asyncio.create_task(_delivered(one, event))] = one

    for number in range(200):
        place = chance.randrange(3)
        work(workers[place], delivered(chance.choice(events), offset=number))
        match chance.choice(("death", "lapse", "forget", "go on", "go on", "go on")):
            case "death":
                await _die(workers[place], running)
                workers[place] = processes(CAP, at=at)
                everybody.append(workers[place])
            case "lapse":
                running[asyncio.create_task(workers[place].sweep())] = workers[place]
            case "forget":
                idle = await pool.fetch(IDLE)
                for job in [row["job"] for row in idle if chance.random() < 0.5]:
                    shop.jobs.pop(job, None)
        await asyncio.sleep(chance.choice((0, 0.002, 0.01)))
    await asyncio.gather(*running, return_exceptions=True)
    for event in events:
        await _delivered(workers[0], delivered(event, offset=1000))
    for _ in range(8):
        await workers[0].sweep()
    for one in everybody:
        images += one.told(ImageGenerated)
    told = {(event.candidate_id, event.image.key) for event in images}
    assert len(told) == len({candidate_id for candidate_id, _ in told}), "one image, however often it is told"
    assert await pool.fetchval("SELECT count(*) FROM gpu_worker.claims WHERE state = 'done'") == len(events)
    assert await unexplained(pool, shop) == []
    for event in events:
        assert sum(one.usd for one in shop.sold(call_key(event.candidate_id, event.hop))) <= event.limit_usd


IDLE = """
SELECT job FROM gpu_worker.claims i WHERE job IS NOT NULL AND NOT EXISTS (SELECT FROM gpu_worker.calls o
    WHERE o.candidate_id = i.candidate_id AND o.hop = i.hop AND o.ended_at IS NULL AND o.fence > i.job_fence)
"""
"""Jobs that nobody asks for just now."""


async def _delivered(one: Process, event: ImageRouted) -> None:
    """Handled, with one more try where the bus would try again."""
    for _ in range(3):
        with contextlib.suppress(Transient):
            await one.deliver(event)
            return


async def _die(one: Process, running: dict[asyncio.Task[Any], Process]) -> None:
    """The end of one worker while others go on: its handlers and its calls."""
    calls = [claim.job for claim in one.claims.in_hand.values() if claim.job is not None]
    mine = [task for task, owner in running.items() if owner is one and not task.done()]
    for task in [*mine, *calls]:
        task.cancel()
    if mine or calls:
        await asyncio.wait([*mine, *calls])
    one.claims.in_hand.clear()
