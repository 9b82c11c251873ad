"""Numbered records in Kafka transactions: the exactly-once half of the outbox relay (outbox.py is the other).

Opening starts the producer first, which shuts out an older one and settles its open transaction; only then
is the end of the log true. Every transaction stores its last number twice: in the headers of its records and
as the offset of a group of the same name. A producer never survives an error or a deadline: what it still has
on the way could otherwise fall into its next transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from giclee.bus import failpoints, telemetry
from giclee.bus.errors import Transient
from giclee.bus.kafka.client import Cluster, ended, said
from giclee.bus.transport import NUMBER, Record

TRANSACTION_TIMEOUT_S = 15.0
"""The broker aborts what is open for longer; until then no reader of committed records gets past it."""
SEND_TIMEOUT_S = 10.0
OPEN_TIMEOUT_S = 40.0
ABORT_TIMEOUT_S = 2.0
REQUEST_TIMEOUT_S = 5.0
SEEN_STEP_S, SEEN_WITHIN_S = 0.01, 1.0
"""Between two looks whether a commit can be seen, which takes milliseconds; and when it is no longer believed."""
TAIL_FIRST_RECORDS = 256
"""How far before a partition's end the search for the last number begins; it looks four times as far each time."""
MAX_REQUEST_BYTES = 2 * 1024 * 1024

log = telemetry.logger(__name__)


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except (KafkaError, OSError, TimeoutError, AssertionError) as error:
        # the library asserts where a producer was fenced before
        raise Transient(f"{doing}: {type(error).__name__} {said(error)}") from error


class KafkaNumberedWriter:
    """One writer; `phase` says how far its transaction is (closed, idle, delivering, committing)."""

    def __init__(self, cluster: Cluster, name: str, topics: Sequence[str]) -> None:
        self.phase = "closed"
        self._cluster = cluster
        self._name = name
        self._id = cluster.outside(f"giclee.{name}")
        self._topics = [cluster.outside(topic) for topic in topics]
        self._mark = TopicPartition(self._topics[0], 0)
        self._producer: AIOKafkaProducer | None = None
        self._reader: AIOKafkaConsumer | None = None

    async def open(self) -> int:
        """The last number on the log; 0 when there is none. Errors: Transient."""
        await self.close()
        with _translated("opening the relay's producer"):
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                self._producer = AIOKafkaProducer(
                    **self._cluster.connection(REQUEST_TIMEOUT_S),
                    transactional_id=self._id,
                    transaction_timeout_ms=int(TRANSACTION_TIMEOUT_S * 1000),
                    acks="all",
                    max_request_size=MAX_REQUEST_BYTES,
                )
                await self._producer.start()
                self._reader = AIOKafkaConsumer(
                    **self._cluster.connection(REQUEST_TIMEOUT_S),
                    group_id=self._id,
                    enable_auto_commit=False,
                    auto_offset_reset="earliest",
                    isolation_level="read_committed",
                )
                await self._reader.start()
                found = await self._last_number(self._reader)
                self._reader.unsubscribe()  # from here on it only says how far committed records go
        self.phase = "idle"
        return found

    async def send(self, records: Sequence[Record], first_number: int) -> None:
        """One transaction. Errors: Transient, the outcome unknown."""
        producer = self._producer
        if producer is None:
            raise Transient("the relay's producer is not open")
        await failpoints.reach("before-transaction")
        with _translated("the relay's transaction"):
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await producer.begin_transaction()
                self.phase = "delivering"
                deliveries = [
                    await self._hand_over(producer, record, number)
                    for number, record in enumerate(records, first_number)
                ]
                # all of them, before committing: a commit succeeds although a record of it failed
                written = await asyncio.gather(*deliveries)
                last = first_number + len(records) - 1
                await producer.send_offsets_to_transaction({self._mark: last}, self._id)
                await failpoints.reach("inside-transaction")
                self.phase = "committing"
                await producer.commit_transaction()
                await self._seen(producer, {one.topic_partition: one.offset for one in written}, last)
                self.phase = "idle"
        await failpoints.reach("after-transaction")

    async def _seen(self, producer: Any, written: Mapping[TopicPartition, int], last: int) -> None:
        """Wait until a committed transaction is over in every partition it wrote to; make up for what is missing.

        A broker may acknowledge a commit that a partition without a leader has not heard of (Kafka 4.3.1); there the
        next transaction would decide for both, perhaps to abort.
        `written`: an offset of it in each. A transaction without records, in the same places, writes its end there.
        """
        looks = 0
        while await self._hidden(written):
            looks += 1
            await asyncio.sleep(SEEN_STEP_S)
            if looks * SEEN_STEP_S < SEEN_WITHIN_S:
                continue
            looks = 0
            log.error("a commit cannot be seen; it is said again", relay=self._name, last=last)
            await producer.begin_transaction()
            for at in written:
                producer._txn_manager.maybe_add_partition_to_txn(at)
            await producer.send_offsets_to_transaction({self._mark: last}, self._id)
            await producer.commit_transaction()

    async def _hidden(self, written: Mapping[TopicPartition, int]) -> bool:
        """Whether readers of committed records stand before any of these offsets."""
        assert self._reader is not None
        ends = await self._reader.end_offsets(list(written))  # the last stable offsets
        return any(ends[at] <= offset for at, offset in written.items())

    async def _hand_over(self, producer: Any, record: Record, number: int) -> Any:
        headers = [*record.headers, (NUMBER, f"{self._name}/{number}".encode())]
        topic = self._cluster.outside(record.topic)
        return await producer.send(topic, value=record.value, key=record.key, headers=headers)

    async def close(self) -> None:
        """Throw the producer away. What is open and not yet committing is aborted, so that readers can go on."""
        producer, self._producer = self._producer, None
        reader, self._reader = self._reader, None
        phase, self.phase = self.phase, "closed"
        if reader is not None:
            self._cluster.let_go(ended(reader.stop()))
        if producer is None:
            return
        if phase == "delivering":
            with _quietly():
                async with asyncio.timeout(ABORT_TIMEOUT_S):
                    await producer.abort_transaction()
        closing = self._cluster.let_go(ended(producer.stop()))
        await asyncio.wait([closing], timeout=self._cluster.timings.stop_s)

    # ---- what is on the log ---------------------------------------------------------------------

    async def _last_number(self, consumer: Any) -> int:
        marked = await self._marked(consumer)
        tail = await self._tail(consumer)
        if marked is not None and marked != tail:
            log.error("the relay's mark differs from its topics' tail", mark=marked, tail=tail, relay=self._name)
        return max(marked or 0, tail)

    async def _marked(self, consumer: Any) -> int | None:
        """The group offset; None where it has expired or never was."""
        consumer.assign([self._mark])
        found = await consumer.committed(self._mark)
        return int(found) if found is not None else None

    async def _tail(self, consumer: Any) -> int:
        """The highest number of ours among the last records of every partition."""
        found = [0]
        for topic in self._topics:
            for partition in sorted(consumer.partitions_for_topic(topic) or await _known(consumer, topic)):
                found.append(await self._tail_of(consumer, TopicPartition(topic, partition)))
        return max(found)

    async def _tail_of(self, consumer: Any, at: TopicPartition) -> int:
        consumer.assign([at])
        begin = (await consumer.beginning_offsets([at]))[at]
        end = (await consumer.end_offsets([at]))[at]  # of committed records: the last stable offset
        back = TAIL_FIRST_RECORDS
        while True:
            start = max(begin, end - back)
            found = await self._numbers(consumer, at, start, end)
            if found or start == begin:
                return max(found, default=0)
            back *= 4

    async def _numbers(self, consumer: Any, at: TopicPartition, start: int, end: int) -> list[int]:
        """Ours between two offsets. Control and aborted records lie between: the position passes them."""
        prefix = f"{self._name}/"
        found: list[int] = []
        consumer.seek(at, start)
        while await consumer.position(at) < end:
            batches = await consumer.getmany(at, timeout_ms=200)
            for record in batches.get(at, ()):
                name_and_number = next((text.decode() for name, text in record.headers if name == NUMBER), "")
                if name_and_number.startswith(prefix):
                    found.append(int(name_and_number.removeprefix(prefix)))
        return found


async def _known(consumer: Any, topic: str) -> set[int]:
    """Partitions of a topic that the consumer has not heard of yet. Errors: Transient when it does not exist."""
    await consumer._client._wait_on_metadata(topic)
    found = consumer.partitions_for_topic(topic)
    if not found:
        raise Transient(f'topic {topic} is not there: run "giclee topics apply"')
    return set(found)


@contextmanager
def _quietly() -> Iterator[None]:
    """An abort is a courtesy to readers; without it the broker aborts by itself."""
    try:
        yield
    except (KafkaError, OSError, TimeoutError, AssertionError) as error:
        log.warning("the relay's transaction was not aborted", error=said(error))
