"""The memory transport passes the suite of all transports, and its faults are what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import pytest

from giclee.bus.errors import Fenced, Transient
from giclee.bus.memory import MemoryTransactions, MemoryTransport
from giclee.bus.transport import Partition
from giclee.schemas.topics import MIB
from tests.contract.transport_suite import TransportSuite, numbered, values
from tests.kit.members import Member, joined


class MemoryWorld:
    """Topics in memory."""

    def __init__(self) -> None:
        self.transport = MemoryTransport({}, groups={})

    async def topic(self, name: str, partitions: int, *, groups: Sequence[str] = (), max_bytes: int = MIB) -> str:
        self.transport.create(name, partitions, record_max_bytes=max_bytes)
        for group in groups:
            self.transport.first_offsets(group, [name])
        return name

    async def transactions(self) -> MemoryTransactions:
        found = self.transport.transactions("suite")
        await found.start()
        return found


class TestMemoryTransport(TransportSuite):
    @pytest.fixture
    def world(self) -> MemoryWorld:
        return MemoryWorld()


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport({"t": 2})


async def test_by_default_the_topics_of_the_table_are_there() -> None:
    """A test that runs services needs no preparation."""
    transport = MemoryTransport()
    reader = transport.reader("giclee.policy", ["image.requested.v1"])

    async with joined(reader):
        assert len(reader.assignment()) == 6


async def test_while_the_broker_is_away_everything_is_transient(transport: MemoryTransport) -> None:
    """Poll, send and commit fail while it is away and work again afterwards."""
    reader, writer = transport.reader("g", ["t"]), transport.writer("w")
    async with joined(reader):
        transport.away = True
        with pytest.raises(Transient):
            await reader.poll(10, 10)
        with pytest.raises(Transient):
            await writer.send(numbered("t", [1]))
        with pytest.raises(Transient):
            await reader.commit({Partition("t", 0): 0})

        transport.away = False
        await writer.send(numbered("t", [1]))
        assert values(await reader.poll(10, 10)) == [1]


async def test_a_lost_acknowledgement_leaves_the_records_there(transport: MemoryTransport) -> None:
    """The sender cannot know; sending again makes a second copy, as on a real broker."""
    writer = transport.writer("w")
    transport.acks_to_lose = 1

    with pytest.raises(Transient):
        await writer.send(numbered("t", [1]))
    await writer.send(numbered("t", [1]))

    assert values(transport.records("t")) == [1, 1]


async def test_a_member_that_expired_is_fenced_and_comes_back(transport: MemoryTransport) -> None:
    """It hears nothing until it polls; then it loses everything, joins again, and reads on from the last commit."""
    writer, reader, other = transport.writer("w"), transport.reader("g", ["t"]), transport.reader("g", ["t"])
    await writer.send(numbered("t", range(4)))
    async with joined(reader) as member:
        at = (await member.read(reader, 4))[0].at
        await transport.expire(reader)
        async with joined(other) as second:
            await second.read(other, 4)
            await other.commit({at: 3})
            with pytest.raises(Fenced):
                await reader.commit({at: 1})
        await member.read(reader, 5)

    assert len(member.revocations) == 1
    assert values(member.records) == [0, 1, 2, 3, 3]


async def test_rewinding_delivers_again(transport: MemoryTransport) -> None:
    """What was committed comes a second time, after the members have drained."""
    writer, reader = transport.writer("w"), transport.reader("g", ["t"])
    await writer.send(numbered("t", range(3)))
    async with joined(reader) as member:
        at = (await member.read(reader, 3))[0].at
        await reader.commit({at: 3})
        assert transport.lag("g", ["t"]) == 0
        await transport.rewind("g")
        assert transport.lag("g", ["t"]) == 3
        await member.read(reader, 6)

    assert values(member.records) == [0, 1, 2, 0, 1, 2]


async def test_a_member_that_drains_too_long_is_not_waited_for() -> None:
    """The group goes on after its time, and what the slow member commits then is fenced."""
    transport = MemoryTransport({"t": 2}, drain_s=0.05)
    await transport.writer("w").send([*numbered("t", [1], partition=0), *numbered("t", [1], partition=1)])
    one, two = transport.reader("g", ["t"]), transport.reader("g", ["t"])

    async def never(partitions: Collection[Partition]) -> None:
        await asyncio.Event().wait()

    async with joined(one, Member(never)) as member:
        await member.read(one, 2)
        async with joined(two):
            assert len(two.assignment()) == 1
            with pytest.raises(Fenced):
                await one.commit(dict.fromkeys(two.assignment(), 1))


async def test_a_second_numbered_writer_shuts_out_the_first(transport: MemoryTransport) -> None:
    """Opening tells the last number on the log; what the first had open is gone and it cannot write any more."""
    first, second = transport.numbered("relay", ["t"]), transport.numbered("relay", ["t"])
    assert await first.open() == 0
    await first.send(numbered("t", [1, 2]), 1)

    assert await second.open() == 2
    with pytest.raises(Transient):
        await first.send(numbered("t", [3]), 3)
    await second.send(numbered("t", [3]), 3)

    assert values(transport.records("t")) == [1, 2, 3]


async def test_a_numbered_send_whose_answer_is_lost_is_found_by_opening(transport: MemoryTransport) -> None:
    """The outcome is unknown to the sender and known to the log."""
    relay = transport.numbered("relay", ["t"])
    await relay.open()
    transport.acks_to_lose = 1

    with pytest.raises(Transient):
        await relay.send(numbered("t", [1]), 1)
    await relay.close()

    assert await relay.open() == 1
