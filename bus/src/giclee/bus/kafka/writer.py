"""Sending: batches built here, one per partition, because that costs half of what the library's `send` does.

After any error or deadline the producer is thrown away. What it had under way may or may not be in the log, and
an idempotent producer that lived on would write it later, behind newer records of the same key.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, overload

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidTimestampError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)

from giclee.bus import failpoints
from giclee.bus.errors import Poison, Transient
from giclee.bus.kafka.client import Cluster, ended, insist, said
from giclee.bus.placement import partitions_of
from giclee.bus.transport import Record
from giclee.schemas.parts import Position

BATCH_MAX_BYTES = 256 * 1024
"""Of a batch before compression. A topic's limit on a record is one on its whole batch, so batches stay far below."""

_REFUSED = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTimestampError)


class _Refused(Exception):
    """The broker will never take this batch. `records` are what is in it."""

    def __init__(self, records: Sequence[Record]) -> None:
        super().__init__(f"{len(records)} record(s)")
        self.records = records


class _Batch:
    """Records for one partition that go in one request, its `turn`th; `places` are theirs in what the caller sent."""

    __slots__ = ("at", "builder", "places", "turn")

    def __init__(self, at: TopicPartition, builder: Any, turn: int) -> None:
        self.at = at
        self.builder = builder
        self.places: list[int] = []
        self.turn = turn

    def took(self, record: Record, now_ms: int) -> bool:
        """Whether there was room for the record."""
        stamp_ms = record.timestamp_ms if record.timestamp_ms >= 0 else now_ms
        headers = list(record.headers)  # the library takes a list only
        done = self.builder.append(timestamp=stamp_ms, key=record.key, value=record.value, headers=headers)
        return done is not None


class _Positions(Sequence[Position]):
    """Places of records, made when somebody asks, which for most records nobody does."""

    def __init__(self, spots: list[tuple[str, int, int]]) -> None:
        self._spots = spots

    def __len__(self) -> int:
        return len(self._spots)

    @overload
    def __getitem__(self, index: int) -> Position: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Position]: ...
    def __getitem__(self, index: int | slice) -> Position | Sequence[Position]:
        if isinstance(index, slice):
            return _Positions(self._spots[index])
        topic, partition, offset = self._spots[index]
        return Position(topic=topic, partition=partition, offset=offset)


class KafkaWriter:
    """An idempotent producer that is replaced when it fails. Sends may overlap. `sent_at` is monotonic seconds."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.sent_at: float | None = None
        self._cluster = cluster
        self._name = name
        self._producer: AIOKafkaProducer | None = None
        self._making = asyncio.Lock()
        self._keyless = itertools.count()
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        """Connect, trying until it succeeds. Errors: Transient when `stop` was called meanwhile."""
        starting = asyncio.create_task(insist(self._producing, self._cluster.timings.join_s))
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                raise Transient(f"writer {self._name} was stopped before it had a broker")
            starting.result()
        finally:
            starting.cancel()
            stopped.cancel()
            await asyncio.wait([starting, stopped])

    async def stop(self) -> None:
        """Give up what is under way; whoever waits for it gets Transient."""
        self._stopped.set()
        self._give_up(self._producer)
        await self._cluster.all_closed()

    async def send(self, records: Sequence[Record]) -> Sequence[Position]:
        """Send all and wait for all, in order per partition.

        Errors: Transient when an outcome is unknown; Poison when the broker will never take one of them. Others
        may have been written in both cases.
        """
        if not records:
            return ()
        await failpoints.reach("before-produce")
        positions = await self._sent(records)
        await failpoints.reach("after-produce")
        return positions

    async def _sent(self, records: Sequence[Record]) -> Sequence[Position]:
        try:
            return await self._attempt(records, alone=False)
        except _Refused as refused:
            if len(refused.records) == 1:
                raise self._poison(refused.records[0]) from refused
        try:  # a batch was too large for the topic, its records may not be
            return await self._attempt(records, alone=True)
        except _Refused as refused:
            raise self._poison(refused.records[0]) from refused

    async def _attempt(self, records: Sequence[Record], *, alone: bool) -> Sequence[Position]:
        producer = None
        try:
            async with asyncio.timeout(self._cluster.timings.send_s):
                producer = await self._producing()
                batches = await self._packed(producer, records, alone=alone)
                positions = await self._delivered(producer, batches, records)
        except UnknownTopicOrPartitionError as error:
            raise Transient(f'a topic is not there: run "giclee topics apply": {said(error)}') from error
        except (KafkaError, OSError, TimeoutError) as error:
            self._give_up(producer)
            raise Transient(f"whether the broker has it is unknown: {said(error)}") from error
        except _Refused:
            self._give_up(producer)  # the refused batch leaves a gap in its sequence numbers
            raise
        self.sent_at = time.monotonic()
        return positions

    async def _packed(self, producer: AIOKafkaProducer, records: Sequence[Record], *, alone: bool) -> list[_Batch]:
        """The records in batches, each `alone` in its own where asked."""
        now_ms = int(time.time() * 1000)
        batches: list[_Batch] = []
        for (topic, number), places in (await self._placed(producer, records)).items():
            at = TopicPartition(self._cluster.outside(topic), number)
            batch, turn = None, 0
            for place in places:
                if batch is None or alone or not batch.took(records[place], now_ms):
                    batch = _Batch(at, producer.create_batch(), turn)
                    batches.append(batch)
                    batch.took(records[place], now_ms)  # the first record always fits
                    turn += 1
                batch.places.append(place)
        return sorted(batches, key=attrgetter("turn"))  # no partition waits for the second batch of another

    async def _placed(self, producer: AIOKafkaProducer, records: Sequence[Record]) -> dict[tuple[str, int], list[int]]:
        """Which of the records go to which partition of which topic, in order."""
        by_topic: dict[str, list[int]] = {}
        for place, record in enumerate(records):
            by_topic.setdefault(record.topic, []).append(place)
        found: dict[tuple[str, int], list[int]] = {}
        for topic, places in by_topic.items():
            mine = [records[place] for place in places]
            count = await self._partitions(producer, topic, wanted=max(record.partition for record in mine))
            numbers = iter(partitions_of([one.key for one in mine if one.partition < 0 and one.key is not None], count))
            for place, record in zip(places, mine, strict=True):
                if record.partition >= 0:
                    number = record.partition
                else:
                    number = next(numbers) if record.key is not None else next(self._keyless) % count
                found.setdefault((topic, number), []).append(place)
        return found

    async def _partitions(self, producer: AIOKafkaProducer, topic: str, *, wanted: int) -> int:
        """How many partitions a topic has; asks the broker again when `wanted` is not among those known."""
        name = self._cluster.outside(topic)
        count = len(await producer.partitions_for(name))
        if wanted >= count:
            await producer.client.force_metadata_update()
            count = len(await producer.partitions_for(name))
        if wanted >= count:
            raise UnknownTopicOrPartitionError(f"{topic} has {count} partitions, none of number {wanted}")
        return count

    async def _delivered(
        self, producer: AIOKafkaProducer, batches: Sequence[_Batch], records: Sequence[Record]
    ) -> Sequence[Position]:
        waits: list[asyncio.Future[Any]] = []
        try:
            for batch in batches:  # a second batch of a partition waits in here until the first has left
                waits.append(await producer.send_batch(batch.builder, batch.at.topic, partition=batch.at.partition))
            outcomes = await asyncio.gather(*waits, return_exceptions=True)
        finally:
            for wait in waits:
                wait.cancel()
        spots: list[tuple[str, int, int]] = [("", -1, -1)] * len(records)
        for batch, outcome in zip(batches, outcomes, strict=True):
            if isinstance(outcome, _REFUSED):
                raise _Refused([records[place] for place in batch.places]) from outcome
            if isinstance(outcome, BaseException):
                raise outcome
            known = outcome.offset >= 0  # else the broker had it already and has forgotten where
            for step, place in enumerate(batch.places):
                spots[place] = (records[place].topic, batch.at.partition, outcome.offset + step if known else -1)
        return _Positions(spots)

    async def _producing(self) -> AIOKafkaProducer:
        if self._producer is not None:
            return self._producer
        if self._stopped.is_set():
            raise KafkaTimeoutError(f"writer {self._name} was stopped")
        async with self._making:
            if self._producer is None:
                self._producer = await self._made()
            return self._producer

    async def _made(self) -> AIOKafkaProducer:
        timings = self._cluster.timings
        producer = AIOKafkaProducer(
            **self._cluster.connection(timings.produce_request_s),
            enable_idempotence=True,
            acks="all",
            compression_type="lz4",
            max_batch_size=BATCH_MAX_BYTES,
        )
        usable = False
        try:
            await producer.start()
            usable = True
        finally:
            if not usable:
                self._cluster.let_go(_close(producer))
        return producer

    def _give_up(self, producer: AIOKafkaProducer | None) -> None:
        """Close a producer, unless another send did so already."""
        if producer is not None and producer is self._producer:
            self._producer = None
            self._cluster.let_go(_close(producer))

    @staticmethod
    def _poison(record: Record) -> Poison:
        size = len(record.value or b"") + len(record.key or b"")
        return Poison(f"the broker takes no record like this on {record.topic}: {size} bytes and its headers")


async def _close(producer: AIOKafkaProducer) -> None:
    """Stop sending at once and let every waiter know; only then take the time to close."""
    if producer._sender.sender_task is not None:
        producer._sender.sender_task.cancel()
    producer._message_accumulator.fail_all(KafkaTimeoutError("the producer was given up"))
    await ended(producer.stop())
