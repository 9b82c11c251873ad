"""`python -m giclee.intake` on a real broker and database: HTTP in, records out, records in, status and streams out."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import httpx2
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from giclee.bus.layers import codec
from giclee.infra import topics as topics_on_broker
from giclee.schemas.events import CancelRequested, Event, ImageRequested
from giclee.schemas.topics import topic_of
from tests.kit.stack import KafkaRunning
from tests.kit.wait import until
from tests.unit.intake.builders import Line

pytestmark = pytest.mark.real
KEY = "a-key-of-at-least-16"
MEMORY_MAX_MB = 130
REQUESTED = topic_of(ImageRequested)
GOOD = {"prompt": "a small red circle on a blue background"}


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


class Running:
    """The process, with a client that holds its key."""

    def __init__(self, process: asyncio.subprocess.Process, environment: dict[str, str], http: httpx2.AsyncClient):
        self.process = process
        self.http = http
        self.servers = environment["KAFKA_BOOTSTRAP_SERVERS"]
        self.prefix = environment["GICLEE_TOPIC_PREFIX"]

    async def state(self, request_id: Any) -> str | None:
        answer = await self.http.get(f"/v1/requests/{request_id}")
        return str(answer.json()["state"]) if answer.status_code == 200 else None

    async def send(self, *events: Event, bare: bool = False) -> None:
        """Publish events, or with `bare` only their JSON, as anybody may on a public topic."""
        producer = AIOKafkaProducer(bootstrap_servers=self.servers)
        await producer.start()
        try:
            for event in events:
                record = codec.encode(event, source="test")
                headers = [] if bare else list(record.headers)
                await producer.send_and_wait(self.prefix + record.topic, record.value, key=record.key, headers=headers)
        finally:
            await producer.stop()

    async def records(self, topic: str, count: int) -> Sequence[Any]:
        """The first records of a topic, until there are `count`."""
        consumer = AIOKafkaConsumer(
            self.prefix + topic, bootstrap_servers=self.servers, auto_offset_reset="earliest",
            isolation_level="read_committed",
        )  # fmt: skip
        await consumer.start()
        found: list[Any] = []

        async def enough() -> bool:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found.extend(records)
            return len(found) >= count

        try:
            await until(enough, within_s=30)
        finally:
            await consumer.stop()
        return found

    def memory_mb(self) -> float:
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


@asynccontextmanager
async def running(environment: dict[str, str]) -> AsyncIterator[Running]:
    """The process, ready; stopped with SIGTERM, which must be enough."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("GICLEE_", "KAFKA_", "AWS_"))}
    command = (sys.executable, "-m", "giclee.intake")
    process = await asyncio.create_subprocess_exec(*command, env={**kept, **environment})
    base_url = f"http://127.0.0.1:{environment['GICLEE_INTAKE_PORT']}"
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        await until(lambda: is_ready(int(environment["GICLEE_HEALTH_PORT"])), within_s=60)
        async with httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=30) as http:
            yield Running(process, environment, http)
        if process.returncode is None:
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def environment(kafka: KafkaRunning, database: str, topic_prefix: str) -> dict[str, str]:
    """What the local stack would give the process."""
    topics_on_broker.apply(topics_on_broker.Target(kafka.bootstrap_servers, topic_prefix, 1))
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "GICLEE_TOPIC_PREFIX": topic_prefix,
        "DATABASE_URL": database,
        "GICLEE_API_KEY": KEY,
        "GICLEE_HEALTH_PORT": str(free_port()),
        "GICLEE_INTAKE_PORT": str(free_port()),
    }


async def test_a_posted_request_is_published_and_followed_to_its_end(environment: dict[str, str]) -> None:
    """The record is a CloudEvent of the contract; the stream says every step; SIGTERM ends an open stream."""
    async with running(environment) as intake:
        answer = await intake.http.post("/v1/requests", json=GOOD | {"labels": {"a": "1"}})
        assert answer.status_code == 202, answer.text
        request_id = answer.json()["request_id"]
        [record] = await intake.records(REQUESTED, 1)
        headers = {name: raw.decode() for name, raw in record.headers}
        assert (record.key.decode(), headers["ce_subject"]) == (request_id, request_id)
        assert headers["ce_type"] == "giclee.ImageRequested.v1"
        assert json.loads(record.value)["labels"] == {"a": "1"}

        line = Line(request_id=uuid.UUID(request_id))
        listening = asyncio.create_task(intake.http.get(f"/v1/requests/{request_id}/events"))
        await intake.send(line.cleared(), line.routed(0), line.generated(0), line.scored(0))
        await intake.send(line.closed("approved", 0), line.approved(0))
        said = [row[7:] for row in (await listening).text.splitlines() if row.startswith("event: ")]
        assert said[-1] == "request.closed"
        assert said.count("asset.approved") == 1
        assert await intake.state(request_id) == "approved"
        assert intake.memory_mb() <= MEMORY_MAX_MB


async def test_a_request_published_as_bare_json_is_shown_and_cancelled(environment: dict[str, str]) -> None:
    """Upstream systems need no headers; a cancel over HTTP leaves with the request's own fields."""
    line = Line()
    async with running(environment) as intake:
        await intake.send(line.request, bare=True)
        await until(lambda: intake.state(line.id), within_s=20)
        answer = await intake.http.post(f"/v1/requests/{line.id}/cancel")
        assert answer.status_code == 202, answer.text
        [record] = await intake.records(topic_of(CancelRequested), 1)
        cancel = CancelRequested.model_validate_json(record.value)
        assert cancel.request is not None
        assert cancel.request.values() == line.request.values()
        assert await intake.state(line.id) == "cancelling"


async def test_what_was_accepted_survives_a_kill(environment: dict[str, str]) -> None:
    """kill -9 right after many 202s: the next process sends every record, each id at least once."""
    async with running(environment) as intake:
        answers = await asyncio.gather(*(intake.http.post("/v1/requests", json=GOOD) for _ in range(40)))
        intake.process.kill()
        await intake.process.wait()
    accepted = {answer.json()["request_id"] for answer in answers}
    async with running(environment) as again:

        async def arrived() -> bool:
            """Every accepted id is on the topic."""
            return {record.key.decode() for record in await again.records(REQUESTED, 40)} >= accepted

        await until(arrived, within_s=30)
        states = [await again.state(request_id) for request_id in accepted]
        assert set(states) <= {"pending", "clearing"}
