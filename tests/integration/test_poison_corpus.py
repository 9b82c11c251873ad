"""Every service as a process on real parts, and a corpus of records that nobody should have written, on every topic."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from giclee.bus.layers import codec
from giclee.infra import topics as infra
from giclee.schemas import topics
from tests.kit.corpus import Odd, corpus
from tests.kit.service_process import free_port, running
from tests.kit.stack import KafkaRunning, S3Running
from tests.kit.stub_line import MODEL, MODULES
from tests.kit.wait import until

pytestmark = pytest.mark.real
REQUESTED, CLEARED, CLOSED = "image.requested.v1", "image.policy-cleared.v1", "image.closed.v1"
DELAY_MAX_S = 1.0
"""Contract: a poison record delays its partition at most so long."""
Place = tuple[str, int, int]


@pytest.fixture
def env(kafka: KafkaRunning, s3: S3Running, database: str, topic_prefix: str, tmp_path: Path) -> dict[str, str]:
    """What all processes read."""
    infra.apply(infra.Target(kafka.bootstrap_servers, topic_prefix, replication=1))
    (tmp_path / "giclee.toml").write_text(MODEL)
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "GICLEE_TOPIC_PREFIX": topic_prefix,
        "DATABASE_URL": database, "AWS_ENDPOINT_URL_S3": s3.s3_endpoint, "AWS_ACCESS_KEY_ID": s3.aws_access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.aws_secret_access_key, "AWS_REGION": s3.region, "GICLEE_BUCKET": s3.bucket,
        "GICLEE_API_KEY": "a-key-of-at-least-16", "GICLEE_CONFIG": str(tmp_path / "giclee.toml"),
        "GICLEE_MODELS_DIR": str(tmp_path), "GICLEE_GPU_WORKER_POOL": "local", "PYTHONPATH": os.getcwd(),
        "GICLEE_INTAKE_PORT": str(free_port()), "GICLEE_PUBLISHER_PORT": str(free_port()),
    }  # fmt: skip


class Watch:
    """Sends records and remembers where they lie; reads back what lies on some topics."""

    def __init__(self, env: dict[str, str]) -> None:
        self._prefix = env["GICLEE_TOPIC_PREFIX"]
        servers = env["KAFKA_BOOTSTRAP_SERVERS"]
        rows = topics.all_topics(("local",))
        names = [CLEARED, CLOSED, *(row.name for row in rows if row.name.endswith(".dlq"))]
        self._producer = AIOKafkaProducer(bootstrap_servers=servers, max_request_size=2 * topics.MIB)
        self._reader = AIOKafkaConsumer(
            *(self._prefix + name for name in names), bootstrap_servers=servers, auto_offset_reset="earliest",
            isolation_level="read_committed", max_partition_fetch_bytes=8 * topics.MIB,
        )  # fmt: skip
        self.seen: dict[str, list[Any]] = {}
        self.came_at: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watch:
        await self._producer.start()
        await self._reader.start()
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._reader.stop()
        await self._producer.stop()

    async def _follow(self) -> None:
        async for record in self._reader:
            topic = record.topic.removeprefix(self._prefix)
            self.seen.setdefault(topic, []).append(record)
            if topic == CLEARED:
                self.came_at.setdefault(str(codec.peek(record.value).get("request_id")), time.monotonic())

    async def send(self, odd: Odd, partition: int | None = None) -> Place:
        record = odd.record
        at = await self._producer.send_and_wait(
            self._prefix + record.topic, record.value, key=record.key, headers=list(record.headers),
            partition=partition, timestamp_ms=record.timestamp_ms if record.timestamp_ms > 0 else None,
        )  # fmt: skip
        return record.topic, at.partition, at.offset

    async def ask(self, partition: int | None = None) -> str:
        """A good request; its id."""
        rid = str(uuid.uuid4())
        body = json.dumps({"request_id": rid, "prompt": "a small red circle", "size": {"width": 64, "height": 64}})
        await self._producer.send_and_wait(self._prefix + REQUESTED, body.encode(), partition=partition)
        return rid

    def letters(self) -> list[tuple[Place, Any]]:
        """Every dead letter with the place of the record that died."""
        found = []
        for topic, records in self.seen.items():
            if topic.endswith(".dlq"):
                for record in records:
                    named = dict(record.headers)
                    where = int(named["dlq-original-partition"]), int(named["dlq-original-offset"])
                    found.append(((topic.removesuffix(".dlq"), *where), record))
        return found

    def has_died(self, dead: Collection[Place]) -> bool:
        """Every one of `dead` lies in its topic of dead letters."""
        if self._task and self._task.done():
            self._task.result()
        return set(dead) <= {place for place, _ in self.letters()}

    def closed(self) -> Counter[str]:
        """How often each request was closed."""
        return Counter(
            found["request_id"]
            for record in self.seen.get(CLOSED, ())
            if (found := codec.peek(record.value)) and dict(record.headers).get("ce_source") == b"giclee/publisher"
        )


@asynccontextmanager
async def line(env: dict[str, str]) -> AsyncIterator[Watch]:
    """Every service, each of which must have lived through it all when it is told to stop."""
    async with AsyncExitStack() as opened:
        for module in MODULES:
            await opened.enter_async_context(running(module, env))
        yield await opened.enter_async_context(Watch(env))


async def test_every_poison_record_dies_once_and_the_line_goes_on(env: dict[str, str]) -> None:
    """700 records of 100 kinds on every topic: each in its .dlq exactly once, as it was; the good ones between them
    are served to their end; no process ends; and a partition hardly waits for what is dead."""
    rows = corpus()
    async with line(env) as watch:
        began = time.monotonic()
        dead: dict[Place, Odd] = {}
        good: list[str] = []
        for number, odd in enumerate(rows):
            place = await watch.send(odd)
            if odd.dies:
                dead[place] = odd
            if number % 35 == 0:
                good.append(await watch.ask())
        good += [json.loads(odd.record.value or b"")["request_id"] for odd in rows if not odd.dies]

        await until(lambda: watch.has_died(dead), within_s=120)
        await until(lambda: set(good) <= set(watch.closed()), within_s=120)
        print(
            f"{len(dead)} dead letters of {len({odd.kind for odd in rows})} kinds in {time.monotonic() - began:.1f} s"
        )
        letters = watch.letters()
        assert Counter(place for place, _ in letters) == Counter(dead.keys())
        for place, letter in letters:
            _is_the_record(letter, dead[place].record, place)
        assert {watch.closed()[rid] for rid in good} == {1}
        extra_s = await _delays(watch, rows)

    print(f"behind a poison record, seconds more: median {median(extra_s):.3f}, most {max(extra_s):.3f}")
    assert median(extra_s) < DELAY_MAX_S, extra_s


def _is_the_record(letter: Any, record: Any, place: Place) -> None:
    assert (letter.key, letter.value, letter.partition) == (record.key, record.value, place[1])
    assert tuple(letter.headers[: len(record.headers)]) == record.headers
    assert dict(letter.headers)["dlq-class"] == b"invalid"


async def _delays(watch: Watch, rows: Sequence[Odd]) -> list[float]:
    """How much longer a request took to be cleared right behind each of some poison records of its partition, than
    behind nothing. Seconds."""
    poison = [odd for odd in rows if odd.dies and odd.record.topic == REQUESTED][:20]
    plain = [await _cleared_in(watch, None) for _ in range(10)]
    return [await _cleared_in(watch, odd) - median(plain) for odd in poison]


async def _cleared_in(watch: Watch, before: Odd | None) -> float:
    began = time.monotonic()
    if before is not None:
        await watch.send(before, partition=0)
    rid = await watch.ask(partition=0)
    await until(lambda: rid in watch.came_at, within_s=30)
    return watch.came_at[rid] - began
