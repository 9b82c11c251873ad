"""One side of G4 in a process of its own: COUNT dead letters, of which every tenth is not wanted, put back.

`python -m tests.bench.replay bare|ours BROKERS PREFIX COUNT DATABASE_URL` prints CPU and wall microseconds per letter
put back. `bare` consumes the dead-letter topic, looks at one header, strips those of the dead letter and produces the
rest, batch by batch. `ours` is a run of the replay service on letters that it has indexed: a filtered selection,
frozen, read from the topic by place, looked at (destination, state, event against its schema), sent, marked.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from giclee.bus import database, kafka, run, telemetry
from giclee.bus.settings import DatabaseSettings, KafkaSettings
from giclee.replay.ask import Neighbours
from giclee.replay.ledger import Ledger, Order
from giclee.replay.preflight import REPLAYS_MAX, Preflight
from giclee.replay.runs import Runs
from giclee.replay.selection import Selection
from giclee.schemas.topics import POOLS

SOURCE, TARGET = "image.generated.v1.dlq", "image.generated.v1"
WANTED, LEFT = "exhausted", "poison"
UNWANTED_EVERY = 10
POLL_MAX = 500


def _now() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, time.perf_counter()


def _figures(began: tuple[float, float], letters: int) -> dict[str, float]:
    cpu_s, wall_s = (end - start for start, end in zip(began, _now(), strict=True))
    return {"cpu_us": cpu_s / letters * 1e6, "wall_us": wall_s / letters * 1e6}


def wanted_of(count: int) -> int:
    """How many of `count` letters are wanted back."""
    return count - count // UNWANTED_EVERY


async def bare(brokers: str, prefix: str, count: int, _: str) -> dict[str, float]:
    """consume -> one header -> strip -> produce, and nothing else."""
    consumer = AIOKafkaConsumer(
        prefix + SOURCE, bootstrap_servers=brokers, group_id=None, auto_offset_reset="earliest",
        enable_auto_commit=False, isolation_level="read_committed",
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=brokers, enable_idempotence=True, acks="all", compression_type="lz4")
    async with consumer, producer:
        began, seen = _now(), 0
        while seen < count:
            for at, batch in (await consumer.getmany(timeout_ms=500, max_records=POLL_MAX)).items():
                seen += len(batch)
                await _put_back(producer, prefix + TARGET, at.partition, batch)
        return _figures(began, wanted_of(count))


async def _put_back(producer: AIOKafkaProducer, target: str, partition: int, records: list[object]) -> None:
    made = producer.create_batch()
    for record in records:
        headers = record.headers  # type: ignore[attr-defined]
        if dict(headers)["dlq-class"] != WANTED.encode():
            continue
        kept = [pair for pair in headers if not pair[0].startswith(("dlq-", "kafka_dlt-"))]
        key, value = record.key, record.value  # type: ignore[attr-defined]
        if made.append(key=key, value=value, timestamp=None, headers=kept) is None:
            await producer.send_batch(made, target, partition=partition)
            made = producer.create_batch()
            made.append(key=key, value=value, timestamp=None, headers=kept)
    await (await producer.send_batch(made, target, partition=partition))


async def ours(brokers: str, prefix: str, count: int, url: str) -> dict[str, float]:
    """A run as the service makes it, from the order to `done`."""
    telemetry.start("bench", log_level="warning")
    run.collect_seldom()
    transport = kafka.KafkaTransport(KafkaSettings(bootstrap_servers=brokers, topic_prefix=prefix))
    async with database.connect(DatabaseSettings(url=url), schema="replay") as pool:
        writer, lookup = transport.writer("replay"), transport.lookup()
        await writer.start()
        preflight = Preflight(lookup, Neighbours(None, {}), POOLS)
        ledger = Ledger(pool, preflight.allowed, REPLAYS_MAX)
        runs = Runs(ledger, lookup, preflight, writer.send)
        working = asyncio.create_task(runs.work())
        began = _now()
        order = Order(selection=Selection.model_validate({"class": WANTED, "stage": "scorer"}))
        row = await runs.start(order, "bench", "measured")
        while row["state"] not in ("done", "stopped"):
            await asyncio.sleep(0.5)  # more often would be measured as if it were the run
            row = await ledger.one(row["run_id"]) or row
        figures = _figures(began, wanted_of(count))
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await lookup.stop()
        await writer.stop()
    if row["sent"] != wanted_of(count):
        raise SystemExit(f"{row['state']}: {row['sent']} of {wanted_of(count)} sent: {row['why']}")
    return figures


if __name__ == "__main__":
    side, brokers, prefix, count, url = sys.argv[1:]
    print(json.dumps(asyncio.run({"bare": bare, "ours": ours}[side](brokers, prefix, int(count), url))))
