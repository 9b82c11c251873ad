"""The outbox on a real database and a real broker: nothing lost, doubled or out of order, whatever breaks."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka.admin import AdminClient

from giclee.bus import database, outbox
from giclee.bus.database import Pool
from giclee.bus.errors import Transient
from giclee.bus.kafka import KafkaTransport
from giclee.bus.kafka.numbered import KafkaNumberedWriter
from giclee.bus.layers import codec
from giclee.bus.outbox import PlainRelay, TransactionalRelay
from giclee.bus.settings import DatabaseSettings, KafkaSettings
from giclee.bus.transport import NUMBER
from giclee.schemas import topics
from giclee.schemas.events import CancelRequested, ImageApproved, RequestClosed
from tests.kit.outboxes import SCHEMA, approved, cancelled, closed, decide, empty_outbox, waiting
from tests.kit.stack import KafkaRunning, PostgresRunning
from tests.kit.wait import until

APPROVED, CLOSED = topics.topic_of(ImageApproved), topics.topic_of(RequestClosed)
CANCELS = topics.topic_of(CancelRequested)
PARTITIONS = 3
ROOT = Path(__file__).parents[2]


class Line:
    """One outbox, one set of topics; `writers` are all transactional writers that relays made."""

    def __init__(self, pool: Pool, database_url: str, kafka: KafkaRunning, prefix: str) -> None:
        self.pool = pool
        self.database_url = database_url
        self.prefix = prefix
        self.bootstrap_servers = kafka.bootstrap_servers
        self.settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix)
        self.writers: list[WatchedWriter] = []

    def relay(self) -> TransactionalRelay:
        return TransactionalRelay(self.pool, SCHEMA, _Watched(self))

    def plain(self) -> PlainRelay:
        return PlainRelay(self.pool, SCHEMA, KafkaTransport(self.settings))

    @asynccontextmanager
    async def running(self, *relays: TransactionalRelay | PlainRelay) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(relay.run()) for relay in relays]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def sent(self) -> None:
        """Wait until nothing is left to send."""

        async def empty() -> bool:
            return await waiting(self.pool) == 0

        await until(empty, within_s=60)

    @asynccontextmanager
    async def subscribed(self, *names: str) -> AsyncIterator[Any]:
        """A reader of committed records, from the beginning of every partition."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        consumer.assign([TopicPartition(self.prefix + name, at) for name in names for at in range(PARTITIONS)])
        try:
            yield consumer
        finally:
            await consumer.stop()

    async def log_has_some(self) -> bool:
        return bool(await self.log(CLOSED))

    async def log(self, *names: str) -> list[tuple[str, str, int]]:
        """(topic and partition, what, number) of all that a subscriber can see, in order per partition."""
        async with self.subscribed(*names) as consumer:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            found: list[tuple[str, str, int]] = []
            while True:
                found += seen(await consumer.getmany(timeout_ms=100))
                if all([await consumer.position(at) >= end for at, end in ends.items()]):
                    return found


class _Watched(KafkaTransport):
    def __init__(self, line: Line) -> None:
        super().__init__(line.settings)
        self._line = line

    def numbered(self, name: str, topics: Sequence[str]) -> WatchedWriter:
        writer = WatchedWriter(self._cluster, name, topics)
        self._line.writers.append(writer)
        return writer


class WatchedWriter(KafkaNumberedWriter):
    """Tells when it begins to commit: too short a moment to be met by looking now and then."""

    commits: ClassVar[asyncio.Event]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if (name, value) == ("phase", "committing"):
            self.commits.set()


def seen(batches: dict[Any, list[Any]]) -> list[tuple[str, str, int]]:
    found = []
    for at, records in batches.items():
        for record in records:
            headers = dict(record.headers)
            number = int(headers.get(NUMBER, b"/-1").rpartition(b"/")[2])
            found.append((f"{at.topic}/{at.partition}", headers["ce_id"].decode(), number))
    return found


def require_exactly_once(expected: Sequence[str], log: list[tuple[str, str, int]]) -> None:
    """Missing, duplicate, out of order: none."""
    times = Counter(what for _, what, _ in log)
    assert [what for what in expected if times[what] == 0] == [], "missing"
    assert [what for what, count in times.items() if count > 1] == [], "twice"
    assert set(times) == set(expected)
    for place in {place for place, _, _ in log}:
        numbers = [number for where, _, number in log if where == place]
        assert numbers == sorted(numbers), f"out of order in {place}"


@pytest.fixture
async def line(postgres: PostgresRunning, kafka: KafkaRunning, topic_prefix: str) -> AsyncIterator[Line]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    names = [topic_prefix + name for name in (APPROVED, CLOSED, CANCELS)]
    await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
    await admin.close()
    async with empty_outbox(postgres.database_url) as (pool, url):
        yield Line(pool, url, kafka, topic_prefix)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standbys and restarts that a test need not wait for."""
    WatchedWriter.commits = asyncio.Event()
    monkeypatch.setattr(outbox, "STANDBY_S", 0.05)
    monkeypatch.setattr(outbox, "PAUSES_S", (0.05,))


async def test_both_lanes_deliver_what_was_decided(line: Line) -> None:
    """An approval, a closing and a cancel leave by their lanes; a decision that is rolled back leaves nothing."""
    request, asset = uuid.uuid4(), uuid.uuid4()
    async with line.running(line.relay(), line.plain()):
        await decide(line.pool, approved(request, asset), closed(request), cancelled(request))
        with suppress(ZeroDivisionError):
            async with line.pool.acquire() as connection, connection.transaction():
                await outbox.put(connection, SCHEMA, [cancelled(uuid.uuid4())])
                raise ZeroDivisionError
        await line.sent()
    log = await line.log(APPROVED, CLOSED, CANCELS)
    expected = [approved(request, asset), closed(request), cancelled(request)]
    assert Counter(what for _, what, _ in log) == Counter(str(event.event_id()) for event in expected)
    assert sorted(number for _, _, number in log) == [-1, 1, 2]


@pytest.mark.parametrize(("kind", "event"), [(PlainRelay, cancelled), (TransactionalRelay, closed)])
async def test_an_outage_is_not_held_against_the_next(
    line: Line, kind: Any, event: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that has worked since it last started over waits no longer than the first time."""
    monkeypatch.setattr(outbox, "PAUSES_S", (0.05, 3600.0))
    settings = DatabaseSettings(url=line.database_url, pool_max=2)
    async with (
        database.connect(settings, "relay") as pool,
        line.running(kind(pool, SCHEMA, KafkaTransport(line.settings))),
    ):
        for _ in range(3):
            await decide(line.pool, event(uuid.uuid4()))
            await line.sent()
            ended = await line.pool.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'giclee-relay'"
                " AND datname = current_database()"
            )
            assert ended


async def test_a_row_that_commits_late_with_a_lower_id_is_sent(line: Line) -> None:
    """Ids become visible out of order; numbers are given to what is seen, so nothing is overtaken for good."""
    late, early = uuid.uuid4(), uuid.uuid4()
    async with line.running(line.relay(), line.plain()):
        async with line.pool.acquire() as connection, connection.transaction():
            await outbox.put(connection, SCHEMA, [closed(late), cancelled(late)])
            await decide(line.pool, closed(early), cancelled(early))

            async def only_late() -> bool:
                return await waiting(line.pool) == 0

            await until(only_late)  # what this transaction wrote is not visible yet
        await line.sent()
    log = await line.log(CLOSED)
    assert {what: number for _, what, number in log} == {
        str(closed(early).event_id()): 1,
        str(closed(late).event_id()): 2,
    }
    assert len(await line.log(CANCELS)) == 2


async def test_a_requests_rows_share_a_transaction(line: Line) -> None:
    """Approvals and closing of one request become visible together, also where the batch would have ended between."""
    requests = [uuid.uuid4() for _ in range(3)]
    for request in requests:  # 3 x 41 rows, batches of 50
        await decide(line.pool, *[approved(request, uuid.uuid4()) for _ in range(40)], closed(request))
    numbers: dict[str, set[int]] = {}
    batches: list[list[str]] = []

    class Recording:
        async def open(self) -> int:
            return 0

        async def send(self, records: Sequence[object], first_number: int) -> None:
            batches.append([dict(record.headers)["ce_subject"].decode() for record in records])  # type: ignore[attr-defined]

        async def close(self) -> None:
            return None

    transport = KafkaTransport(line.settings)
    transport.numbered = lambda name, topics: Recording()  # type: ignore[method-assign, assignment, return-value]
    async with line.running(TransactionalRelay(line.pool, SCHEMA, transport)):
        await line.sent()
    for number, batch in enumerate(batches):
        for subject in batch:
            numbers.setdefault(subject, set()).add(number)
    assert len(batches) > 1
    assert all(len(where) == 1 for where in numbers.values())


async def a_moment(seconds: float) -> None:
    """How long a fault takes to come; no condition is waited for with it."""
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=seconds)


async def write(line: Line, requests: int, expected: list[str], *, chance: random.Random) -> None:
    """Decisions of one publisher: assets in rising versions, then the closing; some transactions stay open a while."""
    for _ in range(requests):
        request, asset = uuid.uuid4(), uuid.uuid4()
        for version in range(1, chance.randint(1, 4)):
            await decide(line.pool, approved(request, asset, version))
            expected.append(str(approved(request, asset, version).event_id()))
        async with line.pool.acquire() as connection, connection.transaction():
            events = [approved(request, uuid.uuid4()), closed(request)]
            await outbox.put(connection, SCHEMA, events)
            await a_moment(chance.choice((0, 0.02, 0.05, 0.3)))
        expected += [str(event.event_id()) for event in events]


class Relays:
    """A leader and a spare that take turns at dying; `phases` counts what the leader was at."""

    def __init__(self, line: Line, writing: asyncio.Future[Any]) -> None:
        self.line = line
        self.writing = writing
        self.phases: Counter[str] = Counter()
        self.zombies: list[Any] = []
        self.crashes = 0
        self._alive = [self._started() for _ in range(2)]

    def _started(self) -> tuple[TransactionalRelay, asyncio.Task[None]]:
        relay = self.line.relay()
        return relay, asyncio.create_task(relay.run())

    async def crash(self, after_s: float, *, hard: bool) -> None:
        """Cancel the leader; `hard` leaves its producer alive with what it has open, as a process that hangs would."""
        due = WORKING if self.crashes % 6 == 0 else WORKING[1:]
        await until(lambda: any(relay.phase in due for relay, _ in self._alive), within_s=30)
        if self.crashes % 3 == 1 and not self.writing.done():
            WatchedWriter.commits.clear()
            await asyncio.wait({self.writing, asyncio.create_task(WatchedWriter.commits.wait())}, return_when=FIRST)
            after_s /= 20
        self.crashes += 1
        await asyncio.wait([task for _, task in self._alive], timeout=after_s)
        leads = next((pair for pair in self._alive if pair[0].phase in WORKING), self._alive[0])
        relay, task = leads
        writer = self.line.writers[-1]
        self.phases[writer.phase if relay.phase == "sending" else relay.phase] += 1
        if hard:
            producer, writer._producer = writer._producer, None
            self.zombies.append(producer)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._alive.remove(leads)
        self._alive.append(self._started())

    async def stop(self) -> None:
        for _, task in self._alive:
            task.cancel()
        await asyncio.gather(*(task for _, task in self._alive), return_exceptions=True)
        stops = [asyncio.wait_for(zombie.stop(), 5) for zombie in self.zombies if zombie is not None]
        await asyncio.gather(*stops, return_exceptions=True)


FIRST = asyncio.FIRST_COMPLETED
WORKING = ("opening", "numbering", "sending", "dropping", "resting")


async def test_five_thousand_rows_through_crashes(line: Line) -> None:
    """Relays die or hang mid-send, before, inside and after a commit: subscribers see everything once, in order."""
    chance = random.Random(20261121)
    expected: list[str] = []
    live: list[tuple[str, str, int]] = []

    async def subscribe() -> None:
        async with line.subscribed(APPROVED, CLOSED) as consumer:
            while True:
                live.extend(seen(await consumer.getmany(timeout_ms=200)))

    subscriber = asyncio.create_task(subscribe())
    writing = asyncio.gather(*(write(line, 260, expected, chance=random.Random(seed)) for seed in range(6)))
    relays = Relays(line, writing)
    while relays.crashes < 30:
        await relays.crash(chance.choice((0.0, 0.02, 0.1, 0.3)) * chance.random(), hard=relays.crashes % 4 < 2)
    await writing
    await line.sent()
    await until(lambda: len(live) >= len(expected), within_s=30)
    subscriber.cancel()
    await asyncio.gather(subscriber, return_exceptions=True)
    await relays.stop()
    print(f"{len(expected)} rows, {relays.crashes} crashes: {dict(relays.phases)}, producers: {len(line.writers)}")
    require_exactly_once(expected, live)
    require_exactly_once(expected, await line.log(APPROVED, CLOSED))
    assert len(expected) >= 5000
    assert {"delivering", "committing"} <= set(relays.phases)


async def test_a_relay_that_lost_its_session_cannot_write(line: Line) -> None:
    """The server ends the leader's session: another takes over, and the first finds out before it can do harm."""
    expected: list[str] = []
    async with line.running(line.relay(), line.relay()):
        writing = asyncio.create_task(write(line, 60, expected, chance=random.Random(7)))
        while not writing.done():
            await line.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            await asyncio.wait([writing], timeout=0.7)
        await line.sent()
    require_exactly_once(expected, await line.log(APPROVED, CLOSED))


@asynccontextmanager
async def relay_process(line: Line) -> AsyncIterator[asyncio.subprocess.Process]:
    argv = ("-m", "tests.kit.relay_process", line.database_url, line.bootstrap_servers, line.prefix)
    process = await asyncio.create_subprocess_exec(sys.executable, *argv, cwd=ROOT)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_process_that_is_killed_or_hangs_is_followed(line: Line, fault: signal.Signals) -> None:
    """Another relay takes over, also from one that only hangs; woken later, that one does no harm."""
    expected: list[str] = []
    writing = asyncio.create_task(write(line, 60, expected, chance=random.Random(11)))
    async with relay_process(line) as process:
        await until(lambda: line.log_has_some(), within_s=30)
        process.send_signal(fault)
        async with line.running(line.relay()):
            await writing
            await line.sent()
            if fault is signal.SIGSTOP:
                process.send_signal(signal.SIGCONT)
            await write(line, 20, expected, chance=random.Random(12))
            await line.sent()
        assert (process.returncode is None) == (fault is signal.SIGSTOP)
    require_exactly_once(expected, await line.log(APPROVED, CLOSED))


async def test_numbers_go_on_without_the_mark(line: Line) -> None:
    """With the group offset expired the tail of the log still tells where to go on."""
    first, second = uuid.uuid4(), uuid.uuid4()
    async with line.running(line.relay()):
        await decide(line.pool, closed(first))
        await line.sent()
    admin = AdminClient({"bootstrap.servers": line.bootstrap_servers})
    for deleted in admin.delete_consumer_groups([f"{line.prefix}giclee.{SCHEMA}.relay.0"]).values():
        await asyncio.to_thread(deleted.result, 10)
    async with line.running(line.relay()):
        await decide(line.pool, closed(second))
        await line.sent()
    assert {what: number for _, what, number in await line.log(CLOSED)} == {
        str(closed(first).event_id()): 1,
        str(closed(second).event_id()): 2,
    }


async def test_the_tail_is_found_behind_many_other_records(line: Line) -> None:
    """The last number is found although hundreds of records of another shard and control records lie behind it."""
    transport = KafkaTransport(line.settings)
    ours = transport.numbered("publisher.relay.0", (APPROVED, CLOSED))
    other = transport.numbered("publisher.relay.1", (APPROVED, CLOSED))
    encode = partial(codec.encode, source="test")
    assert await ours.open() == 0
    await ours.send([encode(closed(uuid.uuid4())) for _ in range(3)], 5)
    await other.open()
    for _ in range(10):
        await other.send([encode(closed(uuid.uuid4())) for _ in range(200)], 1)
    ours._mark = TopicPartition(line.prefix + APPROVED, 1)  # as if the group offset had expired
    assert await ours.open() == 7
    await ours.close()
    await other.close()


async def test_a_writer_that_was_followed_can_no_longer_write(line: Line) -> None:
    """Opening under a name shuts out whoever had it; what that one had open is never seen."""
    transport = KafkaTransport(line.settings)
    old, new = (transport.numbered("publisher.relay.0", (APPROVED, CLOSED)) for _ in range(2))
    encode = partial(codec.encode, source="test")
    await old.open()
    await old.send([encode(closed(uuid.uuid4()))], 1)
    assert await new.open() == 1
    with pytest.raises(Transient):
        await old.send([encode(closed(uuid.uuid4()))], 2)
    await new.send([encode(closed(uuid.uuid4()))], 2)
    await old.close()
    await new.close()
    assert [number for _, _, number in await line.log(CLOSED)].count(2) == 1


async def test_a_commit_that_no_partition_heard_of_is_said_again(line: Line) -> None:
    """As brokers may acknowledge one while partitions have no leader: sending ends when it can be seen, and
    an abort that follows takes nothing of it back."""
    writer = KafkaTransport(line.settings).numbered("publisher.relay.0", (APPROVED, CLOSED))
    encode = partial(codec.encode, source="test")
    await writer.open()
    producer = writer._producer
    assert producer is not None
    commit = producer.commit_transaction

    async def acknowledged() -> None:
        producer.commit_transaction = commit
        producer._txn_manager.committing_transaction()
        producer._txn_manager.complete_transaction()

    producer.commit_transaction = acknowledged
    await writer.send([encode(closed(uuid.uuid4())) for _ in range(20)], 1)
    assert sorted(number for _, _, number in await line.log(CLOSED)) == list(range(1, 21))
    with pytest.raises(Transient):
        too_large = codec.encode(closed(uuid.uuid4()), source="test")
        object.__setattr__(too_large, "value", random.Random(1).randbytes(3_000_000))
        await writer.send([encode(closed(uuid.uuid4())), too_large], 21)
    assert await writer.open() == 20
    await writer.close()
    assert sorted(number for _, _, number in await line.log(CLOSED)) == list(range(1, 21))


async def test_a_record_that_is_refused_leaves_nothing_of_its_transaction(line: Line) -> None:
    """One record too large: its transaction is not committed, though the library would."""
    writer = KafkaTransport(line.settings).numbered("publisher.relay.0", (APPROVED, CLOSED))
    small = codec.encode(closed(uuid.uuid4()), source="test")
    large = codec.encode(closed(uuid.uuid4()), source="test")
    object.__setattr__(large, "value", random.Random(1).randbytes(1_500_000))
    await writer.open()
    with pytest.raises(Transient):
        await writer.send([small, large, small], 1)
    await writer.close()
    assert await line.log(CLOSED) == []


async def test_plain_relays_share_the_work_and_lose_nothing(line: Line) -> None:
    """Three relays that are cancelled at random moments: everything arrives at least once."""
    chance = random.Random(3)
    ids = [uuid.uuid4() for _ in range(1500)]
    for at in range(0, len(ids), 50):
        await decide(line.pool, *map(cancelled, ids[at : at + 50]))
    async with AsyncExitStack() as steady:
        for _ in range(6):
            async with line.running(line.plain(), line.plain(), line.plain()):
                await a_moment(chance.uniform(0.0, 0.3))
        await steady.enter_async_context(line.running(line.plain()))
        await line.sent()
    arrived = Counter(what for _, what, _ in await line.log(CANCELS))
    assert set(arrived) == {str(cancelled(one).event_id()) for one in ids}


async def test_a_row_that_is_too_large_does_not_hold_up_the_others(line: Line) -> None:
    """The row stays where it is; those before and behind it are sent."""
    small = [uuid.uuid4() for _ in range(4)]
    await decide(line.pool, *map(cancelled, small[:2]))
    await decide(line.pool, cancelled(uuid.uuid4()))
    stuck = await line.pool.fetchval(
        f"UPDATE {SCHEMA}.outbox SET value = $1 WHERE id = (SELECT max(id) FROM {SCHEMA}.outbox) RETURNING id",
        random.Random(1).randbytes(1_500_000),
    )
    await decide(line.pool, *map(cancelled, small[2:]))
    async with line.running(line.plain()):

        async def only_the_large_one() -> bool:
            return [row["id"] for row in await line.pool.fetch(f"SELECT id FROM {SCHEMA}.outbox")] == [stuck]

        await until(only_the_large_one)
    assert {what for _, what, _ in await line.log(CANCELS)} == {str(cancelled(one).event_id()) for one in small}
