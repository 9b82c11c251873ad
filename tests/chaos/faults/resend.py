"""Old records once more, from anywhere on the log and out of order: what a confused producer or operator does."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.chaos.fault import Draw
from tests.chaos.stack import Stack

TOPICS = (
    "image.requested.v1",
    "image.cancel-requested.v1",
    "image.policy-cleared.v1",
    "image.routed.local.v1",
    "image.generated.v1",
    "image.generation-failed.v1",
    "image.scored.v1",
    "image.candidates-requested.v1",
)
"""All but what the publisher alone may write."""
WINDOW_RECORDS = 12
"""Of each partition."""


class Resend:
    """A few hundred records, shuffled."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._servers = stack.env["KAFKA_BOOTSTRAP_SERVERS"]
        self._chance = random.Random(draw.seed)
        self._sent = 0

    async def inject(self) -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._servers, request_timeout_ms=10_000)
        producer = AIOKafkaProducer(bootstrap_servers=self._servers, acks="all", request_timeout_ms=10_000)
        async with consumer, producer:
            records = [record for topic in TOPICS for record in await self._some_of(consumer, topic)]
            self._chance.shuffle(records)
            deliveries = [
                await producer.send(one.topic, one.value, one.key, one.partition, headers=list(one.headers))
                for one in records
            ]
            told = await asyncio.gather(*deliveries, return_exceptions=True)
            self._sent = sum(not isinstance(one, BaseException) for one in told)

    async def heal(self) -> None:
        """Nothing to undo."""

    def proof(self) -> dict[str, Any]:
        return {"sent": self._sent}

    async def _some_of(self, consumer: Any, topic: str) -> list[Any]:
        """A window of every partition, at a place drawn by the seed. Only what our own services wrote: a record that
        was invalid the first time is rightly another dead letter the second."""
        await consumer._client._wait_on_metadata(topic)
        found: list[Any] = []
        for number in sorted(consumer.partitions_for_topic(topic) or ()):
            at = TopicPartition(topic, number)
            consumer.assign([at])
            begin, end = (await consumer.beginning_offsets([at]))[at], (await consumer.end_offsets([at]))[at]
            if end == begin:
                continue
            consumer.seek(at, self._chance.randint(begin, max(begin, end - WINDOW_RECORDS)))
            batch = await consumer.getmany(at, timeout_ms=1000, max_records=WINDOW_RECORDS)
            found += [one for one in batch.get(at, ()) if any(name == "ce_id" for name, _ in one.headers)]
        return found
