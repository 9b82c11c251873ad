"""Looking things up: records by their place, where topics end, how far groups have come. A member of no group.

One consumer, moved from place to place; reads that go on where the last one ended need no seek and are prefetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from giclee.bus.errors import Transient
from giclee.bus.kafka import records
from giclee.bus.kafka.client import Cluster, ended, said
from giclee.bus.transport import Partition, Record

READ_MAX = 2000
FETCH_WAIT_MS = 20
"""How long the broker may hold a fetch at the end of a partition; the next read waits for that answer."""
READ_TIMEOUT_S = 20.0
"""Longest that one read takes; the broker answers a fetch within half a second."""


class KafkaLookup:
    """Reads come one at a time, whoever asks. Errors of every method: Transient."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._consumer: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._turn = asyncio.Lock()
        self._next: tuple[TopicPartition, int] | None = None

    async def read(self, at: Partition, offsets: Collection[int]) -> Mapping[int, Record]:
        """The records at these offsets of a partition; one that retention removed, or that never was, is left out."""
        if not offsets:
            return {}
        async with self._turn:
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    return await self._read(at, sorted(offsets))
            except (KafkaError, OSError, TimeoutError, AssertionError) as error:
                self._give_up()
                raise Transient(f"records of {at.topic} cannot be read: {said(error)}") from error

    async def _read(self, at: Partition, offsets: Sequence[int]) -> Mapping[int, Record]:
        consumer, place = await self._ready(), self._cluster.at_broker(at)
        first, end = await self._bounds(consumer, place)
        wanted = {offset for offset in offsets if first <= offset < end}
        found: dict[int, Record] = {}
        if not wanted:
            return found
        last = max(wanted)
        if self._next is None or self._next[0] != place:
            consumer.assign([place])
        if self._next is None or self._next[0] != place or not self._next[1] <= min(wanted) < self._next[1] + READ_MAX:
            consumer.seek(place, min(wanted))
        self._next = None
        while await consumer.position(place) <= last:
            for one in (await consumer.getmany(place, timeout_ms=500, max_records=READ_MAX)).get(place, ()):
                if one.offset in wanted:
                    found[one.offset] = records.ours(at.topic, at.number, one)
        if (position := await consumer.position(place)) < end:
            self._next = place, position
        else:
            consumer.pause(place)  # nothing to prefetch: ask the broker for nothing
        return found

    async def _bounds(self, consumer: AIOKafkaConsumer, place: TopicPartition) -> tuple[int, int]:
        first, end = await asyncio.gather(consumer.beginning_offsets([place]), consumer.end_offsets([place]))
        return int(first[place]), int(end[place])

    async def ends(self, topic: str) -> Mapping[Partition, int]:
        """Per partition of a topic the offset after its last readable record."""
        async with self._turn:
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    consumer, name = await self._ready(), self._cluster.outside(topic)
                    known = await consumer._client.fetch_all_metadata()
                    places = [TopicPartition(name, number) for number in known.partitions_for_topic(name) or ()]
                    found = await consumer.end_offsets(places) if places else {}
            except (KafkaError, OSError, TimeoutError) as error:
                self._give_up()
                raise Transient(f"where {topic} ends is not known: {said(error)}") from error
        return {self._cluster.at_home(at): int(offset) for at, offset in found.items()}

    async def committed(self, group: str) -> Mapping[Partition, int]:
        """Per partition the next offset that a group will read."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                admin = await self._asking()
                found = await admin.list_consumer_group_offsets(self._cluster.outside(group))
        except (KafkaError, OSError, TimeoutError) as error:
            self._give_up_admin()
            raise Transient(f"how far {group} has come is not known: {said(error)}") from error
        return {self._cluster.at_home(at): int(one.offset) for at, one in found.items() if one.offset >= 0}

    async def stop(self) -> None:
        """Close what is open."""
        self._give_up()
        self._give_up_admin()
        await self._cluster.all_closed()

    async def _ready(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **self._cluster.connection(self._cluster.timings.produce_request_s),
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                fetch_max_wait_ms=FETCH_WAIT_MS,
                fetch_max_bytes=16 * 1024 * 1024,
                max_partition_fetch_bytes=4 * 1024 * 1024,
            )
            self._consumer, self._next = consumer, None
            await consumer.start()
        return self._consumer

    async def _asking(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(**self._cluster.connection(self._cluster.timings.produce_request_s))
            await self._admin.start()
        return self._admin

    def _give_up(self) -> None:
        consumer, self._consumer, self._next = self._consumer, None, None
        if consumer is not None:
            self._cluster.let_go(ended(consumer.stop()))

    def _give_up_admin(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            self._cluster.let_go(ended(admin.close()))
