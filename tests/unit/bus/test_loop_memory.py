"""THE loop against faults of one process: what the broker refuses, what hooks raise, what is cut short."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from giclee.bus.errors import Poison, Transient
from giclee.bus.loop import BACKLOG_MIN, Loop
from giclee.bus.memory import MemoryTransport
from giclee.bus.stage import Burial, Context, Stage
from giclee.bus.transport import Partition, Rebalance, Record
from giclee.schemas.events import Event, ImageRefused, ImageRequested, ImageStalled
from giclee.schemas.parts import Position, Reason
from tests.kit.loops import header, request_record, running
from tests.kit.wait import until

REQUESTED, REFUSED, STALLED = "image.requested.v1", "image.refused.v1", "image.stalled.v1"


class Door:
    """A writer whose topics can be shut: a send to a shut one raises Transient."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._inner = transport.writer("door")
        self.shut: set[str] = set()
        self.knocks = 0

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def send(self, records: Sequence[Record]) -> Sequence[Position]:
        if any(record.topic in self.shut for record in records):
            self.knocks += 1
            raise Transient("that partition has no leader")
        return await self._inner.send(records)


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport()


@pytest.fixture
async def door(transport: MemoryTransport) -> AsyncIterator[Door]:
    yield Door(transport)


def refusal(event: ImageRequested) -> ImageRefused:
    reason = Reason(code="policy_rule", stage="policy", message="no")
    return ImageRefused(**event.echo(), reasons=(reason,), policy_version="p", accepted_at=event.envelope.recorded_at)


async def refuse(event: ImageRequested) -> list[Event]:
    return [refusal(event)]


async def broken(event: ImageRequested) -> list[Event]:
    raise ZeroDivisionError("a bug")


def stage(handle: Any = refuse, **fields: Any) -> Stage:
    return Stage(name="policy", reads=(ImageRequested,), emits=(ImageRefused,), handle=handle, **fields)


def stalls(transport: MemoryTransport) -> list[ImageStalled]:
    return [ImageStalled.model_validate_json(record.value or b"") for record in transport.records(STALLED)]


async def done(transport: MemoryTransport) -> None:
    await until(lambda: transport.lag("giclee.policy", [REQUESTED]) == 0)


# ---- the broker takes nothing -------------------------------------------------------------------


async def test_a_dead_letter_that_waits_for_the_broker_is_one_death(transport: MemoryTransport, door: Door) -> None:
    """While it cannot be written its handler is not run again, and the tries are no run of dead letters."""
    calls: list[uuid.UUID] = []

    async def once(event: ImageRequested) -> list[Event]:
        calls.append(event.request_id)
        raise Poison("never")

    door.shut.add(f"{REQUESTED}.dlq")
    async with running(transport, stage(once), door) as loop:
        loop._pause_for = lambda seconds: asyncio.sleep(0)  # type: ignore[method-assign]
        await door.send([request_record()])
        await until(lambda: door.knocks > 30)
        with pytest.raises(Transient, match="no leader"):
            await loop.check()
        door.shut.clear()
        await done(transport)

    assert len(calls) == 1
    assert len(transport.records(f"{REQUESTED}.dlq")) == 1
    assert len(stalls(transport)) == 1


async def test_a_stage_that_cannot_send_is_unready_and_reads_no_further(transport: MemoryTransport, door: Door) -> None:
    """What handlers returned waits in memory: without a bound it would be the whole topic."""
    door.shut.add(REFUSED)
    handled = 0

    async def counted(event: ImageRequested) -> list[Event]:
        nonlocal handled
        handled += 1
        return [refusal(event)]

    async with running(transport, stage(counted), door) as loop:
        await door.send([request_record() for _ in range(6000)])
        await until(lambda: door.knocks > 1)
        with pytest.raises(Transient, match="no leader"):
            await loop.check()
        await until(lambda: loop.progress.pending == 0)
        held = handled
        door.shut.clear()
        await until(lambda: len(transport.records(REFUSED)) == 6000, 30)
        await loop.check()

    assert held < 3000


async def test_a_record_too_large_for_its_dead_letter_topic_does_not_stop_the_line(
    transport: MemoryTransport, door: Door
) -> None:
    """Compressed it fitted where it came from. It is dead-lettered without its bytes, which stay where they were."""
    transport.create(REQUESTED, 6, record_max_bytes=8 * 1024 * 1024)
    huge = Record(topic=REQUESTED, value=b"{" + b" " * 3 * 1024 * 1024, key=b"k", headers=(("h", b"x" * 1024 * 1024),))
    async with running(transport, stage(), door):
        await door.send([huge, request_record()])
        await done(transport)

    (letter,) = transport.records(f"{REQUESTED}.dlq")
    assert letter.value is None
    assert header(letter, "dlq-class") == "invalid"
    assert int(header(letter, "dlq-omitted-bytes")) > 4 * 1024 * 1024
    assert len(stalls(transport)) == len(transport.records(REFUSED)) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b'{"' + b"a" * 1_040_000 + b'":1}',
        b'{"\\ud800":{"a":NaN}}',
        b'{"\\ud800":1,"\\ud800":2}',
        b'{"a\\u0000b":NaN}',
        b"[" + b'"\\u0000",' * 100_000 + b"1]",
        b'{"prompt":"x","extensions":{"n":' + b"9" * 60 + b"}}",
    ],
)
async def test_nothing_that_a_caller_writes_stops_the_line(transport: MemoryTransport, door: Door, raw: bytes) -> None:
    """A field name of a megabyte, names no database can hold, too many errors: one dead letter, one small stall."""
    async with running(transport, stage(), door):
        await door.send([Record(topic=REQUESTED, value=raw), request_record()])
        await done(transport)

    (stalled,) = stalls(transport)
    assert stalled.dead_class == "invalid"
    assert len(transport.records(STALLED)[0].value or b"") < 64 * 1024
    assert "\x00" not in stalled.model_dump_json() and "\\u0000" not in stalled.model_dump_json()
    assert len(transport.records(REFUSED)) == 1


async def test_foreign_headers_do_not_travel_along_the_line(transport: MemoryTransport, door: Door) -> None:
    """A ce_id or traceparent of a megabyte would make what we emit too large for its topic."""
    big = (b"x" * 1_040_000).replace(b"x", b"y")
    for name in ("ce_id", "traceparent", "ce_type"):
        plain = request_record()
        async with running(transport, stage(), door):
            await door.send([replace(plain, headers=((name, big[: 1_040_000 - len(plain.value or b"")]),))])
            await done(transport)

    sent = [*transport.records(REFUSED), *transport.records(STALLED)]
    assert len(sent) == 3
    assert all(len(value) < 4096 for record in sent for _, value in record.headers)


async def test_an_event_too_large_for_its_topic_is_a_dead_letter(transport: MemoryTransport, door: Door) -> None:
    """The broker would refuse it for ever; the record that led to it must not hold up those behind it."""

    async def verbose(event: ImageRequested) -> list[Event]:
        if event.client_ref != "long":
            return [refusal(event)]
        reason = Reason(code="policy_rule", stage="policy", message="n" * 1_100_000)
        return [refusal(event).model_copy(update={"reasons": (reason,)})]

    async with running(transport, stage(verbose), door):
        await door.send([request_record(client_ref="long"), request_record()])
        await done(transport)

    assert [one.dead_class for one in stalls(transport)] == ["poison"]
    assert len(transport.records(REFUSED)) == 1


# ---- hooks and handlers that misbehave ----------------------------------------------------------


@pytest.mark.parametrize("error", [Poison("22P05"), KeyError("bug")])
async def test_a_bury_hook_that_fails_still_gets_its_dead_letter(
    transport: MemoryTransport, door: Door, error: Exception
) -> None:
    """The hook only adds what it knows; without it the dead letter has the record's own identity."""

    async def bury(event: Event | None, died_of: BaseException) -> Burial:
        raise error

    async with running(transport, stage(broken, bury=bury), door):
        await door.send([request_record()])
        await done(transport)

    assert [one.dead_class for one in stalls(transport)] == ["bug"]


async def test_a_bury_hook_that_waits_is_asked_again_after_the_handler(transport: MemoryTransport, door: Door) -> None:
    """Transient from the hook gives nothing up: the handler gets another try and may succeed."""
    tries = 0

    async def second_time(event: ImageRequested) -> list[Event]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Poison("not now")
        return [refusal(event)]

    async def bury(event: Event | None, died_of: BaseException) -> Burial:
        raise Transient("must be noted")

    async with running(transport, stage(second_time, bury=bury), door):
        await door.send([request_record()])
        await done(transport)

    assert len(transport.records(REFUSED)) == 1
    assert transport.records(f"{REQUESTED}.dlq") == []


async def test_a_handler_that_cancels_itself_is_tried_again(transport: MemoryTransport, door: Door) -> None:
    """A future that somebody else cancelled must not end a worker of the loop without a word."""
    tries = 0

    async def stray(event: ImageRequested) -> list[Event]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise asyncio.CancelledError
        return [refusal(event)]

    async with running(transport, stage(stray, concurrency=1), door, sleep=lambda _: asyncio.sleep(0)):
        await door.send([request_record()])
        await done(transport)

    assert len(transport.records(REFUSED)) == 1


async def test_a_settled_hook_that_cannot_note_it_costs_nothing(transport: MemoryTransport, door: Door) -> None:
    """What it notes is a hint: the records are acknowledged and committed all the same."""

    async def settled(events: Sequence[Event]) -> None:
        raise Poison("the database cannot take a value")

    async with running(transport, stage(settled=settled), door):
        await door.send([request_record(), request_record()])
        await done(transport)

    assert len(transport.records(REFUSED)) == 2


# ---- rebalance and end --------------------------------------------------------------------------


class Hasty:
    """A reader whose group waits for nobody: draining is cut short at once."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.listener: Rebalance | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def start(self, listener: Rebalance) -> None:
        self.listener = listener
        await self._inner.start(listener)

    async def take_away(self, partitions: Collection[Partition]) -> None:
        assert self.listener is not None
        try:
            async with asyncio.timeout(0.05):
                await self.listener.revoked(partitions)
        except TimeoutError:
            pass


async def test_a_drain_that_was_cut_short_forgets_its_partitions(transport: MemoryTransport, door: Door) -> None:
    """Else their offsets stay in every later commit, and the group refuses all of them for ever."""
    gate = asyncio.Event()

    async def slow(event: ImageRequested) -> list[Event]:
        await gate.wait()
        return [refusal(event)]

    one = stage(slow)
    reader = Hasty(transport.reader(one.group, one.topics()))
    loop = Loop(Context(stage=one, send=door.send, cluster_id="test"), reader)
    task = asyncio.create_task(loop.run())
    await door.send([request_record()])
    await until(lambda: loop.progress.pending)
    await reader.take_away(tuple(loop.progress.tracks))
    left = dict(loop.progress.tracks)
    gate.set()
    loop.stop()
    await asyncio.wait_for(task, 20)

    assert left == {}


async def test_a_pause_that_ended_during_a_rebalance_is_over(transport: MemoryTransport, door: Door) -> None:
    """What stays with a reader stays paused through a rebalance; a backlog that was taken away meanwhile leaves no
    partition behind that nobody reads."""
    gate, handled = asyncio.Event(), set()

    async def slow(event: ImageRequested) -> list[Event]:
        await gate.wait()
        handled.add(event.request_id)
        return []

    one = stage(slow)
    reader = Hasty(transport.reader(one.group, one.topics()))
    loop = Loop(Context(stage=one, send=door.send, cluster_id="test"), reader)
    task = asyncio.create_task(loop.run())
    await door.send([request_record() for _ in range(BACKLOG_MIN)])
    await until(lambda: loop.progress.pending >= BACKLOG_MIN)  # and with that, paused
    mine = tuple(loop.progress.tracks)
    await reader.take_away(mine)
    gate.set()
    taken_at = loop.beat_at
    await until(lambda: loop.beat_at > taken_at and not loop.progress.pending)
    assert reader.listener is not None
    await reader.listener.assigned(mine)
    later = [uuid.uuid4() for _ in range(20)]
    await door.send([request_record(one) for one in later])
    await until(lambda: handled >= set(later))
    loop.stop()
    await asyncio.wait_for(task, 20)


class Unreachable:
    """A reader that cannot join."""

    def __init__(self) -> None:
        self.stopped = False

    async def start(self, listener: Rebalance) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self.stopped = True


async def test_a_loop_that_cannot_join_is_alive_unready_and_stops_at_once(door: Door) -> None:
    """A broker that is away is no reason to be killed, and no reason to keep whoever stops us."""
    reader = Unreachable()
    loop = Loop(Context(stage=stage(), send=door.send, cluster_id="test"), reader)  # type: ignore[arg-type]
    loop.beat_at -= 3600
    task = asyncio.create_task(loop.run())
    await asyncio.sleep(0)
    loop.alive()
    with pytest.raises(Transient, match="not joined"):
        await loop.check()
    loop.stop()
    await asyncio.wait_for(task, 2)

    assert reader.stopped


async def test_work_that_no_poll_brought_is_refused_by_a_stage_that_is_stopped(
    transport: MemoryTransport, door: Door
) -> None:
    """A take-over is work like any other: a stage that stopped itself, or is stopping, begins none."""
    handled: list[str] = []

    async def noted(event: ImageRequested) -> list[Event]:
        handled.append(str(event.request_id))
        return []

    record = replace(request_record(), partition=0, offset=7)
    async with running(transport, stage(noted), door) as loop:
        await until(lambda: loop.reader.assignment())
        await loop.submit(record)
        loop.stopped_because = "20 dead letters in a row"
        with pytest.raises(Transient):
            await loop.submit(record)
        loop.stopped_because = None
        loop.stop()
        with pytest.raises(Transient):
            await loop.submit(record)

    assert len(handled) == 1
    assert all(offset == 0 for offset in transport.committed("giclee.policy").values())


async def test_a_submitted_record_that_dies_has_one_dead_letter_and_one_stall(
    transport: MemoryTransport, door: Door
) -> None:
    """It goes through the same layers: the dead letter names the place it came from."""
    record = replace(request_record(), partition=2, offset=7)
    async with running(transport, stage(broken), door) as loop:
        await until(lambda: loop.reader.assignment())
        await loop.submit(record)

    (letter,) = transport.records(f"{REQUESTED}.dlq")
    assert (letter.partition, header(letter, "dlq-original-offset")) == (2, "7")
    assert [one.source.offset for one in stalls(transport)] == [7]


async def test_only_the_finished_prefix_is_committed(transport: MemoryTransport, door: Door) -> None:
    """A record that still runs holds the offset, whatever finished behind it."""
    gate = asyncio.Event()

    async def first_waits(event: ImageRequested) -> list[Event]:
        if event.client_ref == "slow":
            await gate.wait()
        return [refusal(event)]

    async with running(transport, stage(first_waits), door) as loop:
        await door.send([replace(request_record(client_ref="slow"), partition=0)])
        await door.send([replace(request_record(), partition=0) for _ in range(5)])
        await until(lambda: len(transport.records(REFUSED)) == 5)
        before = transport.committed("giclee.policy").get(Partition(REQUESTED, 0), 0)
        gate.set()
        await until(lambda: transport.committed("giclee.policy").get(Partition(REQUESTED, 0)) == 6)
        assert loop.progress.pending == 0

    assert before == 0


async def test_two_commits_at_once_never_move_a_group_back(transport: MemoryTransport, door: Door) -> None:
    """The older of two may be slower than the younger: what it says must not be the last word."""
    gate, at = asyncio.Event(), Partition(REQUESTED, 0)

    async with running(transport, stage(), door) as loop:
        await until(loop.reader.assignment)
        commit = loop.reader.commit

        async def one_is_slow(offsets: Mapping[Partition, int]) -> None:
            if offsets.get(at) == 1:
                await gate.wait()
            await commit(offsets)

        loop.reader.commit = one_is_slow  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as commits:
            commits.create_task(loop._commit({at: 1}))
            commits.create_task(loop._commit({at: 2}))
            for _ in range(20):  # turns, in which the younger one would get there
                await asyncio.sleep(0)
            gate.set()

        assert transport.committed("giclee.policy")[at] == 2


async def test_a_lost_acknowledgement_sends_the_same_event_again(transport: MemoryTransport, door: Door) -> None:
    """Whether the broker had it is unknown: it may lie there twice, under one id, and never not at all."""
    async with running(transport, stage(), door):
        transport.acks_to_lose = 1
        with pytest.raises(Transient):
            await door.send([request_record()])
        transport.acks_to_lose = 1
        await done(transport)

    sent = transport.records(REFUSED)
    assert len(sent) in (1, 2)
    assert len({header(one, "ce_id") for one in sent}) == 1
    assert json.loads(sent[0].value or b"")["reasons"]
