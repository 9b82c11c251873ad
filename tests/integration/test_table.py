"""Following a compacted topic on a real broker and in memory: whole, live, and rebuilt after the broker was away."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from giclee.bus.errors import Transient
from giclee.bus.kafka import KafkaTransport
from giclee.bus.layers import codec
from giclee.bus.memory import MemoryTransport
from giclee.bus.settings import KafkaSettings
from giclee.bus.table import Table
from giclee.bus.transport import Record, Transport, Writer
from giclee.schemas import topics
from giclee.schemas.events import SwitchSet
from tests.kit.stack import KafkaRunning, kafka_part
from tests.kit.wait import until

TOPIC = topics.topic_of(SwitchSet)


def switch(scope: str, reason: str = "because", mode: str = "hold") -> Record:
    event = SwitchSet(scope=scope, mode=mode, reason=reason, actor="test", set_at=datetime.now(UTC))
    return codec.encode(event, source="test")


async def kafka_transport(kafka: KafkaRunning) -> KafkaTransport:
    """A transport with the topic of switches, empty and of this test alone."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(prefix + TOPIC, 1, 1)])
    await admin.close()
    return KafkaTransport(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=prefix))


@pytest.fixture(params=["memory", "kafka"])
async def transport(request: pytest.FixtureRequest) -> Transport:
    if request.param == "memory":
        return MemoryTransport()
    return await kafka_transport(request.getfixturevalue("kafka"))


@asynccontextmanager
async def followed(transport: Transport) -> AsyncIterator[Table[SwitchSet]]:
    table = Table(SwitchSet, transport)
    task = asyncio.create_task(table.follow())
    try:
        yield table
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def writing(transport: Transport) -> AsyncIterator[Writer]:
    writer = transport.writer("test")
    await writer.start()
    yield writer
    await writer.stop()


async def test_an_empty_topic_is_read_to_its_end(transport: Transport) -> None:
    """Nothing to read is whole too: stages must not wait for a first switch."""
    async with followed(transport) as table:
        with pytest.raises(Transient):
            await table.check()
        await asyncio.wait_for(table.caught_up.wait(), 20)
        await table.check()
        assert table.rows == {}


async def test_the_newest_of_each_key_is_its_row(transport: Transport) -> None:
    """History before and news after: always the last value; a record without a value removes its row."""
    async with writing(transport) as writer:
        await writer.send([switch("all", "old"), switch("tenant:a"), switch("tenant:b"), switch("all", "new")])
        await writer.send([Record(topic=TOPIC, key=b"tenant:b", value=None)])
        async with followed(transport) as table:
            await asyncio.wait_for(table.caught_up.wait(), 20)
            rows = table.rows
            assert {scope: row.reason for scope, row in rows.items()} == {"all": "new", "tenant:a": "because"}
            await writer.send([switch("stage:policy", "live"), Record(topic=TOPIC, key=b"all", value=None)])
            await until(lambda: set(rows) == {"tenant:a", "stage:policy"})


async def test_what_is_no_event_is_skipped(transport: Transport) -> None:
    """A broken record neither stops the table nor changes its row."""
    async with writing(transport) as writer:
        await writer.send([switch("all", "good"), Record(topic=TOPIC, key=b"all", value=b"{"), switch("tenant:z")])
        async with followed(transport) as table:
            await asyncio.wait_for(table.caught_up.wait(), 20)
            assert table.rows["all"].reason == "good" and "tenant:z" in table.rows


async def test_the_end_is_found_behind_control_records(transport: Transport) -> None:
    """A topic that ends in a transaction's control record can be caught up with."""
    writer = transport.numbered("test.relay", (TOPIC,))
    await writer.open()
    await writer.send([switch("all", "in a transaction")], 1)
    await writer.close()
    async with followed(transport) as table:
        await asyncio.wait_for(table.caught_up.wait(), 20)
        assert table.rows["all"].reason == "in a transaction"


@pytest.fixture
def own_kafka() -> Iterator[KafkaRunning]:
    with kafka_part() as running:
        yield running


async def test_a_restarted_broker_leaves_the_table_right(own_kafka: KafkaRunning) -> None:
    """While the broker is away the rows stay readable; afterwards news arrive, and nothing old is lost."""
    transport = await kafka_transport(own_kafka)
    async with writing(transport) as writer, followed(transport) as table:
        await writer.send([switch("all", "before")])
        await asyncio.wait_for(table.caught_up.wait(), 20)
        await until(lambda: "all" in table.rows)
        own_kafka.running.kill()
        assert table.rows["all"].reason == "before"
        own_kafka.running.start()
        await until(lambda: own_kafka.running.part.trouble() is None, within_s=30)
        fresh = KafkaTransport(KafkaSettings(**vars_of(transport)))
        async with writing(fresh) as again:
            await again.send([switch("tenant:new", "after")])
        await until(lambda: "tenant:new" in table.rows, within_s=60)
        assert table.rows["all"].reason == "before"


def vars_of(transport: KafkaTransport) -> dict[str, str]:
    settings = transport._cluster.settings
    return {"bootstrap_servers": settings.bootstrap_servers, "topic_prefix": settings.topic_prefix}
