"""The baseline of G2 and G3: bare aiokafka relays in a chain, some of them in this process.

`python -m tests.bench.relays BROKERS PREFIX FIRST LAST` relays `relay.N` to `relay.N+1` for N from FIRST to LAST:
getmany, orjson both ways, one batch per partition, acks=all, idempotence, commit after the acknowledgement. Prints
`ready` once all of them have joined; ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

HOPS = 6


def topic(hop: int) -> str:
    """What relay number `hop` reads; number HOPS is what the last one writes."""
    return f"relay.{hop}"


def group(hop: int) -> str:
    return f"giclee.relay.{hop}"


async def _joined(consumer: AIOKafkaConsumer) -> None:
    while not consumer.assignment():
        await consumer.getmany(timeout_ms=100)


async def _deliver(producer: AIOKafkaProducer, target: str, polled: dict[TopicPartition, list[Any]], hop: int) -> None:
    """Every record to the partition it came from: keys keep their order."""
    sends = []
    for at, records in polled.items():
        batch = producer.create_batch()
        for record in records:
            value = orjson.dumps({**orjson.loads(record.value), "hop": hop})
            row = {"key": record.key, "value": value, "timestamp": None, "headers": list(record.headers)}
            if batch.append(**row) is None:
                sends.append(await producer.send_batch(batch, target, partition=at.partition))
                batch = producer.create_batch()
                batch.append(**row)
        sends.append(await producer.send_batch(batch, target, partition=at.partition))
    await asyncio.gather(*sends)


async def relay(brokers: str, prefix: str, hop: int, joined: asyncio.Event) -> None:
    """Relay until cancelled."""
    consumer = AIOKafkaConsumer(
        prefix + topic(hop), bootstrap_servers=brokers, group_id=prefix + group(hop), enable_auto_commit=False,
        auto_offset_reset="earliest", isolation_level="read_committed",
        partition_assignment_strategy=(RoundRobinPartitionAssignor,),
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=brokers, enable_idempotence=True, acks="all", compression_type="lz4")
    async with consumer, producer:
        await _joined(consumer)
        joined.set()
        while True:
            polled = await consumer.getmany(timeout_ms=500, max_records=500)
            if polled:
                await _deliver(producer, prefix + topic(hop + 1), polled, hop)
                await consumer.commit({at: batch[-1].offset + 1 for at, batch in polled.items()})


async def main(brokers: str, prefix: str, first: str, last: str) -> None:
    """All relays of this process, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    hops = range(int(first), int(last) + 1)
    joined = {hop: asyncio.Event() for hop in hops}
    tasks = [asyncio.create_task(relay(brokers, prefix, hop, joined[hop])) for hop in hops]
    for event in joined.values():
        await event.wait()
    print("ready", flush=True)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()  # raises what went wrong
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
