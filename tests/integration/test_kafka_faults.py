"""What a real broker and real members do to the transport: hang, die, come late, come back, crowd each other."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka.admin import NewPartitions

from giclee.bus.errors import Fenced, Transient
from giclee.bus.kafka import KafkaTransport, Timings
from giclee.bus.transport import Partition
from tests.contract.transport_suite import numbered, values
from tests.kit import stack as parts
from tests.kit.kafka_world import KafkaWorld, Settings
from tests.kit.members import Member, joined, polled
from tests.kit.wait import until

pytestmark = pytest.mark.real

QUICK = Timings(
    session_s=3.0,
    heartbeat_s=0.5,
    rebalance_s=6.0,
    drain_margin_s=2.0,
    request_s=16.0,
    poll_gap_max_s=3.0,
    join_s=20.0,
    commit_s=2.0,
    silence_s=2.0,
    rejoin_s=15.0,
    produce_request_s=2.5,
    send_s=4.0,
    stop_s=2.0,
    metadata_age_s=5.0,
)
"""The proportions of the real ones, shorter."""


@pytest.fixture(scope="module")
def broker() -> Iterator[parts.KafkaRunning]:
    """A broker of this file alone: it is killed and frozen."""
    with parts.kafka_part() as running:
        yield running


@pytest.fixture
async def world(broker: parts.KafkaRunning, topic_prefix: str) -> AsyncIterator[KafkaWorld]:
    found = KafkaWorld(broker.bootstrap_servers, topic_prefix, QUICK)
    yield found
    broker.running.resume()
    await started(broker)
    await found.close()


async def started(broker: parts.KafkaRunning) -> None:
    """The broker runs and answers. Started by this thread: it dies with the thread that started it."""
    broker.running.start(wait=False)
    await asyncio.to_thread(broker.running.wait_ready)


class frozen:
    """The broker hangs inside this block: connections stay, answers do not come."""

    def __init__(self, broker: parts.KafkaRunning) -> None:
        self._running = broker.running

    async def __aenter__(self) -> None:
        self._running.pause()
        tasks = Path(f"/proc/{self._running.pid}/task")
        await until(lambda: {(task / "stat").read_text().rpartition(")")[2][1] for task in tasks.iterdir()} == {"T"})

    async def __aexit__(self, *error: object) -> None:
        self._running.resume()


class took:
    """Fails when a block takes longer than `most_s`."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s

    def __enter__(self) -> None:
        self._begin = time.monotonic()

    def __exit__(self, *error: object) -> None:
        assert time.monotonic() - self._begin < self._most_s


# ---- starting --------------------------------------------------------------------------------------


async def test_a_broker_that_comes_later_is_waited_for(broker: parts.KafkaRunning, world: KafkaWorld) -> None:
    """Started before its broker, a process waits, says why, and then works; nothing is raised and nothing restarted."""
    topic = await world.topic("later", 1, groups=["g"])
    await asyncio.to_thread(broker.running.stop)
    reader, writer, member = world.transport.reader("g", [topic]), world.transport.writer("w"), Member()
    starting: list[asyncio.Task[str] | asyncio.Task[None]] = [asyncio.create_task(world.transport.cluster_id())]
    starting += [asyncio.create_task(one) for one in (reader.start(member), writer.start())]
    await until(lambda: "away" in (reader.trouble or ""))
    assert not any(task.done() for task in starting)

    await started(broker)
    await asyncio.wait_for(asyncio.gather(*starting), 30)
    await writer.send(numbered(topic, [1]))

    assert values(await member.read(reader, 1)) == [1]
    assert reader.trouble is None
    await reader.stop()
    await writer.stop()


async def test_what_still_waits_for_its_broker_can_be_stopped() -> None:
    """A process told to stop before it ever had a broker stops at once."""
    transport = KafkaTransport(Settings("127.0.0.1:9"), timings=QUICK)
    reader, writer = transport.reader("g", ["t"]), transport.writer("w")
    starting = [asyncio.create_task(one) for one in (reader.start(Member()), writer.start())]
    await until(lambda: "away" in (reader.trouble or ""))

    with took(1.0):
        await reader.stop()
        await writer.stop()
        outcomes = await asyncio.gather(*starting, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [Transient, Transient]


async def test_a_missing_topic_keeps_a_reader_waiting_and_is_said(world: KafkaWorld) -> None:
    """The remedy is in `trouble`; once the operator has made the topic the reader starts by itself."""
    reader = world.transport.reader("g", ["to-be-made"])
    starting = asyncio.create_task(reader.start(Member()))
    await until(lambda: "giclee topics apply" in (reader.trouble or ""), within_s=40)

    await world.topic("to-be-made", 1, groups=["g"])
    await asyncio.wait_for(starting, 30)

    await reader.stop()


# ---- the broker fails ------------------------------------------------------------------------------


async def test_a_killed_broker_comes_back_and_nothing_acknowledged_is_lost(
    broker: parts.KafkaRunning, world: KafkaWorld
) -> None:
    """kill -9 in the middle of sending: sends say so in time, polls too, and both go on after the restart, in order."""
    topic = await world.topic("killed", 1, groups=["g"])
    reader, writer = world.transport.reader("g", [topic]), world.transport.writer("w")
    acknowledged: list[int] = []

    async def send_next() -> None:
        await writer.send(numbered(topic, [len(acknowledged)]))
        acknowledged.append(len(acknowledged))

    await writer.start()
    async with joined(reader) as member, polled(member, reader):
        for _ in range(20):
            await send_next()
        await asyncio.to_thread(broker.running.kill)
        with took(QUICK.send_s + 1), pytest.raises(Transient):
            await send_next()
        await until(lambda: member.troubles, within_s=QUICK.silence_s + 5)

        await started(broker)
        await until(lambda: _succeeds(send_next), within_s=30)
        for _ in range(20):
            await send_next()
        await until(lambda: values(member.records)[-1] == acknowledged[-1], within_s=30)

    assert list(dict.fromkeys(values(member.records))) == acknowledged
    assert values(member.records) == sorted(values(member.records))
    await writer.stop()


async def test_a_hung_broker_hangs_nobody(broker: parts.KafkaRunning, world: KafkaWorld) -> None:
    """Frozen, the worst kind: send, commit, ends, poll and stop all return within their deadlines."""
    topic = await world.topic("hung", 1, groups=["g"])
    reader, writer = world.transport.reader("g", [topic]), world.transport.writer("w")
    await writer.start()
    async with joined(reader) as member:
        await writer.send(numbered(topic, [0]))
        await member.read(reader, 1)
        async with frozen(broker):
            with took(QUICK.send_s + 1), pytest.raises(Transient):
                await writer.send(numbered(topic, [1]))
            with took(QUICK.commit_s + 1), pytest.raises(Transient):
                await reader.commit({Partition(topic, 0): 1})
            with took(QUICK.commit_s + 1), pytest.raises(Transient):
                await reader.ends()
            with took(0.5):
                await member.poll(reader, 100)
            await until(lambda: _troubled(member, reader), within_s=QUICK.silence_s + 3)
            with took(QUICK.stop_s + 0.5):
                await reader.stop()
            with took(QUICK.stop_s + 0.5):
                await writer.stop()


async def test_what_a_given_up_producer_had_is_not_written_later_behind_newer_records(
    broker: parts.KafkaRunning, world: KafkaWorld
) -> None:
    """After the deadline the old attempt and the new one may both be in the log, never the old behind the new."""
    topic = await world.topic("behind", 1, groups=["g"])
    reader, writer = world.transport.reader("g", [topic]), world.transport.writer("w")
    await writer.start()
    await writer.send(numbered(topic, [0]))
    async with frozen(broker):
        with pytest.raises(Transient):
            await writer.send(numbered(topic, [1]))

    await until(lambda: _succeeds(lambda: writer.send(numbered(topic, [1]))), within_s=30)
    await writer.send(numbered(topic, [2]))

    async with joined(reader) as member:
        await until(lambda: _at_the_end(member, reader))
    assert values(member.records) in ([0, 1, 2], [0, 1, 1, 2])
    await writer.stop()


async def test_a_reader_outlives_a_hung_broker(broker: parts.KafkaRunning, world: KafkaWorld) -> None:
    """Frozen for longer than a session, then awake: the member is back and goes on where it committed."""
    topic = await world.topic("awake", 2, groups=["g"])
    reader, writer = world.transport.reader("g", [topic]), world.transport.writer("w")
    await writer.start()
    async with joined(reader) as member:
        await writer.send(numbered(topic, range(4), partition=0))
        await member.read(reader, 4)
        await reader.commit({Partition(topic, 0): 4})
        async with frozen(broker):
            await until(lambda: _troubled(member, reader), within_s=10)
        async with polled(member, reader):
            await until(lambda: _succeeds(lambda: writer.send(numbered(topic, [4], partition=0))), within_s=30)
            await until(lambda: 4 in values(member.records), within_s=30)
    assert list(dict.fromkeys(values(member.records))) == [0, 1, 2, 3, 4]
    await writer.stop()


# ---- members ---------------------------------------------------------------------------------------


class Process:
    """A member in a process of its own."""

    def __init__(self, world: KafkaWorld, group: str, topic: str) -> None:
        settings = world.settings
        self._arguments = (settings.bootstrap_servers, settings.topic_prefix, group, topic, json.dumps(asdict(QUICK)))

    async def __aenter__(self) -> Process:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.kit.member_process", *self._arguments),
            cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._process.returncode is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
        await self._process.wait()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def says(self, words: str, within_s: float = 20.0) -> None:
        """Wait until it says `words`; anything else it says before is passed over."""
        assert self._process.stdout is not None
        async with asyncio.timeout(within_s):
            while (line := (await self._process.stdout.readline()).decode()).strip() != words:
                assert line, "it ended"

    async def asked_to_commit(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"commit\n")
        await self._process.stdin.drain()


async def test_a_killed_member_keeps_its_partitions_for_one_session_only(world: KafkaWorld) -> None:
    """After kill -9 the others have everything once the session has run out."""
    topic = await world.topic("crash", 4, groups=["g"])
    reader = world.transport.reader("g", [topic])
    async with joined(reader) as member, polled(member, reader), Process(world, "g", topic) as other:
        await until(lambda: len(reader.assignment()) == 2, within_s=20)
        other.signal(signal.SIGKILL)
        await until(lambda: len(reader.assignment()) == 4, within_s=QUICK.session_s + QUICK.heartbeat_s + 3)


async def test_a_frozen_member_is_fenced_when_it_wakes(world: KafkaWorld) -> None:
    """Frozen beyond its session it has lost its partitions; what it then commits is refused, and it joins again."""
    topic = await world.topic("woken", 2, groups=["g"])
    reader, writer = world.transport.reader("g", [topic]), world.transport.writer("w")
    await writer.start()
    await writer.send([*numbered(topic, range(3), partition=0), *numbered(topic, range(3), partition=1)])
    async with Process(world, "g", topic) as other:
        await other.says("owns 2")
        other.signal(signal.SIGSTOP)
        async with joined(reader) as member:
            await member.read(reader, 6)
            await reader.commit({Partition(topic, 0): 3, Partition(topic, 1): 3})
            await other.asked_to_commit()
            other.signal(signal.SIGCONT)
            async with polled(member, reader):
                await other.says("Fenced")
                await other.says("owns 1")
        assert await world.committed("g", topic, 2) == {Partition(topic, 0): 3, Partition(topic, 1): 3}
    await writer.stop()


async def test_work_longer_than_the_poll_gap_keeps_its_partitions(world: KafkaWorld) -> None:
    """Paused and polled, a member may work as long as it likes: same assignment, no other record, commit accepted."""
    topic = await world.topic("long", 1, groups=["g"])
    at = Partition(topic, 0)
    reader, writer = world.transport.reader("g", [topic]), world.transport.writer("w")
    await writer.start()
    await writer.send(numbered(topic, range(3)))
    async with joined(reader) as member:
        while not member.records:
            await member.poll(reader, 200, max_records=1)
        reader.pause([at])
        done_at = time.monotonic() + 2 * max(QUICK.poll_gap_max_s, QUICK.session_s)
        while time.monotonic() < done_at:
            assert not await member.poll(reader, 200)
        await reader.commit({at: 1})
        assert await world.members("g") == 1
        reader.resume([at])
        await member.read(reader, 3)

    assert len(member.assignments) == 1
    assert values(member.records) == [0, 1, 2]
    assert member.troubles == []
    await writer.stop()


async def test_a_member_that_stops_polling_is_left_behind_until_it_polls_again(world: KafkaWorld) -> None:
    """A loop that hangs must not keep its partitions for ever; once it polls again it gets its share."""
    topic = await world.topic("hanging", 2, groups=["g"])
    reader, other = world.transport.reader("g", [topic]), world.transport.reader("g", [topic])

    async with joined(reader) as member, polled(member, reader), joined(other) as second:
        await second.poll(other)
        await until(lambda: len(reader.assignment()) == 2, within_s=QUICK.poll_gap_max_s + QUICK.session_s + 8)
        with pytest.raises(Fenced):
            await other.commit({Partition(topic, 0): 0, Partition(topic, 1): 0})
        async with polled(second, other):
            await until(lambda: len(reader.assignment()) == 1 and len(other.assignment()) == 1, within_s=20)


async def test_a_drain_that_takes_too_long_is_cut_short(world: KafkaWorld) -> None:
    """The group does not evict the slow member for it: both are members afterwards, and the late commit is fenced."""
    topic = await world.topic("slow", 2, groups=["g"])
    one, two = world.transport.reader("g", [topic]), world.transport.reader("g", [topic])

    async def never_done(partitions: Collection[Partition]) -> None:
        await asyncio.Event().wait()

    async with joined(one, Member(never_done)) as first, polled(first, one):
        with took(QUICK.rebalance_s + QUICK.heartbeat_s):
            async with joined(two) as second, polled(second, two):
                await until(lambda: len(one.assignment()) == 1 and len(two.assignment()) == 1)
                assert await world.members("g") == 2
                with pytest.raises(Fenced):
                    await one.commit(dict.fromkeys(two.assignment(), 0))
                first.drain = second.drain


async def test_polls_keep_their_time_while_the_group_waits_for_a_slow_member(world: KafkaWorld) -> None:
    """A rebalance that takes seconds blocks no poll longer than asked."""
    topic = await world.topic("waiting", 2, groups=["g"])
    one, two = world.transport.reader("g", [topic]), world.transport.reader("g", [topic])
    drained = asyncio.Event()

    async def drains(partitions: Collection[Partition]) -> None:
        await drained.wait()

    async with joined(one, Member(drains)) as first:
        joining = asyncio.create_task(two.start(Member()))
        while not first.revocations:
            with took(0.6):
                await first.poll(one, 200)
        for _ in range(5):
            with took(0.6):
                assert not await first.poll(one, 200)
        first.drain = Member().drain
        drained.set()
        await asyncio.wait_for(joining, 10)
        await two.stop()


async def test_stopping_with_everything_under_way_is_quick_and_leaves_the_group(world: KafkaWorld) -> None:
    """A poll, a commit and sends in flight: stop returns, each of them ends, and the group has no member left."""
    topic = await world.topic("stopping", 3, groups=["g"])
    reader, writer, member = world.transport.reader("g", [topic]), world.transport.writer("w"), Member()
    await writer.start()
    await reader.start(member)
    work = [
        asyncio.create_task(reader.poll(10_000, 10)),
        asyncio.create_task(reader.commit({Partition(topic, 0): 0})),
        *(asyncio.create_task(writer.send(numbered(topic, range(50), key=str(n).encode()))) for n in range(10)),
    ]
    await until(lambda: work[1].done())

    with took(QUICK.stop_s + 1):
        await reader.stop()
        await writer.stop()
    outcomes = await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), 12)

    assert {type(one) for one in outcomes if isinstance(one, BaseException)} <= {Transient, Fenced}
    assert await world.members("g") == 0


async def test_a_consumer_that_broke_is_replaced(world: KafkaWorld) -> None:
    """An error that the library cannot get over costs one poll: partitions are taken back, given again, read on."""
    topic = await world.topic("broken", 1, groups=["g"])
    at = Partition(topic, 0)
    reader, writer = world.transport.reader("g", [topic]), world.transport.writer("w")
    await writer.start()
    await writer.send(numbered(topic, range(5)))
    async with joined(reader) as member:
        await member.read(reader, 5)
        await reader.commit({at: 3})
        assert reader.consumer is not None
        reader.consumer._coordinator._pending_exception = KafkaError("broken by a test")
        await member.read(reader, 7)

    assert values(member.records) == [0, 1, 2, 3, 4, 3, 4]
    assert (len(member.revocations), len(member.assignments)) == (1, 2)
    assert "broken by a test" in member.troubles[0]
    await writer.stop()


async def test_a_reader_whose_fetching_died_in_silence_begins_anew(world: KafkaWorld) -> None:
    """A background task of the library is gone and nobody says so: what is written later is read all the same."""
    topic = await world.topic("silent", 1, groups=["g"])
    transport = KafkaTransport(world.settings, client_id="test", timings=replace(QUICK, rejoin_s=1.0))
    reader, writer = transport.reader("g", [topic]), transport.writer("w")
    await writer.start()
    await writer.send(numbered(topic, range(3)))
    async with joined(reader) as member:
        await member.read(reader, 3)
        await reader.commit({Partition(topic, 0): 3})
        assert reader.consumer is not None
        fetcher = reader.consumer._fetcher
        for task in (fetcher._fetch_task, *fetcher._pending_tasks):
            task.cancel()
        await writer.send(numbered(topic, range(3, 6)))
        await member.read(reader, 6, within_s=QUICK.silence_s + QUICK.rebalance_s + 10)

    assert values(member.records) == [0, 1, 2, 3, 4, 5]
    assert "no answer from the broker" in member.troubles[0]
    await writer.stop()


# ---- topics and records ----------------------------------------------------------------------------


async def test_offsets_that_are_gone_are_not_guessed(world: KafkaWorld) -> None:
    """A group whose next record no longer exists stops and says so; skipping or repeating is for people to choose."""
    topic = await world.topic("gone", 1, groups=["g"])
    await world.set_offsets("g", {Partition(topic, 0): 1000})
    reader = world.transport.reader("g", [topic])

    async with joined(reader) as member:
        await until(lambda: _troubled(member, reader))

    assert "set its offset by hand" in member.troubles[0]


async def test_a_partition_made_a_moment_ago_can_be_written(world: KafkaWorld) -> None:
    """A topic grew: a record for its new partition asks the broker instead of failing until metadata is renewed."""
    topic = await world.topic("grown", 1)
    writer = world.transport.writer("w")
    await writer.start()
    await writer.send(numbered(topic, [0]))
    request = [NewPartitions(world.settings.topic_prefix + topic, 3)]
    for future in world._admin.create_partitions(request).values():
        await asyncio.wrap_future(future)

    async def written() -> bool:
        return await _succeeds(lambda: writer.send(numbered(topic, [1], partition=2)))

    with took(QUICK.metadata_age_s):
        await until(written)
    await writer.stop()


class BadName(str):
    """A header name as a client in C may write it; only the library's slow builder lets it through."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"bad-\xff-name"


async def test_a_header_name_that_is_not_utf8_stops_nothing(world: KafkaWorld) -> None:
    """Anyone may write such a record to a public topic: it arrives, legible, and so do those around it."""
    topic = await world.topic("names", 1, groups=["g"])
    writer, reader = world.transport.writer("w"), world.transport.reader("g", [topic])
    await writer.start()
    await writer.send(numbered(topic, [0, 1]))
    foreign = AIOKafkaProducer(bootstrap_servers=world.settings.bootstrap_servers, compression_type="lz4")
    await foreign.start()
    batch = foreign.create_batch()
    batch._builder = _DefaultRecordBatchBuilderPy(2, 3, 0, -1, -1, 0, 16_384)  # record format 2, lz4
    for number in (2, 3, 4):
        headers = [(BadName("bad"), b"\xfe")] if number == 3 else []
        assert batch.append(timestamp=None, key=b"one", value=str(number).encode(), headers=headers)
    await (await foreign.send_batch(batch, world.settings.topic_prefix + topic, partition=0))
    await foreign.stop()
    await writer.send(numbered(topic, [5]))

    async with joined(reader) as member:
        records = await member.read(reader, 6)

    assert values(records) == [0, 1, 2, 3, 4, 5]
    assert records[3].headers == (("bad-\\xff-name", b"\xfe"),)
    assert member.troubles == []
    await writer.stop()


# ---- conditions ------------------------------------------------------------------------------------


async def _succeeds(action) -> bool:  # type: ignore[no-untyped-def]
    try:
        await action()
    except Transient:
        return False
    return True


async def _troubled(member: Member, reader) -> bool:  # type: ignore[no-untyped-def]
    await member.poll(reader)
    return bool(member.troubles)


async def _at_the_end(member: Member, reader) -> bool:  # type: ignore[no-untyped-def]
    await member.poll(reader)
    return bool(await reader.caught_up(reader.assignment()) == await reader.ends())
