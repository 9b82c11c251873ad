"""Two hundred times the same id at once is one request: over HTTP at intake, over Kafka at policy (rule 13)."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from pathlib import Path

import httpx2
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from giclee.infra import topics as infra
from tests.kit.service_process import free_port, running
from tests.kit.stack import KafkaRunning
from tests.kit.wait import until

pytestmark = pytest.mark.real
TIMES = 200
AT_ONCE = 50
"""Connections: what a machine under load still opens within the client's patience."""
KEY = "a-key-of-at-least-16"
REQUESTED, CLEARED, DEAD = "image.requested.v1", "image.policy-cleared.v1", "image.requested.v1.dlq"


@pytest.fixture
def env(kafka: KafkaRunning, database: str, topic_prefix: str, tmp_path: Path) -> dict[str, str]:
    infra.apply(infra.Target(kafka.bootstrap_servers, topic_prefix, replication=1))
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "GICLEE_TOPIC_PREFIX": topic_prefix,
        "DATABASE_URL": database, "GICLEE_MODELS_DIR": str(tmp_path), "GICLEE_API_KEY": KEY,
        "GICLEE_INTAKE_PORT": str(free_port()),
    }  # fmt: skip


async def _on(env: dict[str, str], *names: str) -> AIOKafkaConsumer:
    prefix = env["GICLEE_TOPIC_PREFIX"]
    reader = AIOKafkaConsumer(
        *(prefix + name for name in names), bootstrap_servers=env["KAFKA_BOOTSTRAP_SERVERS"],
        auto_offset_reset="earliest", isolation_level="read_committed",
    )  # fmt: skip
    await reader.start()
    return reader


async def _read_to(reader: AIOKafkaConsumer, last: str) -> list[str]:
    """The ids of every event until that of the request `last`."""
    found: list[str] = []

    async def enough() -> bool:
        for records in (await reader.getmany(timeout_ms=200)).values():
            found.extend(json.loads(record.value)["request_id"] for record in records)
        return last in found

    await until(enough, within_s=60)
    return found


async def test_two_hundred_posts_of_one_id_are_one_request(env: dict[str, str]) -> None:
    """Each is answered with 202 and the same id; one row, one record. One with other values is 409."""
    rid, last = str(uuid.uuid4()), str(uuid.uuid4())
    base = f"http://127.0.0.1:{env['GICLEE_INTAKE_PORT']}"
    limits = httpx2.Limits(max_connections=AT_ONCE)
    async with (
        running("giclee.intake", env),
        httpx2.AsyncClient(
            base_url=base, headers={"Authorization": f"Bearer {KEY}"}, timeout=60, limits=limits
        ) as http,
    ):

        async def ask(request_id: str, prompt: str = "a red circle") -> tuple[int, str | None]:
            answer = await http.post("/v1/requests", json={"request_id": request_id, "prompt": prompt})
            return answer.status_code, answer.json().get("request_id")

        answers = Counter(await asyncio.gather(*(ask(rid) for _ in range(TIMES))))
        assert answers == {(202, rid): TIMES}
        assert (await ask(rid, "a blue square"))[0] == 409
        await ask(last)
        reader = await _on(env, REQUESTED)
        try:
            assert Counter(await _read_to(reader, last))[rid] == 1
        finally:
            await reader.stop()


async def test_two_hundred_records_of_one_id_are_one_verdict(env: dict[str, str]) -> None:
    """On every partition, as many producers would send them: one clearance, no dead letter, from two replicas."""
    rid = str(uuid.uuid4())
    lasts = [str(uuid.uuid4()) for _ in range(6)]
    producer = AIOKafkaProducer(bootstrap_servers=env["KAFKA_BOOTSTRAP_SERVERS"], max_batch_size=1024)
    topic = env["GICLEE_TOPIC_PREFIX"] + REQUESTED

    async def send(request_id: str, partition: int) -> None:
        value = json.dumps({"request_id": request_id, "prompt": "a red circle"}).encode()
        await producer.send_and_wait(topic, value, partition=partition)

    async with running("giclee.policy", env), running("giclee.policy", env):
        await producer.start()
        try:
            await asyncio.gather(*(send(rid, number % 6) for number in range(TIMES)))
            for partition, last in enumerate(lasts):
                await send(last, partition)
        finally:
            await producer.stop()
        reader = await _on(env, CLEARED, DEAD)
        found: list[str] = []
        try:
            for last in lasts:  # behind the copies of their partition
                if last not in found:
                    found += await _read_to(reader, last)
        finally:
            await reader.stop()
    assert Counter(found) == {rid: 1, **dict.fromkeys(lasts, 1)}
