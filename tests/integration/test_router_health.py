"""Provider health as a process on a real broker: what goes in as attempts and scores comes out as a row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from giclee.router import health
from giclee.schemas import envelope, topics
from giclee.schemas.events import Event, ImageScored, ProviderHealth, ProviderOutcome
from tests.kit.service_process import running
from tests.kit.stack import KafkaRunning
from tests.kit.wait import until

pytestmark = pytest.mark.real
ATTEMPTS, EVERY_FOURTH_FAILS = 12, 4


def outcome(at: int) -> ProviderOutcome:
    return ProviderOutcome(
        provider="diffusion", model="m", candidate_id=uuid4(), hop=0, fence=1, seconds=at / 10, price_usd="0.0004",
        outcome="transient" if at % EVERY_FOURTH_FAILS == 0 else "made", at=datetime.now(UTC),
    )  # fmt: skip


def scored(at: int) -> ImageScored:
    score = {"value": 1.0, "verdict": "pass", "evaluator": "e", "evaluator_version": "1"}
    return ImageScored.model_validate({
        "request_id": uuid4(), "candidate_id": uuid4(), "index": 0, "sha256": "0" * 64, "gate_version": "g",
        "scores": {"technical": score}, "verdict": "pass" if at % 2 else "fail", "provider": "diffusion",
    })  # fmt: skip


async def create_topics(servers: str, prefix: str) -> None:
    rows = [topics.row_of(event) for event in (ProviderOutcome, ImageScored, ProviderHealth)]
    wanted = {row.name: row.partitions for row in rows} | health.changelogs()
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(prefix + name, count, 1) for name, count in wanted.items()])
    finally:
        await admin.close()


async def send(servers: str, prefix: str, events: list[Event], *junk: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    try:
        for event in events:
            value = event.model_dump_json().encode()
            await producer.send_and_wait(prefix + topics.topic_for(event), value, key=event.key().encode())
        for value in junk:
            await producer.send_and_wait(prefix + topics.topic_of(ProviderOutcome), value, key=b"x")
    finally:
        await producer.stop()


async def test_attempts_and_scores_become_health(kafka: KafkaRunning, topic_prefix: str) -> None:
    """Counts of the last minute add up over all partitions, junk is skipped, and the record is a CloudEvent of ours."""
    servers = kafka.bootstrap_servers
    await create_topics(servers, topic_prefix)
    reader = AIOKafkaConsumer(
        topic_prefix + topics.topic_of(ProviderHealth), bootstrap_servers=servers, auto_offset_reset="earliest"
    )
    await reader.start()
    seen: list[Any] = []
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": servers, "GICLEE_TOPIC_PREFIX": topic_prefix,
        "GICLEE_ROUTER_HEALTH_PUBLISH_EVERY_S": "0.5",
    }  # fmt: skip

    async def last() -> ProviderHealth | None:
        """A row with all attempts and scores."""
        for records in (await reader.getmany(timeout_ms=500)).values():
            seen.extend(records)
        row = ProviderHealth.model_validate_json(seen[-1].value) if seen else None
        return row if row and row.attempts >= ATTEMPTS and row.scored >= ATTEMPTS else None

    try:
        async with running("giclee.router.health", env):
            made: list[Event] = [*map(outcome, range(ATTEMPTS)), *map(scored, range(ATTEMPTS))]
            await send(servers, topic_prefix, made, b"{", b"", b'{"provider": "other"}')
            row = await until(last, within_s=30)
    finally:
        await reader.stop()
    assert (row.provider, row.attempts, row.made, row.failures) == ("diffusion", 12, 9, {"transient": 3})
    assert (row.scored, row.passed, row.window_s) == (12, 6, 60)
    # by model what lasts longer than the minute; a score that names no model is nobody's
    assert (row.models["m"].samples, round(row.models["unknown"].accepted["generic"].scored)) == (9, 11)
    assert row.p50_s is not None and row.p95_s is not None and row.p50_s <= row.p95_s <= 1.1
    found = envelope.read(seen[-1].headers)
    assert (found.type, found.id, seen[-1].key) == (ProviderHealth.type_name, str(row.event_id()), b"diffusion")
