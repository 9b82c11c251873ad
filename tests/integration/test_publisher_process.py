"""`python -m giclee.publisher` on a real broker, database and bucket: events in, approvals and a closing out, once."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import httpx2
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pydantic import SecretStr

from giclee.bus import blobs
from giclee.bus.layers import codec
from giclee.bus.settings import BlobSettings
from giclee.infra import topics as topics_on_broker
from giclee.schemas import topics
from giclee.schemas.events import EVENTS, Event, ImageApproved, RequestClosed
from tests.kit.stack import KafkaRunning, S3Running
from tests.kit.wait import until
from tests.unit.publisher.builders import Request, picture

pytestmark = pytest.mark.real
KEY = "a-key-of-at-least-16"
MEMORY_MAX_MB = 130


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(port: int) -> bool:
    """/readyz says so."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(json.load(answer)["ready"])
    except (URLError, OSError):
        return False


@asynccontextmanager
async def running(environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process, ready; stopped with SIGTERM, which must be enough."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("GICLEE_", "KAFKA_", "AWS_"))}
    command = (sys.executable, "-m", "giclee.publisher")
    process = await asyncio.create_subprocess_exec(*command, env={**kept, **environment})
    try:
        await until(lambda: is_ready(int(environment["GICLEE_HEALTH_PORT"])), within_s=60)
        yield process
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def environment(kafka: KafkaRunning, s3: S3Running, database: str, topic_prefix: str) -> dict[str, str]:
    """What the local stack would give the process."""
    topics_on_broker.apply(topics_on_broker.Target(kafka.bootstrap_servers, topic_prefix, 1))
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "GICLEE_TOPIC_PREFIX": topic_prefix,
        "DATABASE_URL": database,
        "AWS_ENDPOINT_URL_S3": s3.s3_endpoint,
        "AWS_ACCESS_KEY_ID": s3.aws_access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.aws_secret_access_key,
        "AWS_REGION": s3.region,
        "GICLEE_BUCKET": s3.bucket,
        "GICLEE_API_KEY": KEY,
        "GICLEE_HEALTH_PORT": str(free_port()),
        "GICLEE_PUBLISHER_PORT": str(free_port()),
        "GICLEE_PUBLISHER_SWEEP_INTERVAL_S": "0.2",
    }


async def send(servers: str, prefix: str, events: list[Event]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    try:
        for event in events:
            record = codec.encode(event, source="test")
            await producer.send_and_wait(
                prefix + record.topic, record.value, key=record.key, headers=list(record.headers)
            )
    finally:
        await producer.stop()


async def published(servers: str, prefix: str, count: int) -> list[Event]:
    """What a subscriber of both public topics sees until there are `count` closings, and a little longer."""
    names = [prefix + topics.topic_of(kind) for kind in (ImageApproved, RequestClosed)]
    consumer = AIOKafkaConsumer(
        *names, bootstrap_servers=servers, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    await consumer.start()
    seen: list[Any] = []

    async def enough() -> bool:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                kind = EVENTS[dict(record.headers)["ce_type"].decode()]
                seen.append(kind.model_validate_json(record.value))
        return sum(isinstance(event, RequestClosed) for event in seen) >= count

    try:
        await until(enough, within_s=60)
        await enough()
    finally:
        await consumer.stop()
    return seen


async def test_the_process_publishes_once_and_serves_the_picture(environment: dict[str, str], s3: S3Running) -> None:
    """Ten requests, every event twice: ten approvals, ten closings; the picture comes back over HTTP; little memory."""
    servers, prefix = environment["KAFKA_BOOTSTRAP_SERVERS"], environment["GICLEE_TOPIC_PREFIX"]
    bucket = BlobSettings(
        endpoint_url=s3.s3_endpoint,
        access_key_id=SecretStr(s3.aws_access_key_id),
        secret_access_key=SecretStr(s3.aws_secret_access_key),
        bucket=s3.bucket,
    )
    requests = [Request(closes_by=datetime.now(UTC) + timedelta(hours=1)) for _ in range(10)]
    events: list[Event] = []
    async with blobs.connect(bucket) as store:
        for asked in requests:
            made = asked.generated(0)
            image = await store.put(made.image.key, picture(0, asked.id), "image/png", width=32, height=16)
            made = made.model_copy(update={"image": image})
            events += [asked.scored(0), made, asked.cleared()]

    async with running(environment) as process:
        await send(servers, prefix, events + events)
        seen = await published(servers, prefix, 10)
        approvals = [event for event in seen if isinstance(event, ImageApproved)]
        closings = [event for event in seen if isinstance(event, RequestClosed)]
        assert sorted(str(one.request_id) for one in closings) == sorted(str(asked.id) for asked in requests)
        assert len({(one.asset_id, one.version) for one in approvals}) == len(approvals) == 10
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(headers=headers, timeout=10) as client:
            shown = (await client.get(approvals[0].links.self)).json()
            assert ImageApproved.model_validate(shown) == approvals[0]
            redirect = await client.get(approvals[0].links.download)
            assert redirect.status_code == 307
        async with httpx2.AsyncClient(timeout=10) as nobody:
            body = (await nobody.get(redirect.headers["location"])).content
        assert body == picture(0, approvals[0].request_id)
        assert _memory_mb(process.pid) <= MEMORY_MAX_MB


def _memory_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
