"""G1: one hop of ours against a bare aiokafka loop. CPU per record, in one process each, on the same broker.

`python -m tests.bench.hop bare|ours BROKERS PREFIX COUNT` handles COUNT records and prints CPU and wall seconds. Both
read committed records of about 1 KiB, decode, write an answer with acks=all and idempotence, and commit after the
acknowledgement. Ours also validates, derives ids, carries CloudEvents headers, traces 1 % and keeps keys in order.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from giclee.bus import kafka as bus_kafka
from giclee.bus import telemetry
from giclee.bus.layers import codec
from giclee.bus.loop import Loop
from giclee.bus.settings import KafkaSettings
from giclee.bus.stage import Context, Stage
from giclee.schemas.events import EVENTS, Event, ImageGenerated, ImageScored
from giclee.schemas.parts import Score, candidate_id

SOURCE, TARGET = "image.generated.v1", "image.scored.v1"
EXAMPLE = json.loads((Path(__file__).parents[2] / "schemas/examples/ImageGenerated.json").read_text())
SCORES = {"technical": Score(value=0.9, threshold=0.5, verdict="pass", evaluator="technical", evaluator_version="1")}


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def fill(brokers: str, prefix: str, count: int) -> None:
    """Put `count` images on the source topic."""
    writer = bus_kafka.KafkaTransport(KafkaSettings(bootstrap_servers=brokers, topic_prefix=prefix)).writer("fill")
    await writer.start()
    model = EVENTS["giclee.ImageGenerated.v1"]
    for start in range(0, count, 2000):
        records = []
        for _ in range(min(2000, count - start)):
            rid = uuid.uuid4()
            named = {"request_id": str(rid), "candidate_id": str(candidate_id("acme", rid, 0))}
            records.append(codec.encode(model.model_validate({**EXAMPLE, **named}), source="giclee/gpu-worker"))
        await writer.send(records)
    await writer.stop()


async def bare(brokers: str, prefix: str, count: int) -> tuple[float, float]:
    """getmany -> orjson -> send_batch -> commit, and nothing else."""
    source, target = prefix + SOURCE, prefix + TARGET
    consumer = AIOKafkaConsumer(
        source, bootstrap_servers=brokers, group_id=f"{prefix}giclee.bare", enable_auto_commit=False,
        auto_offset_reset="earliest", isolation_level="read_committed",
        partition_assignment_strategy=(RoundRobinPartitionAssignor,),
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=brokers, enable_idempotence=True, acks="all", compression_type="lz4")
    await consumer.start()
    await producer.start()
    partitions = sorted(await producer.partitions_for(target))
    done, began = 0, (0.0, 0.0)
    while done < count:
        polled = await consumer.getmany(timeout_ms=500, max_records=500)
        if polled and not began[1]:
            began = (cpu_s(), time.perf_counter())
        records = [record for batch in polled.values() for record in batch]
        if not records:
            continue
        sends, batch = [], producer.create_batch()
        for at, record in enumerate(records):
            value = orjson.dumps({**orjson.loads(record.value), "verdict": "pass"})
            if batch.append(key=record.key, value=value, timestamp=None, headers=list(record.headers)) is None:
                sends.append(await producer.send_batch(batch, target, partition=partitions[at % len(partitions)]))
                batch = producer.create_batch()
                batch.append(key=record.key, value=value, timestamp=None, headers=list(record.headers))
        sends.append(await producer.send_batch(batch, target, partition=partitions[done % len(partitions)]))
        await asyncio.gather(*sends)
        await consumer.commit({TopicPartition(*at): batch[-1].offset + 1 for at, batch in polled.items()})
        done += len(records)
    used = (cpu_s() - began[0]) / done, (time.perf_counter() - began[1]) / done
    await consumer.stop()
    await producer.stop()
    return used


async def ours(brokers: str, prefix: str, count: int) -> tuple[float, float]:
    """The same through the loop with every layer."""
    os.environ.setdefault("OTEL_TRACES_SAMPLER", "traceidratio")
    os.environ.setdefault("OTEL_TRACES_SAMPLER_ARG", "0.01")
    telemetry.start("bench", log_level="warning")
    transport = bus_kafka.KafkaTransport(KafkaSettings(bootstrap_servers=brokers, topic_prefix=prefix))
    writer = transport.writer("bench")
    await writer.start()
    settled, began, ended = 0, [0.0, 0.0], [0.0, 0.0]

    async def score(event: ImageGenerated) -> list[Event]:
        if not began[1]:
            began[:] = cpu_s(), time.perf_counter()
        scored = ImageScored(
            **event.echo(), candidate_id=event.candidate_id, index=event.index, hop=event.hop,
            sha256=event.image.sha256, scores=SCORES, verdict="pass", gate_version="g", asset_type=event.asset_type,
        )  # fmt: skip
        return [scored]

    async def note(events: object) -> None:
        nonlocal settled
        settled += len(events)  # type: ignore[arg-type]
        if settled >= count and not ended[1]:
            ended[:] = (cpu_s() - began[0]) / settled, (time.perf_counter() - began[1]) / settled
            loop.stop()

    stage = Stage(name="scorer", reads=(ImageGenerated,), emits=(ImageScored,), handle=score, concurrency=64, settled=note)
    context = Context(stage=stage, send=writer.send, cluster_id="bench")
    loop = Loop(context, transport.reader(stage.group, stage.topics()))
    await loop.run()
    await writer.stop()
    return ended[0], ended[1]


RUNS: dict[str, Callable[[str, str, int], Awaitable[tuple[float, float]]]] = {"bare": bare, "ours": ours}

if __name__ == "__main__":
    mode, brokers, prefix, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        cpu, wall = runner.run(RUNS[mode](brokers, prefix, count))
    print(json.dumps({"cpu_us": cpu * 1e6, "wall_us": wall * 1e6}))
