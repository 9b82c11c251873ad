"""Claims on a real Postgres: one owner, fences, leases by database time, money, replays, ended requests, sweeps.

Leases expire by moving rows back in time, never by waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from giclee.bus import database as databases
from giclee.bus.blobs import MemoryBlobs
from giclee.bus.errors import Exhausted, Poison, Transient
from giclee.bus.layers import codec
from giclee.bus.settings import DatabaseSettings
from giclee.bus.transport import Record
from giclee.gpu_worker import adjusting
from giclee.gpu_worker import claims as claims_file
from giclee.gpu_worker.batch import Batcher
from giclee.gpu_worker.claim import Claim, Standing
from giclee.gpu_worker.claims import SCHEMA, Claims
from giclee.gpu_worker.handle import Worker
from giclee.gpu_worker.provider import Answer, Ask, NotMade
from giclee.gpu_worker.providers.stub import Stub
from giclee.gpu_worker.shelf import Shelf
from giclee.gpu_worker.sweep import Sweeper
from giclee.schemas import envelope as wire
from giclee.schemas.events import Event, GenerationFailed, ImageGenerated, ImageRouted, ProviderOutcome
from giclee.schemas.models import Model
from giclee.schemas.parts import Adjustment
from tests.kit.candidates import closing, delivered, hop, model, replay, routed
from tests.kit.wait import until

pytestmark = pytest.mark.real

FINAL, DRAFT = model("shapes-final", price_usd="0.0004"), model("shapes-draft", price_usd="0.0001")
DOWN = NotMade(outcome="timeout", message="no answer", code="provider_transient")
NEVER = NotMade(outcome="refused-content", message="no")
SHORT = Adjustment(field="prompt", asked="90 tokens", used="77 tokens", reason="the text encoder reads no more")


@pytest.fixture
async def pool(database: str) -> AsyncIterator[databases.Pool]:
    settings = DatabaseSettings(url=SecretStr(database), pool_max=8)
    async with databases.connect(settings, SCHEMA) as opened:
        yield opened


class Process:
    """One worker process on the shared database: its own claims, batcher, sweeper and bucket client."""

    def __init__(self, pool: databases.Pool, blobs: MemoryBlobs, stub: Stub, place: str | None) -> None:
        self.claims, self.stub, self.blobs = Claims(pool, "local", place=place), stub, blobs
        self.batcher = Batcher({"stub": stub}, wait_ms=0)
        rows = {row.name: row for row in (FINAL, DRAFT)}
        self.worker = Worker(claims=self.claims, shelf=Shelf(rows), batcher=self.batcher, blobs=blobs)
        self.sweeper = Sweeper(self.claims, self.submit)
        self.sent: list[Event] = []
        self.letters: list[Any] = []
        self.running = asyncio.create_task(self.batcher.run())

    async def submit(self, record: Record) -> None:
        """What the bus does with a stored record: decode, handle, bury, acknowledge."""
        event = codec.decode_own(record, wire.read(record.headers))
        event.delivered(wire.read(record.headers).at(record.origin(), record.timestamp_ms, record.value))
        assert isinstance(event, ImageRouted)
        await self.deliver(event)

    async def deliver(self, event: Any, *, acknowledge: bool = True) -> Sequence[Event]:
        """Handle as the bus would: what the handler raises is buried, what it returns is sent and acknowledged."""
        try:
            found = list(await self.worker.handle(event))
        except Poison as error:
            burial = await self.worker.bury(event, error)
            self.letters += [burial] if burial.wanted else []
            found = []
        self.sent += found
        if acknowledge:
            await self.worker.settled([event])
        return found

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.sent if isinstance(event, kind)]


@pytest.fixture
async def processes(pool: databases.Pool) -> AsyncIterator[Any]:
    """A maker of worker processes that share the database and the bucket."""
    made: list[Process] = []
    blobs = MemoryBlobs()

    def start(*, place: str | None = None, **stub: Any) -> Process:
        made.append(Process(pool, blobs, Stub(**stub), place))
        return made[-1]

    yield start
    for process in made:
        process.running.cancel()


async def expire(pool: databases.Pool, seconds: float = 1) -> None:
    """Every lease ended `seconds` ago."""
    await pool.execute(
        "UPDATE gpu_worker.claims SET lease_until = clock_timestamp() - make_interval(secs => $1)", seconds
    )


async def row_of(pool: databases.Pool, event: ImageRouted) -> asyncpg.Record:
    found = await pool.fetchrow(
        "SELECT * FROM gpu_worker.claims WHERE candidate_id = $1 AND hop = $2", event.candidate_id, event.hop
    )
    assert found is not None
    return found


async def test_a_candidate_becomes_an_image_with_its_bytes_stored_first(processes: Any, pool: databases.Pool) -> None:
    """ImageGenerated names a blob that is there, and the attempt is told beside it."""
    one = processes()
    event = routed(labels={"channel": "email"})
    made, attempt = await one.deliver(event)
    assert isinstance(made, ImageGenerated) and isinstance(attempt, ProviderOutcome)
    assert len(await one.blobs.get(made.image)) == made.image.size_bytes
    assert made.image.key.endswith(f"{event.candidate_id}-0-1") and made.labels == {"channel": "email"}
    row = await row_of(pool, event)
    assert (row["state"], row["outcome"], row["acknowledged"], row["at_risk_usd"]) == ("done", "generated", True, 0)


async def test_two_processes_that_get_one_candidate_at_once_make_it_once(processes: Any) -> None:
    """Rule 8: who meets a live claim of another moves on. 20 rounds, real races."""
    one, two = processes(), processes()
    for offset in range(20):
        event = routed(offset=offset)
        await asyncio.gather(one.deliver(event), two.deliver(delivered(event, offset=offset)))
    assert len(one.told(ImageGenerated)) + len(two.told(ImageGenerated)) >= 20
    assert sum(size for _, size, _ in one.stub.batches + two.stub.batches) == 20


async def test_a_redelivery_tells_the_same_event_and_pays_nothing(processes: Any) -> None:
    """Bit by bit, from another process too."""
    one, two = processes(), processes()
    event = routed()
    first = await one.deliver(event)
    again = await two.deliver(delivered(event, offset=0))
    assert [each.model_dump() for each in first] == [each.model_dump() for each in again]
    assert not two.stub.batches


async def test_a_live_claim_of_another_is_left_alone_even_when_its_lease_is_over(
    processes: Any, pool: databases.Pool
) -> None:
    """Expired claims are the sweeper's."""
    one, two = processes(), processes()
    event = routed()
    assert isinstance(await one.claims.open(event), Claim)
    await expire(pool)
    assert await two.claims.open(delivered(event, offset=0)) is Standing.ELSEWHERE


async def test_a_vanished_owner_is_taken_over_under_a_higher_fence_and_its_price_counts(
    processes: Any, pool: databases.Pool
) -> None:
    """Rules 4 and 8: spent_usd is never below what may have been paid."""
    one, two = processes(), processes()
    event = routed(spent_usd=Decimal("0.0001"))
    await one.claims.open(event)
    await two.sweeper.once()
    assert not two.sent, "the lease still holds"
    await expire(pool)
    await two.sweeper.once()
    (made,) = two.told(ImageGenerated)
    assert made.spent_usd == Decimal("0.0001") + 2 * Decimal("0.0004")
    assert made.image.key.endswith("-0-2")
    row = await row_of(pool, event)
    assert (row["fence"], row["acknowledged"], row["owner"]) == (2, True, two.claims.owner)


async def test_who_starts_in_a_vanished_owners_place_need_not_wait_for_its_leases(
    processes: Any, pool: databases.Pool
) -> None:
    """A port of a host has one owner at a time; another port, a longer one too, and no port are somebody else."""
    dead, others = processes(place="8081"), [processes(place="8082"), processes(place="808"), processes()]
    alive = processes(place="80811")
    await dead.claims.open(lost := routed())
    await alive.claims.open(kept := routed(offset=1))
    for other in others:
        await other.sweeper.once()
        assert not other.sent
    heir = processes(place="8081")
    await heir.sweeper.once()
    (made,) = heir.told(ImageGenerated)
    assert made.candidate_id == lost.candidate_id
    row = await row_of(pool, lost)
    assert (row["fence"], row["owner"]) == (2, heir.claims.owner)
    assert (await row_of(pool, kept))["owner"] == alive.claims.owner


async def test_two_sweepers_take_a_claim_over_once(processes: Any, pool: databases.Pool) -> None:
    """SKIP LOCKED: both at once, one image."""
    dead, one, two = processes(), processes(), processes()
    for offset in range(8):
        await dead.claims.open(routed(offset=offset))
    await expire(pool)
    await asyncio.gather(one.sweeper.once(), two.sweeper.once())
    assert len(one.told(ImageGenerated)) + len(two.told(ImageGenerated)) == 8
    assert sum(size for _, size, _ in one.stub.batches + two.stub.batches) == 8


async def test_a_takeover_that_the_limit_does_not_cover_pays_nothing(processes: Any, pool: databases.Pool) -> None:
    """The earlier fence may have spent it all: the candidate fails with that sum instead of overshooting."""
    one, two = processes(), processes()
    event = routed(limit_usd=Decimal("0.0005"))
    await one.claims.open(event)
    await expire(pool)
    await two.sweeper.once()
    (failed,) = two.told(GenerationFailed)
    assert (failed.reasons[-1].code, failed.spent_usd) == ("limit", Decimal("0.0004"))
    assert not two.stub.batches


async def test_a_takeover_goes_on_down_the_chain_when_only_the_next_hop_fits(
    processes: Any, pool: databases.Pool
) -> None:
    """0.0004 may be spent, 0.0004 more does not fit into 0.0006, 0.0001 does."""
    one, two = processes(), processes()
    event = routed(hop(FINAL), hop(DRAFT), limit_usd=Decimal("0.0006"))
    await one.claims.open(event)
    await expire(pool)
    await two.sweeper.once()
    (following,) = two.told(ImageRouted)
    assert (following.hop, following.spent_usd, following.only_transient) == (1, Decimal("0.0004"), True)


async def test_what_the_old_owner_finishes_after_a_takeover_is_not_told(processes: Any, pool: databases.Pool) -> None:
    """A zombie's image is booked by the takeover, never emitted, and overwrites nothing."""
    go = asyncio.Event()

    async def before(_: Sequence[Ask]) -> None:
        await go.wait()

    one, two = processes(before=before), processes()
    event = routed()
    late = asyncio.create_task(one.deliver(event))
    await until(lambda: one.stub.batches)
    await expire(pool)
    await two.sweeper.once()
    go.set()
    assert await late == []
    (made,) = two.told(ImageGenerated)
    assert made.image.key.endswith("-0-2") and len(await one.blobs.get(made.image)) == made.image.size_bytes
    assert (await row_of(pool, event))["fence"] == 2


async def test_a_claim_that_is_renewed_is_not_taken_over(processes: Any, pool: databases.Pool) -> None:
    """And a process learns that it lost one."""
    one, two = processes(), processes()
    kept, gone = routed(offset=1), routed(offset=2)
    mine, lost = await one.claims.open(kept), await one.claims.open(gone)
    assert isinstance(mine, Claim) and isinstance(lost, Claim)
    await expire(pool)
    await pool.execute("UPDATE gpu_worker.claims SET fence = 2 WHERE candidate_id = $1", gone.candidate_id)
    await one.claims.renew()
    assert (mine.lost, lost.lost) == (False, True)
    assert [row.row.key[0] for row in await two.claims.take_over(10)] == [gone.candidate_id]


async def test_ended_requests_are_neither_claimed_nor_taken_over_nor_opened_again(
    processes: Any, pool: databases.Pool
) -> None:
    """Rule 7, each with the sum that was or may have been spent."""
    one, two = processes(), processes()
    unclaimed, vanished, dead = routed(offset=1), routed(offset=2), routed(offset=3)
    await one.claims.open(vanished)
    await one.claims.open(dead)
    await one.worker.bury(dead, ValueError("boom"))
    for event in (unclaimed, vanished, dead):
        assert await one.deliver(closing(event)) == []
    await expire(pool, 60)
    await two.sweeper.once()
    await two.deliver(unclaimed)
    await two.deliver(replay(dead, offset=9))
    told = {event.candidate_id: (event.reasons[-1].code, event.spent_usd) for event in two.told(GenerationFailed)}
    paid = Decimal("0.0004")
    assert told == {
        unclaimed.candidate_id: ("ended", Decimal(0)),
        vanished.candidate_id: ("ended", paid),
        dead.candidate_id: ("ended", paid),
    }
    assert not two.stub.batches


async def test_a_closing_touches_only_its_tenants_request(processes: Any) -> None:
    """A request is (tenant, request_id) everywhere."""
    one = processes()
    event = routed()
    other = closing(event).model_copy(update={"tenant": "someone-else"})
    await one.worker.handle(other)
    assert isinstance((await one.deliver(event))[0], ImageGenerated)


async def test_a_finished_claim_that_nobody_acknowledged_is_told_again(processes: Any, pool: databases.Pool) -> None:
    """The process died between its database and the broker: the picture is not lost, and not paid for again."""
    one, two = processes(), processes()
    event = routed()
    first = await one.deliver(event, acknowledge=False)
    await two.sweeper.once()
    assert not two.sent, "it may be on its way"
    await expire(pool, 60)
    await two.sweeper.once()
    assert [each.model_dump() for each in two.sent] == [each.model_dump() for each in first]
    assert not two.stub.batches and (await row_of(pool, event))["acknowledged"]
    await expire(pool, 60)
    await two.sweeper.once()
    assert len(two.sent) == len(first), "acknowledged claims are left alone"


async def test_a_delivery_that_moved_on_does_not_acknowledge_what_another_must_tell(
    processes: Any, pool: databases.Pool
) -> None:
    """Two deliveries of one record; the one that told nothing is settled, the one that finished is lost."""
    one, two = processes(), processes()
    event = routed()
    go = asyncio.Event()

    async def before(_: Sequence[Ask]) -> None:
        await go.wait()

    one.stub.before = before
    first = asyncio.create_task(one.deliver(event, acknowledge=False))
    await until(lambda: one.stub.batches)
    moved_on = delivered(event, offset=0)
    assert await two.worker.handle(moved_on) == ()
    go.set()
    await first
    await two.worker.settled([moved_on])
    assert not (await row_of(pool, event))["acknowledged"]


async def test_an_acknowledgement_of_an_earlier_fence_does_not_count_for_a_later_one(
    processes: Any, pool: databases.Pool
) -> None:
    """A dead letter is acknowledged late, after a replay opened the claim again and finished it elsewhere."""
    one, two = processes(instead=lambda *_: DOWN), processes()
    event = routed(offset=5)
    await one.deliver(event, acknowledge=False)
    await two.deliver(replay(event, offset=50), acknowledge=False)
    await one.worker.settled([event])
    row = await row_of(pool, event)
    assert (row["fence"], row["outcome"], row["acknowledged"]) == (2, "generated", False)


async def test_a_handler_that_fails_ends_its_claim_under_its_fence(processes: Any, pool: databases.Pool) -> None:
    """The dead letter has the identity of the record that opened the claim, and what may have been paid."""
    one = processes()
    event = routed(offset=41, spent_usd=Decimal("0.0002"))
    await one.claims.open(event)
    burial = await one.worker.bury(event, Poison("poison"))
    assert (burial.wanted, burial.origin, burial.paid_usd) == (True, event.envelope.origin, Decimal("0.0006"))
    row = await row_of(pool, event)
    assert (row["state"], row["outcome"]) == ("done", "dead")
    again = await one.worker.bury(delivered(event, offset=77), Poison("poison"))
    assert again.origin == event.envelope.origin, "a duplicate has the same identity"


async def test_who_lost_its_claim_writes_no_dead_letter(processes: Any, pool: databases.Pool) -> None:
    """The one that took over decides."""
    one, two = processes(), processes()
    event = routed()
    await one.claims.open(event)
    await expire(pool)
    await two.claims.take_over(10)
    assert (await one.worker.bury(event, ValueError("boom"))).wanted is False
    assert (await row_of(pool, event))["state"] == "live"


async def test_a_record_that_dies_before_its_claim_is_a_plain_dead_letter(processes: Any) -> None:
    """Nothing was paid beyond the earlier hops."""
    event = routed(spent_usd=Decimal("0.0003"))
    burial = await processes().worker.bury(event, Poison("poison"))
    assert (burial.wanted, burial.origin, burial.paid_usd) == (True, None, Decimal("0.0003"))


async def test_a_closing_is_never_dead_lettered(processes: Any) -> None:
    """The stage waits instead."""
    with pytest.raises(Transient) as said:
        await processes().worker.bury(closing(routed()), ValueError("boom"))
    assert said.value.scope == "dependency"


async def test_a_chain_exhausted_for_now_is_a_dead_letter_and_its_attempt_leaves_by_the_outbox(
    processes: Any, pool: databases.Pool
) -> None:
    """Rule 9. The handler raises and so emits nothing: provider health must hear of it all the same."""
    one = processes(instead=lambda *_: DOWN)
    event = routed(offset=5)
    with pytest.raises(Exhausted):
        await one.worker.handle(event)
    burial = await one.worker.bury(event, Exhausted("x"))
    assert (burial.origin, burial.paid_usd) == (event.envelope.origin, Decimal(0))
    assert await pool.fetchval("SELECT topic FROM gpu_worker.outbox") == "provider.outcome.v1"
    with pytest.raises(Exhausted):
        await processes().worker.handle(delivered(event, offset=5))
    assert await pool.fetchval("SELECT count(*) FROM gpu_worker.outbox") == 1


async def test_a_replay_opens_an_exhausted_claim_again_with_a_higher_fence(
    processes: Any, pool: databases.Pool
) -> None:
    """It succeeds this time; its dead letter would have been a new one; a redelivery of the replay opens nothing."""
    answers: list[Answer | None] = [DOWN, None]
    one = processes(instead=lambda *_: answers.pop(0))
    event = routed(offset=5)
    await one.deliver(event)
    back = replay(event, offset=50)
    made, _ = await one.deliver(back)
    assert isinstance(made, ImageGenerated) and made.image.key.endswith("-0-2")
    assert made.spent_usd == Decimal("0.0004"), "the exhausted try cost nothing"
    assert (await row_of(pool, event))["origin"] == back.envelope.origin
    again = await one.deliver(replay(event, offset=50))
    assert [each.model_dump() for each in again] == [each.model_dump() for each in (made, _)]


async def test_a_redelivered_replay_that_died_again_is_not_opened_once_more(
    processes: Any, pool: databases.Pool
) -> None:
    """Only another replay, of its new dead letter, opens it: no paid loop."""
    one = processes(instead=lambda *_: DOWN)
    event = routed(offset=5)
    await one.deliver(event)
    await one.deliver(replay(event, offset=50))
    await one.deliver(replay(event, offset=50))
    assert [letter.origin for letter in one.letters] == [
        "image.routed.local.v1:0:5",
        "image.routed.local.v1:0:50",
        "image.routed.local.v1:0:50",
    ]
    assert (await row_of(pool, event))["fence"] == 2 and len(one.stub.batches) == 2


async def test_a_replay_of_a_claim_that_did_not_die_answers_with_its_event(processes: Any) -> None:
    """Rule 8: any other finished claim."""
    one = processes()
    event = routed()
    first = await one.deliver(event)
    assert [each.event_id() for each in await one.deliver(replay(event, offset=9))] == [
        each.event_id() for each in first
    ]
    assert len(one.stub.batches) == 1


async def test_an_exhausted_claim_that_nobody_buried_is_found_by_the_sweeper(
    processes: Any, pool: databases.Pool
) -> None:
    """Death between finishing and the dead letter; the replayed one is not opened by that."""
    one, two = processes(instead=lambda *_: DOWN), processes()
    event = replay(routed(), offset=7)
    with pytest.raises(Exhausted):
        await one.worker.handle(event)
    await expire(pool, 60)
    await two.sweeper.once()
    assert [letter.origin for letter in two.letters] == [event.envelope.origin]
    assert not two.stub.batches and (await row_of(pool, event))["acknowledged"]


async def test_a_discard_ends_a_dead_or_unclaimed_candidate_and_leaves_others_alone(
    processes: Any, pool: databases.Pool
) -> None:
    """Rule 11: GenerationFailed with what was spent; live and finished ones are not touched."""
    one = processes()
    dead, fresh, live, done = (routed(offset=at) for at in range(4))
    await one.claims.open(dead)
    await one.worker.bury(dead, ValueError("boom"))
    await one.claims.open(live)
    first = await one.deliver(done)
    for event in (dead, fresh, live, done):
        await one.deliver(replay(event, offset=20 + event.index, discard=True))
    told = {event.candidate_id: (event.reasons[-1].code, event.spent_usd) for event in one.told(GenerationFailed)}
    assert told == {dead.candidate_id: ("discarded", Decimal("0.0004")), fresh.candidate_id: ("discarded", Decimal(0))}
    assert (await row_of(pool, live))["state"] == "live"
    assert {each.event_id() for each in one.told(ImageGenerated)} == {first[0].event_id()}


async def test_an_outage_of_the_bucket_costs_no_second_image(processes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bus tries the record again in this process: the claim and the finished picture are still in hand."""
    one = processes()
    event = routed()
    put, away = one.blobs.put, [True, True, False]

    async def flaky(*said: Any, **more: Any) -> Any:
        if away.pop(0):
            raise Transient("the bucket is away")
        return await put(*said, **more)

    one.blobs.put = flaky
    for _ in range(2):
        with pytest.raises(Transient):
            await one.worker.handle(event)
    made, _ = await one.deliver(event)
    assert isinstance(made, ImageGenerated)
    assert (len(one.stub.batches), made.spent_usd) == (1, Decimal("0.0004"))


async def test_a_record_that_went_elsewhere_between_two_tries_is_taken_over_there(
    processes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage, then a rebalance: the other process sees a live claim, and this one is never asked again."""
    one, other = processes(), processes()
    event = routed()

    async def away(*_: Any, **__: Any) -> None:
        raise Transient("the bucket is away")

    monkeypatch.setattr(one.worker.blobs, "put", away)
    with pytest.raises(Transient):
        await one.worker.handle(event)
    monkeypatch.undo()
    assert await other.deliver(event) == []
    await one.claims.renew()
    await other.sweeper.once()
    assert not other.sent  # it is kept for another try here
    monkeypatch.setattr(claims_file, "PARKED_MAX_S", -1.0)
    await one.claims.renew()
    await other.sweeper.once()
    (made,) = [sent for sent in other.sent if isinstance(sent, ImageGenerated)]
    assert made.spent_usd == Decimal("0.0008")  # the first image may have been paid for


async def test_a_handler_that_was_cut_off_goes_on_waiting_for_the_same_image(processes: Any) -> None:
    """The deadline layer cancels and tries again: one image, paid once."""
    go = asyncio.Event()

    async def before(_: Sequence[Ask]) -> None:
        await go.wait()

    one = processes(before=before)
    event = routed()
    first = asyncio.create_task(one.worker.handle(event))
    await until(lambda: one.stub.batches)
    first.cancel()
    await asyncio.wait({first})
    second = asyncio.create_task(one.deliver(event))
    go.set()
    assert isinstance((await second)[0], ImageGenerated)
    assert len(one.stub.batches) == 1


async def test_a_record_that_a_rebalance_brings_back_waits_for_the_handler_that_has_it(processes: Any) -> None:
    """Same process, same record twice at once: one image, both told."""
    one = processes()
    event = routed()
    first, second = await asyncio.gather(one.deliver(event), one.deliver(delivered(event, offset=0)))
    assert [each.event_id() for each in first] == [each.event_id() for each in second]
    assert len(one.stub.batches) == 1


async def test_a_taken_over_record_that_a_switch_holds_is_left_until_it_comes_back(
    processes: Any, pool: databases.Pool
) -> None:
    """No handler saw it: nothing is paid, nobody sweeps it again and again, and the released record is worked on."""
    one, two = processes(), processes()
    event = routed()
    await one.claims.open(event)
    await expire(pool)
    held: list[Record] = []

    async def hold(record: Record) -> None:
        held.append(record)

    two.sweeper.submit = hold
    await two.sweeper.once()
    await two.sweeper.once()
    assert len(held) == 1 and held[0].value == event.envelope.value
    made, _ = await two.deliver(delivered(event, offset=99))
    assert made.spent_usd == Decimal("0.0008"), "only the vanished owner's price is at risk"


async def test_a_stopping_process_gives_its_takeovers_back_at_once(processes: Any, pool: databases.Pool) -> None:
    """The next one need not wait for a lease, and no price is added for work that never began."""
    one, two, three = processes(), processes(), processes()
    event = routed()
    await one.claims.open(event)
    await expire(pool)

    async def stopping(record: Record) -> None:
        raise Transient("stopping")

    two.sweeper.submit = stopping
    await two.sweeper.once()
    await three.sweeper.once()
    (made,) = three.told(ImageGenerated)
    assert made.spent_usd == Decimal("0.0008")


async def test_other_pools_claims_are_not_swept(processes: Any, pool: databases.Pool) -> None:
    """A worker of `local` cannot make what `hosted` was asked."""
    one = processes()
    await one.claims.open(routed())
    await pool.execute("UPDATE gpu_worker.claims SET pool = 'hosted'")
    await expire(pool)
    assert await one.claims.take_over(10) == []


async def test_the_stored_record_is_the_one_that_came(processes: Any, pool: databases.Pool) -> None:
    """Bytes and headers untouched, unknown fields and bytes that are no text included."""
    one, two = processes(), processes()
    event = routed(headers=(("traceparent", b"00-1-2-03"), ("odd", b"\x00\xff")))
    value = b'{"new_field":1,' + (event.envelope.value or b"")[1:]
    event.delivered(wire.read(event.envelope.headers).at("image.routed.local.v1:3:17", 1_700_000_000_123, value))
    await one.claims.open(event)
    await expire(pool)
    (claim,) = await two.claims.take_over(10)
    record = claim.row.record
    assert (record.topic, record.partition, record.offset) == ("image.routed.local.v1", 3, 17)
    assert (record.value, record.headers, record.timestamp_ms) == (value, event.envelope.headers, 1_700_000_000_123)
    assert record.key == event.key().encode()


async def test_old_claims_and_ended_requests_are_forgotten(processes: Any, pool: databases.Pool) -> None:
    """Live and unacknowledged ones are kept however old."""
    one = processes()
    done, live = routed(offset=1), routed(offset=2)
    await one.deliver(done)
    await one.claims.open(live)
    await one.deliver(closing(done))
    await pool.execute("UPDATE gpu_worker.claims SET finished_at = finished_at - interval '90 days'")
    await pool.execute("UPDATE gpu_worker.ended SET ended_at = ended_at - interval '90 days'")
    await one.claims.forget()
    assert await pool.fetchval("SELECT count(*) FROM gpu_worker.claims") == 1
    assert await pool.fetchval("SELECT count(*) FROM gpu_worker.ended") == 0


async def test_a_provider_that_cannot_hands_over_to_the_next_and_the_last_one_fails(processes: Any) -> None:
    """One claim per hop; the sum travels."""

    def instead(_: Model, __: Ask) -> Answer:
        return NotMade(outcome="unusable", message="blank", paid_usd=Decimal("0.0001"))

    one = processes(instead=instead)
    event = routed(hop(FINAL), hop(DRAFT))
    following = (await one.deliver(event))[0]
    assert isinstance(following, ImageRouted) and following.spent_usd == Decimal("0.0001")
    failed = (await one.deliver(delivered(following, offset=1)))[0]
    assert isinstance(failed, GenerationFailed)
    assert failed.spent_usd == Decimal("0.0002") and len(failed.reasons) == 2


async def test_a_hundred_candidates_over_two_processes_are_each_made_once(processes: Any) -> None:
    """A hundred candidates of one request over two processes: each exactly one image."""
    one, two = processes(), processes()
    request_id = routed().request_id
    events = [routed(request_id=request_id, index=index, offset=index, seed=index) for index in range(100)]
    await asyncio.gather(*(process.deliver(event) for process, event in zip([one, two] * 50, events, strict=True)))
    made = {event.candidate_id for event in one.told(ImageGenerated) + two.told(ImageGenerated)}
    assert made == {event.candidate_id for event in events}
    assert len(one.told(ImageGenerated)) == 50


async def test_a_strict_candidate_goes_on_to_who_can_make_it_as_asked(processes: Any) -> None:
    """Unpaid and by the field, though the router did not know; a hop that is adjusted already is not asked at all."""
    process = processes(instead=lambda row, ask: None if row.name == DRAFT.name else adjusting.refused([SHORT]))
    event = routed(hop(FINAL), hop(DRAFT), request={"strict": True})
    (onward, attempt) = await process.deliver(event)
    assert isinstance(onward, ImageRouted) and isinstance(attempt, ProviderOutcome)
    assert (onward.hop, onward.spent_usd, onward.reasons[-1].code) == (1, Decimal(0), "param_unsupported")
    assert "prompt" in onward.reasons[-1].message and attempt.outcome == "invalid"
    (generated, _) = await process.deliver(delivered(onward, offset=1))
    assert isinstance(generated, ImageGenerated) and generated.adjustments == ()
    asked = len(process.stub.batches)
    changed = routed(hop(DRAFT, adjustments=[SHORT.model_dump()]), request={"strict": True}, offset=2)
    (failed, _) = await process.deliver(changed)
    assert isinstance(failed, GenerationFailed) and len(process.stub.batches) == asked
