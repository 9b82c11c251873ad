"""What the transport alone costs: consume, decode, produce, commit, on ours and on bare aiokafka with send_batch.

`python -m tests.bench.carrier [RECORDS [ROUNDS]]` starts a broker, runs both (and the bare one placing records by key,
as ours must) in turn, each in a process of its own, and prints CPU microseconds per record: medians and the ratio.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from giclee.bus.kafka import KafkaTransport
from giclee.bus.placement import partition_of
from giclee.bus.transport import Partition, Record
from tests.kit.kafka_world import KafkaWorld, Settings
from tests.kit.stack import kafka_part

SOURCE, TARGET, PARTITIONS, POLL_MAX = "source", "target", 6, 500
BODY = {"prompt": "a small red circle on a blue background " * 18, "n": 0, "labels": {"team": "a", "run": "b"}}
HEADERS = (("ce_id", b"x" * 36), ("ce_type", b"giclee.ImageRequested.v1"), ("content-type", b"application/json"))


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Meter:
    """CPU and wall time from the first record on."""

    def __init__(self) -> None:
        self._cpu_s, self._at_s = 0.0, 0.0

    def begin(self) -> None:
        if not self._at_s:
            self._cpu_s, self._at_s = cpu_s(), time.perf_counter()

    def per_record(self, records: int) -> dict[str, float]:
        wall_s = time.perf_counter() - self._at_s
        return {"cpu_us": (cpu_s() - self._cpu_s) / records * 1e6, "wall_us": wall_s / records * 1e6}


def _changed(value: bytes | None) -> bytes:
    return orjson.dumps({**orjson.loads(value or b"{}"), "verdict": "pass"})


async def bare(brokers: str, run: str, count: int, *, placing: bool = False) -> dict[str, float]:
    """getmany -> orjson -> one batch per partition -> send_batch -> commit."""
    consumer = AIOKafkaConsumer(
        SOURCE, bootstrap_servers=brokers, group_id=run, enable_auto_commit=False, auto_offset_reset="earliest",
        isolation_level="read_committed",
    )  # fmt: skip
    producer = AIOKafkaProducer(
        bootstrap_servers=brokers, enable_idempotence=True, acks="all", compression_type="lz4", max_batch_size=262_144
    )
    await consumer.start()
    await producer.start()
    meter, done = Meter(), 0
    while done < count:
        polled = await consumer.getmany(timeout_ms=500, max_records=POLL_MAX)
        if not polled:
            continue
        meter.begin()
        batches: dict[int, list[Any]] = {}
        for at, records in polled.items():
            for record in records:
                number = partition_of(record.key, PARTITIONS) if placing else at.partition
                held = batches.setdefault(number, [producer.create_batch()])
                row = {"timestamp": None, "key": record.key, "value": _changed(record.value)}
                if held[-1].append(**row, headers=list(record.headers)) is None:
                    held.append(producer.create_batch())
                    held[-1].append(**row, headers=list(record.headers))
        packed = [(number, batch) for number, held in batches.items() for batch in held]
        waits = [await producer.send_batch(batch, TARGET, partition=number) for number, batch in packed]
        await asyncio.gather(*waits)
        await consumer.commit({TopicPartition(*at): records[-1].offset + 1 for at, records in polled.items()})
        done += sum(map(len, polled.values()))
    found = meter.per_record(done)
    await consumer.stop()
    await producer.stop()
    return found


async def placing(brokers: str, run: str, count: int) -> dict[str, float]:
    return await bare(brokers, run, count, placing=True)


class _Quiet:
    async def revoked(self, partitions: Collection[Partition]) -> None: ...
    async def assigned(self, partitions: Collection[Partition]) -> None: ...


async def ours(brokers: str, run: str, count: int) -> dict[str, float]:
    """The same through a Reader and a Writer."""
    transport = KafkaTransport(Settings(brokers))
    reader, writer = transport.reader(run, [SOURCE]), transport.writer("bench")
    await writer.start()
    await reader.start(_Quiet())
    meter, done = Meter(), 0
    while done < count:
        polled = await reader.poll(500, POLL_MAX)
        if not polled:
            continue
        meter.begin()
        await writer.send(
            [Record(topic=TARGET, key=one.key, value=_changed(one.value), headers=one.headers) for one in polled]
        )
        await reader.commit({one.at: one.offset + 1 for one in polled})
        done += len(polled)
    found = meter.per_record(done)
    await reader.stop()
    await writer.stop()
    return found


RUNS: dict[str, Callable[[str, str, int], Coroutine[Any, Any, dict[str, float]]]] = {
    "bare": bare, "placing": placing, "ours": ours,
}  # fmt: skip


async def _prepare(world: KafkaWorld, count: int, runs: list[str]) -> None:
    await world.topic(SOURCE, PARTITIONS, groups=runs)
    await world.topic(TARGET, PARTITIONS)
    writer = world.transport.writer("fill")
    await writer.start()
    for begin in range(0, count, 2000):
        values = [orjson.dumps({**BODY, "n": number}) for number in range(begin, min(begin + 2000, count))]
        keys = [str(uuid.uuid4()).encode() for _ in values]
        rows = zip(keys, values, strict=True)
        await writer.send([Record(topic=SOURCE, key=key, value=value, headers=HEADERS) for key, value in rows])
    await writer.stop()


def main(count: int, rounds: int) -> None:
    """All runs in turn, then the medians."""
    order = [(name, f"{name}-{number}") for number in range(rounds) for name in RUNS]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    with kafka_part() as kafka:
        asyncio.run(_prepare(KafkaWorld(kafka.bootstrap_servers, ""), count, [run for _, run in order]))
        for name, run in order:
            arguments = ["run", name, kafka.bootstrap_servers, run, str(count)]
            command = [sys.executable, "-m", "tests.bench.carrier", *arguments]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {name: statistics.median(row["cpu_us"] for row in rows) for name, rows in found.items()}
    for name, rows in found.items():
        spread = sorted(row["cpu_us"] for row in rows)
        print(f"{name:8} {medians[name]:6.1f} us CPU a record ({spread[0]:.1f} to {spread[-1]:.1f})")
    for name in ("bare", "placing"):
        print(f"ours / {name}: {medians['ours'] / medians[name]:.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        name, brokers, run, count = sys.argv[2:6]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(json.dumps(runner.run(RUNS[name](brokers, run, int(count)))))
    else:
        numbers = [int(text) for text in sys.argv[1:]]
        main(numbers[0] if numbers else 30_000, numbers[1] if len(numbers) > 1 else 5)
