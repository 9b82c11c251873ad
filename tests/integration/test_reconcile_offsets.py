"""Group offsets that are lost on a real broker: found, put back where nothing is skipped, and said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from giclee.bus import database as bus_database
from giclee.bus.database import Pool
from giclee.bus.settings import DatabaseSettings
from giclee.bus.transport import Partition, Reader, Record
from giclee.replay.offsets import Offsets
from tests.kit.kafka_world import KafkaWorld
from tests.kit.members import Member, joined
from tests.kit.stack import KafkaRunning
from tests.kit.wait import until

pytestmark = pytest.mark.real

TOPIC, GROUP = "asked", "giclee.reader"
AT = Partition(TOPIC, 0)


@pytest.fixture
async def world(kafka: KafkaRunning, topic_prefix: str) -> AsyncIterator[KafkaWorld]:
    found = KafkaWorld(kafka.bootstrap_servers, topic_prefix)
    await found.topic(TOPIC, 1)
    writer = found.transport.writer("fill")
    await writer.start()
    await writer.send([Record(topic=TOPIC, key=b"k", value=b"%d" % number) for number in range(6)])
    await writer.stop()
    yield found
    await found.close()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with bus_database.connect(DatabaseSettings(url=database, pool_max=4), schema="replay") as opened:
        yield opened


@pytest.fixture
def offsets(world: KafkaWorld, pool: Pool) -> Offsets:
    return Offsets(pool, world.transport.groups(), {GROUP: [TOPIC]})


async def forget(world: KafkaWorld) -> None:
    """Delete the group, as an operator's slip or the broker's retention of offsets does."""
    admin = AdminClient({"bootstrap.servers": world.settings.bootstrap_servers})
    (future,) = admin.delete_consumer_groups([world.settings.topic_prefix + GROUP]).values()
    await asyncio.wrap_future(future)


async def test_a_deleted_group_goes_on_where_it_was_last_seen(world: KafkaWorld, offsets: Offsets) -> None:
    """Nothing is skipped, and not everything is read again."""
    await world.set_offsets(GROUP, {AT: 2})
    assert (await offsets.check()).verdict == "good"
    await forget(world)
    found = await offsets.check()
    assert (found.verdict, found.count) == ("bad", 1)
    assert (await world.committed(GROUP, TOPIC, 1))[AT] < 0, "a look changes nothing"

    assert [one.begin for one in await offsets.mend()] == [2]
    assert await world.committed(GROUP, TOPIC, 1) == {AT: 2}
    found = await offsets.check()
    assert (found.verdict, found.mended) == ("good", 1)


async def test_a_group_nobody_remembers_begins_with_the_first_record(world: KafkaWorld, offsets: Offsets) -> None:
    """Without a place to go back to, everything that the log has is handled."""
    assert (await offsets.check()).verdict == "bad"
    await offsets.mend()
    assert await world.committed(GROUP, TOPIC, 1) == {AT: 0}


async def _stands_still(member: Member, reader: Reader) -> bool:
    await member.poll(reader)
    return any("no first offset" in trouble for trouble in member.troubles)


async def test_a_member_that_stopped_goes_on_by_itself(world: KafkaWorld, offsets: Offsets) -> None:
    """The stage that has no offset stays in its group and waits; once it is put back it reads, without a restart."""
    reader = world.transport.reader(GROUP, [TOPIC])
    async with joined(reader) as member:
        await until(lambda: _stands_still(member, reader))
        assert [one.begin for one in await offsets.mend()] == [0]
        read = await member.read(reader, 6, within_s=30)
        assert [record.value for record in read] == [b"%d" % number for number in range(6)]


async def test_records_that_retention_took_are_counted_and_said(world: KafkaWorld, offsets: Offsets) -> None:
    """A group behind the log's start goes on at the start, and the report says how many records are gone."""
    await world.set_offsets(GROUP, {AT: 1})
    admin = AdminClient({"bootstrap.servers": world.settings.bootstrap_servers})
    cut = TopicPartition(world.settings.topic_prefix + TOPIC, 0, 4)
    (future,) = admin.delete_records([cut]).values()
    await asyncio.wrap_future(future)

    assert [(one.begin, one.gone) for one in await offsets.mend()] == [(4, 3)]
    assert await world.committed(GROUP, TOPIC, 1) == {AT: 4}
    found = await offsets.check()
    assert (found.verdict, found.count) == ("bad", 3)
    assert "retention took 3 records" in found.says


async def test_a_group_at_work_is_never_lost(world: KafkaWorld, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads on, in a log that grows, between the questions of one look: it is left where it is."""
    groups = world.transport.groups()
    ask = groups._committed

    async def late(*about: Any) -> Any:
        writer = world.transport.writer("fill")
        await writer.start()
        await writer.send([Record(topic=TOPIC, key=b"k", value=b"more")])
        await writer.stop()
        await world.set_offsets(GROUP, {AT: 7})
        return await ask(*about)

    await world.set_offsets(GROUP, {AT: 6})
    monkeypatch.setattr(groups, "_committed", late)
    assert await Offsets(pool, groups, {GROUP: [TOPIC]}).mend() == []
    assert await world.committed(GROUP, TOPIC, 1) == {AT: 7}


async def test_a_missing_topic_is_said_with_its_command(world: KafkaWorld, pool: Pool) -> None:
    """No topic is made by looking for it."""
    found = await Offsets(pool, world.transport.groups(), {GROUP: [TOPIC, "absent"]}).check()
    assert (found.verdict, found.fix, found.examples) == ("bad", "giclee topics apply", ("absent",))


async def test_what_was_put_back_is_in_the_audit(world: KafkaWorld, offsets: Offsets, pool: Pool) -> None:
    """Who, what, from where to where."""
    await offsets.mend()
    row = await pool.fetchrow("SELECT actor, action, details FROM replay.audit")
    assert row is not None
    assert (row["actor"], row["action"]) == ("giclee", "put offsets")
    assert row["details"]["places"] == [f"{GROUP} in {TOPIC}/0: None -> 0"]
