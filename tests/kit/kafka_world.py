"""A real broker for the transport's tests: topics and first offsets by name, foreign clients beside ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from giclee.bus.kafka import KafkaTransport, Timings
from giclee.bus.transport import Partition, Record
from tests.kit.wait import until

MIB = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """What the transport reads of its settings."""

    bootstrap_servers: str
    topic_prefix: str = ""


class KafkaTransactions:
    """A plain transactional producer, as far as the suite needs one."""

    def __init__(self, producer: AIOKafkaProducer, prefix: str) -> None:
        self._producer = producer
        self._prefix = prefix

    async def begin(self) -> None:
        await self._producer.begin_transaction()

    async def send(self, records: Sequence[Record]) -> None:
        for record in records:
            await self._producer.send_and_wait(self._prefix + record.topic, value=record.value, key=record.key)

    async def commit(self) -> None:
        await self._producer.commit_transaction()

    async def abort(self) -> None:
        await self._producer.abort_transaction()


class KafkaWorld:
    """Topics of one test on a broker. Names are those of inside; the broker knows them with `prefix`."""

    def __init__(self, bootstrap_servers: str, prefix: str, timings: Timings | None = None) -> None:
        self.settings = Settings(bootstrap_servers, prefix)
        self.transport = KafkaTransport(self.settings, client_id="test", timings=timings)
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        self._producers: list[AIOKafkaProducer] = []

    async def topic(self, name: str, partitions: int, *, groups: Sequence[str] = (), max_bytes: int = MIB) -> str:
        config = {"max.message.bytes": str(max_bytes)}
        new = NewTopic(self.settings.topic_prefix + name, partitions, 1, config=config)
        await until(lambda: self._made(new))
        await until(lambda: asyncio.to_thread(self._has_leaders, new.topic, partitions))
        for group in groups:
            await self.set_offsets(group, {Partition(name, number): 0 for number in range(partitions)})
        return name

    async def set_offsets(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """As `giclee topics apply` does; of a group without members."""
        rows = [self._row(at, offset) for at, offset in offsets.items()]
        await until(lambda: asyncio.to_thread(self._accepted, group, rows))

    async def committed(self, group: str, topic: str, partitions: int) -> dict[Partition, int]:
        """The group's offsets in a topic, as any other client sees them."""
        rows = [self._row(Partition(topic, number)) for number in range(partitions)]
        found = await asyncio.to_thread(self._asked, group, lambda consumer: consumer.committed(rows, timeout=10))
        return {Partition(topic, row.partition): row.offset for row in found}

    async def members(self, group: str) -> int:
        """Members of a group, as the broker counts them."""
        futures = self._admin.describe_consumer_groups([self.settings.topic_prefix + group])
        for future in futures.values():
            found = await asyncio.wrap_future(future)
        return len(found.members)

    async def transactions(self) -> KafkaTransactions:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.bootstrap_servers, transactional_id=f"{self.settings.topic_prefix}suite"
        )
        await producer.start()
        self._producers.append(producer)
        return KafkaTransactions(producer, self.settings.topic_prefix)

    async def foreign(self, topic: str, keys: Sequence[bytes]) -> list[int]:
        """Partitions that librdkafka, placing like the Java client, chose for `keys`."""
        return await asyncio.to_thread(self._foreign, self.settings.topic_prefix + topic, keys)

    async def close(self) -> None:
        for producer in self._producers:
            await producer.stop()

    def _row(self, at: Partition, offset: int = -1) -> TopicPartition:
        return TopicPartition(self.settings.topic_prefix + at.topic, at.number, offset)

    def _accepted(self, group: str, rows: Sequence[TopicPartition]) -> bool:
        """A coordinator that is still loading refuses, as a whole or partition by partition."""
        try:
            done = self._asked(group, lambda consumer: consumer.commit(offsets=list(rows), asynchronous=False))
        except KafkaException:
            return False
        return not any(row.error for row in done)

    def _asked(self, group: str, ask: Callable[[Consumer], Any]) -> Any:
        """A consumer that never joins: the admin client's calls for offsets do not survive a loading coordinator."""
        consumer = Consumer(
            {"bootstrap.servers": self.settings.bootstrap_servers, "group.id": self.settings.topic_prefix + group}
        )
        try:
            return ask(consumer)
        finally:
            consumer.close()

    def _foreign(self, topic: str, keys: Sequence[bytes]) -> list[int]:
        producer = Producer(
            {"bootstrap.servers": self.settings.bootstrap_servers, "partitioner": "murmur2_random", "log_level": 2}
        )
        found: dict[int, int] = {}

        def delivered(number: int) -> Any:
            return lambda error, message: found.__setitem__(number, message.partition())

        for number, key in enumerate(keys):
            producer.produce(topic, key=key, value=b"", on_delivery=delivered(number))
        producer.flush(20)
        return [found[number] for number in range(len(keys))]

    async def _made(self, new: NewTopic) -> bool:
        """A broker that was frozen has to be let in again by its controller before it takes a topic."""
        try:
            for future in self._admin.create_topics([new]).values():
                await asyncio.wrap_future(future)
        except KafkaException as error:
            return bool(error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS)
        return True

    def _has_leaders(self, topic: str, partitions: int) -> bool:
        found = self._admin.list_topics(topic, timeout=5).topics[topic].partitions
        return len(found) == partitions and all(row.leader >= 0 for row in found.values())
