"""Reads topics back, so that a figure counts only when every record is there once and is what it should be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.bench.measure import Wrong

Ends = Mapping[TopicPartition, int]


def _consumer(brokers: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(bootstrap_servers=brokers, isolation_level="read_committed", enable_auto_commit=False)


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    await consumer._client._wait_on_metadata(topic)
    return [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]


async def ends(brokers: str, topic: str) -> Ends:
    """Where each partition of a topic ends now, for readers of committed records."""
    async with _consumer(brokers) as consumer:
        found: Ends = await consumer.end_offsets(await _partitions(consumer, topic))
    return found


async def since(brokers: str, topic: str, starts: Ends | None = None) -> list[Any]:
    """Every committed record of a topic from `starts` (else the beginning) to its end now."""
    found: list[Any] = []
    async with _consumer(brokers) as consumer:
        partitions = await _partitions(consumer, topic)
        until = await consumer.end_offsets(partitions)
        begins = starts or await consumer.beginning_offsets(partitions)
        for at in partitions:
            if begins[at] >= until[at]:
                continue
            consumer.assign([at])
            consumer.seek(at, begins[at])
            while await consumer.position(at) < until[at]:
                for batch in (await consumer.getmany(at, timeout_ms=500)).values():
                    found += [record for record in batch if record.offset < until[at]]
    return found


def header(record: Any, name: str) -> str:
    """A header's text; empty when it is missing."""
    return str(dict(record.headers).get(name, b"").decode())


def exactly_once(what: str, asked: Iterable[str], came: Iterable[str]) -> None:
    """Errors: Wrong when one of `asked` did not come, came twice, or another came."""
    wanted, found = Counter(list(asked)), Counter(list(came))
    if wanted == found:
        return
    lost, more = wanted - found, found - wanted
    raise Wrong(f"{what}: {lost.total()} of {wanted.total()} lost, {more.total()} twice or unasked")


def body(record: Any) -> dict[str, Any]:
    """A record's value as JSON."""
    value: dict[str, Any] = json.loads(record.value)
    return value
