"""One side of G1 in a process of its own: one hop over COUNT records that wait on a topic.

`python -m tests.bench.hop bare|send|ours BROKERS PREFIX COUNT [uvloop]` prints CPU and wall microseconds per record,
from the first poll that brought records to the commit of the last one. All read committed records of about 1 KiB,
decode them, write one answer of the same fields under as many headers, with acks=all, idempotence and lz4, and commit
after the acknowledgement. `bare` builds one batch a poll by hand, `send` calls the producer once per record.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from giclee.bus import kafka as bus_kafka
from giclee.bus import run, telemetry
from giclee.bus.loop import Loop
from giclee.bus.settings import KafkaSettings
from giclee.bus.stage import Context, Stage
from giclee.bus.transport import Partition, Record
from giclee.schemas.events import Event, ImageGenerated, ImageScored
from giclee.schemas.parts import Score

SOURCE, TARGET, BARE_GROUP = "image.generated.v1", "image.scored.v1", "giclee.bare"
POLL_MAX = 500
SCORES = {"technical": Score(value=0.9, threshold=0.5, verdict="pass", evaluator="technical", evaluator_version="1")}
_PLAIN_SCORES = {name: score.model_dump(mode="json") for name, score in SCORES.items()}
_ECHO = ("request_id", "tenant", "client_ref", "batch_id", "set_id", "labels", "candidate_id", "index", "hop")


class Meter:
    """CPU and wall time between the first record and the last commit."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._began = (0.0, 0.0)
        self._committed: dict[Any, int] = {}
        self.figures: dict[str, float] = {}

    @staticmethod
    def _now() -> tuple[float, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime, time.perf_counter()

    def polled(self, records: int) -> None:
        if records and not self._began[1]:
            self._began = self._now()

    def committed(self, offsets: Mapping[Any, int]) -> bool:
        """Whether that was the last commit; topics begin at offset 0."""
        self._committed |= offsets
        if sum(self._committed.values()) < self.count or self.figures:
            return bool(self.figures)
        names = zip(("cpu_us", "wall_us"), self._began, self._now(), strict=True)
        self.figures = {name: (end - begin) / self.count * 1e6 for name, begin, end in names}
        return True


# ---- bare -------------------------------------------------------------------------------------------------


def _answer(value: bytes) -> bytes:
    found = orjson.loads(value)
    said = {name: found[name] for name in _ECHO if name in found}
    said |= {"sha256": found["image"]["sha256"], "scores": _PLAIN_SCORES, "verdict": "pass", "gate_version": "g"}
    said |= {"asset_type": found["asset_type"], "provider": found["provider"], "seconds": 0.0}
    return orjson.dumps(said)


Send = Callable[[AIOKafkaProducer, str, list[Any], int], Awaitable[None]]


async def _by_batch(producer: AIOKafkaProducer, target: str, records: list[Any], turn: int) -> None:
    """The cheapest that the library can do: batches built by hand, whole polls to one partition."""
    sends, batch = [], producer.create_batch()
    partitions = sorted(await producer.partitions_for(target))
    for at, record in enumerate(records):
        value, headers = _answer(record.value), list(record.headers)
        if batch.append(key=record.key, value=value, timestamp=None, headers=headers) is None:
            sends.append(await producer.send_batch(batch, target, partition=partitions[at % len(partitions)]))
            batch = producer.create_batch()
            batch.append(key=record.key, value=value, timestamp=None, headers=headers)
    sends.append(await producer.send_batch(batch, target, partition=partitions[turn % len(partitions)]))
    await asyncio.gather(*sends)


async def _by_record(producer: AIOKafkaProducer, target: str, records: list[Any], turn: int) -> None:
    """What one writes first: a send per record, the broker's answers awaited together."""
    sends = [
        await producer.send(target, _answer(record.value), key=record.key, headers=list(record.headers))
        for record in records
    ]
    await asyncio.gather(*sends)


async def _bare(brokers: str, prefix: str, meter: Meter, send: Send) -> None:
    consumer = AIOKafkaConsumer(
        prefix + SOURCE, bootstrap_servers=brokers, group_id=prefix + BARE_GROUP, enable_auto_commit=False,
        auto_offset_reset="none", isolation_level="read_committed",
        partition_assignment_strategy=(RoundRobinPartitionAssignor,),
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=brokers, enable_idempotence=True, acks="all", compression_type="lz4")
    async with consumer, producer:
        done, ended = 0, False
        while not ended:
            polled = await consumer.getmany(timeout_ms=500, max_records=POLL_MAX)
            records = [record for batch in polled.values() for record in batch]
            meter.polled(len(records))
            if not records:
                continue
            await send(producer, prefix + TARGET, records, done // POLL_MAX)
            offsets = {TopicPartition(*at): batch[-1].offset + 1 for at, batch in polled.items()}
            await consumer.commit(offsets)
            done += len(records)
            ended = meter.committed(offsets)


async def bare(brokers: str, prefix: str, meter: Meter) -> None:
    """getmany -> orjson -> send_batch -> commit, and nothing else."""
    await _bare(brokers, prefix, meter, _by_batch)


async def send(brokers: str, prefix: str, meter: Meter) -> None:
    """getmany -> orjson -> send -> commit."""
    await _bare(brokers, prefix, meter, _by_record)


# ---- ours -------------------------------------------------------------------------------------------------


class Metered:
    """A reader that tells the meter, and stops its loop at the last commit."""

    def __init__(self, inner: bus_kafka.KafkaReader, meter: Meter) -> None:
        self._inner, self._meter = inner, meter
        self.loop: Loop | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def poll(self, timeout_ms: int, max_records: int) -> Sequence[Record]:
        records = await self._inner.poll(timeout_ms, max_records)
        self._meter.polled(len(records))
        return records

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        await self._inner.commit(offsets)
        if self._meter.committed(offsets) and self.loop is not None:
            self.loop.stop()


async def _score(event: ImageGenerated) -> list[Event]:
    scored = ImageScored(
        **event.echo(), candidate_id=event.candidate_id, index=event.index, hop=event.hop, sha256=event.image.sha256,
        scores=SCORES, verdict="pass", gate_version="g", asset_type=event.asset_type, provider=event.provider,
    )  # fmt: skip
    return [scored]


async def ours(brokers: str, prefix: str, meter: Meter) -> None:
    """The same through the loop with every layer, 1 % of the records traced."""
    os.environ |= {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    telemetry.start("bench", log_level="warning")
    run.collect_seldom()
    transport = bus_kafka.KafkaTransport(KafkaSettings(bootstrap_servers=brokers, topic_prefix=prefix))
    writer = transport.writer("bench")
    await writer.start()
    stage = Stage(name="scorer", reads=(ImageGenerated,), emits=(ImageScored,), handle=_score, concurrency=64)
    parts = {"switches": SimpleNamespace(rows={})}
    context = Context(stage=stage, send=writer.send, cluster_id="bench", topic_prefix=prefix, parts=parts)
    reader = Metered(transport.reader(stage.group, stage.topics()), meter)
    reader.loop = Loop(context, reader)
    await reader.loop.run()
    await writer.stop()


SIDES: dict[str, Callable[[str, str, Meter], Coroutine[Any, Any, None]]] = {"bare": bare, "send": send, "ours": ours}


def main(side: str, brokers: str, prefix: str, count: str, loop: str = "asyncio") -> None:
    """Run one side and print its figures."""
    meter = Meter(int(count))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(SIDES[side](brokers, prefix, meter))
    print(json.dumps(meter.figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
