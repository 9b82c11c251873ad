"""What every transport must do. Memory and Kafka run these same tests, each over a World of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Protocol

import pytest

from giclee.bus.errors import Fenced, Poison, Transient
from giclee.bus.transport import Partition, Record, Transport, Writer
from tests.kit.members import Member, joined, polled
from tests.kit.wait import until

# Where librdkafka 2.16 put these keys among 6 partitions (partitioner murmur2_random); test_kafka_transport.py asks it.
PLACES_OF_6 = {
    b"": 3,
    b"a": 4,
    b"ab": 2,
    b"abc": 3,
    b"abcd": 2,
    b"abcde": 1,
    b"0": 2,
    b"request-1": 1,
    b"request-2": 3,
    "schneemann \N{SNOWMAN}".encode(): 4,
    b"\x00\xff\xfe": 3,
    b"9f1c3c52-6c58-4b0e-9d8e-0a3f0d7b1c11": 0,
    b"00000000-0000-0000-0000-000000000000": 3,
    b"x" * 300: 4,
}


class Transactions(Protocol):
    """A transactional writer, as far as the suite needs one."""

    async def begin(self) -> None: ...
    async def send(self, records: Sequence[Record]) -> object: ...
    async def commit(self) -> None: ...
    async def abort(self) -> None: ...


class World(Protocol):
    """A broker with topics of this test alone."""

    transport: Transport

    async def topic(self, name: str, partitions: int, *, groups: Sequence[str] = (), max_bytes: int = ...) -> str:
        """A new topic, and the beginning as first offset of `groups` in it."""
        ...

    async def transactions(self) -> Transactions: ...


def numbered(topic: str, numbers: Sequence[int], *, key: bytes | None = b"one", partition: int = -1) -> list[Record]:
    return [Record(topic=topic, key=key, value=str(number).encode(), partition=partition) for number in numbers]


def values(records: Sequence[Record]) -> list[int]:
    return [int(record.value or b"-1") for record in records]


class TransportSuite:
    """Subclass it and give the fixture `world`."""

    @pytest.fixture
    async def writer(self, world: World):  # type: ignore[no-untyped-def]
        found = world.transport.writer("suite")
        await found.start()
        yield found
        await found.stop()

    # ---- sending and reading --------------------------------------------------------------------

    async def test_records_of_one_key_keep_their_order(self, world: World, writer: Writer) -> None:
        """Whatever is sent between them and in however many sends, a key's records arrive as they were sent."""
        topic = await world.topic("order", 3, groups=["g"])
        keys = [f"key-{number}".encode() for number in range(10)]
        for begin in range(0, 300, 60):
            await writer.send(
                [Record(topic=topic, key=keys[n % 10], value=str(n).encode()) for n in range(begin, begin + 60)]
            )
        reader = world.transport.reader("g", [topic])

        async with joined(reader) as member:
            records = await member.read(reader, 300)

        by_key = defaultdict(list)
        for record in records:
            by_key[record.key].append(record)
        assert {key: values(found) for key, found in by_key.items()} == {
            key: list(range(place, 300, 10)) for place, key in enumerate(keys)
        }
        assert all(len({record.partition for record in found}) == 1 for found in by_key.values())

    async def test_a_key_goes_where_every_kafka_client_puts_it(self, world: World, writer: Writer) -> None:
        """Java and librdkafka producers write a key to the same partition as we do."""
        topic = await world.topic("places", 6)

        positions = await writer.send([Record(topic=topic, key=key, value=b"") for key in PLACES_OF_6])

        assert [position.partition for position in positions] == list(PLACES_OF_6.values())

    async def test_positions_are_where_the_records_are(self, world: World, writer: Writer) -> None:
        """`send` answers in the order of its records, with the place that a reader finds each at."""
        topic = await world.topic("positions", 3, groups=["g"])
        records = [Record(topic=topic, key=str(n).encode(), value=str(n).encode()) for n in range(50)]
        positions = await writer.send(records)
        reader = world.transport.reader("g", [topic])

        async with joined(reader) as member:
            found = {record.value: record for record in await member.read(reader, 50)}

        assert [(p.topic, p.partition, p.offset) for p in positions] == [
            (topic, found[record.value].partition, found[record.value].offset) for record in records
        ]

    async def test_a_named_partition_is_obeyed(self, world: World, writer: Writer) -> None:
        """A dead letter goes to the partition its source had, whatever its key says."""
        topic = await world.topic("named", 3)

        positions = [
            (await writer.send([Record(topic=topic, key=b"k", value=b"", partition=number)]))[0].partition
            for number in (0, 1, 2)
        ]

        assert positions == [0, 1, 2]

    async def test_a_partition_that_is_not_there_is_the_operators_matter(self, world: World, writer: Writer) -> None:
        """Too few partitions is Transient and names the remedy, not Poison: nothing is wrong with the record."""
        topic = await world.topic("few", 1)

        with pytest.raises(Transient, match="giclee topics apply"):
            await writer.send([Record(topic=topic, value=b"", partition=5)])

    async def test_odd_records_survive(self, world: World, writer: Writer) -> None:
        """Null and empty keys and values, repeated, empty, null and binary headers arrive as they were sent."""
        topic = await world.topic("odd", 1, groups=["g"])
        headers = (("same", b"1"), ("same", b"2"), ("", b""), ("none", None), ("\N{SNOWMAN}", b"\xff\x00\xfe"))
        sent = [
            Record(topic=topic, key=None, value=None),
            Record(topic=topic, key=b"", value=b""),
            Record(topic=topic, key=b"\x00\xff", value=None),
            Record(topic=topic, key=None, value=b"\x00", headers=headers),  # type: ignore[arg-type]
        ]
        await writer.send(sent)
        reader = world.transport.reader("g", [topic])

        async with joined(reader) as member:
            found = await member.read(reader, 4)

        assert [(r.key, r.value, r.headers) for r in found] == [(r.key, r.value, r.headers) for r in sent]

    async def test_keyless_records_are_spread(self, world: World, writer: Writer) -> None:
        """Without a key any partition will do, so all get some."""
        topic = await world.topic("spread", 3)

        positions = await writer.send([Record(topic=topic, value=b"") for _ in range(60)])

        assert {position.partition for position in positions} == {0, 1, 2}

    async def test_timestamps_are_set_or_kept(self, world: World, writer: Writer) -> None:
        """A record has the time it was given, or else the time it was sent, milliseconds."""
        topic = await world.topic("times", 1, groups=["g"])
        before_ms = int(time.time() * 1000) - 1
        given = Record(topic=topic, value=b"", timestamp_ms=1_700_000_000_000)
        await writer.send([Record(topic=topic, value=b""), given])
        reader = world.transport.reader("g", [topic])

        async with joined(reader) as member:
            now, kept = await member.read(reader, 2)

        assert before_ms <= now.timestamp_ms <= int(time.time() * 1000) + 1
        assert kept.timestamp_ms == given.timestamp_ms

    async def test_a_record_too_large_is_poison_and_harms_no_other(self, world: World, writer: Writer) -> None:
        """A record beyond the topic's limit can never be taken; the same writer goes on with the next."""
        topic = await world.topic("small", 1, groups=["g"], max_bytes=20_000)
        small = Record(topic=topic, key=b"k", value=os.urandom(1000))
        large = Record(topic=topic, key=b"k", value=os.urandom(30_000))

        with pytest.raises(Poison, match=r"small.* bytes"):
            await writer.send([small, large, small])
        with pytest.raises(Poison):
            await writer.send([large])
        await writer.send([Record(topic=topic, key=b"k", value=b"after")])

        reader = world.transport.reader("g", [topic])
        async with joined(reader) as member:
            await until(lambda: self._saw(member, reader, b"after"))
        assert large.value not in {record.value for record in member.records}

    async def test_records_that_only_together_are_too_large_are_taken(self, world: World, writer: Writer) -> None:
        """Kafka limits the batch; whoever sends small records must not hear of it."""
        topic = await world.topic("batch", 1, groups=["g"], max_bytes=20_000)
        sent = [Record(topic=topic, key=b"k", value=os.urandom(5000)) for _ in range(20)]

        await writer.send(sent)

        reader = world.transport.reader("g", [topic])
        async with joined(reader) as member:
            found = await member.read(reader, 20)
        assert list(dict.fromkeys(record.value for record in found)) == [record.value for record in sent]

    async def test_a_megabyte_goes_through(self, world: World, writer: Writer) -> None:
        """The largest record that the contract allows on a public topic, among small ones."""
        topic = await world.topic("large", 1, groups=["g"])
        sent = [
            Record(topic=topic, key=b"k", value=b"small"),
            Record(topic=topic, key=b"k", value=os.urandom(1_000_000)),
            Record(topic=topic, key=b"k", value=b"small too"),
        ]

        await writer.send(sent)

        reader = world.transport.reader("g", [topic])
        async with joined(reader) as member:
            found = await member.read(reader, 3)
        assert [record.value for record in found] == [record.value for record in sent]

    async def test_sends_may_overlap(self, world: World, writer: Writer) -> None:
        """Twenty sends at once on one writer: all acknowledged, nothing lost, nothing twice."""
        topic = await world.topic("overlap", 3, groups=["g"])

        await asyncio.gather(
            *(writer.send(numbered(topic, range(n, n + 10), key=str(n).encode())) for n in range(0, 200, 10))
        )

        reader = world.transport.reader("g", [topic])
        async with joined(reader) as member:
            assert sorted(values(await member.read(reader, 200))) == list(range(200))

    async def test_a_missing_topic_is_said(self, world: World, writer: Writer) -> None:
        """Sending to a topic that is not there is Transient and names the command that makes it."""
        with pytest.raises(Transient, match="giclee topics apply"):
            await writer.send([Record(topic="never-made", value=b"")])

    # ---- polling --------------------------------------------------------------------------------

    @pytest.mark.parametrize("timeout_ms", [0, 50, 300])
    async def test_poll_keeps_its_time(self, world: World, timeout_ms: int) -> None:
        """With nothing to read a poll takes what was asked, not more."""
        topic = await world.topic("quiet", 3, groups=["g"])
        reader = world.transport.reader("g", [topic])

        async with joined(reader):
            await reader.poll(500, 10)
            begin = time.monotonic()
            found = await reader.poll(timeout_ms, 10)
            took_ms = (time.monotonic() - begin) * 1000

        assert list(found) == []
        assert timeout_ms - 20 <= took_ms <= timeout_ms + 150

    async def test_poll_wakes_for_a_record(self, world: World, writer: Writer) -> None:
        """A record that comes during a poll ends it."""
        topic = await world.topic("wake", 1, groups=["g"])
        reader = world.transport.reader("g", [topic])

        async with joined(reader):
            polling = asyncio.create_task(reader.poll(20_000, 10))
            await writer.send(numbered(topic, [7]))
            found = await asyncio.wait_for(polling, 10)

        assert values(found) == [7]

    async def test_poll_keeps_its_number(self, world: World, writer: Writer) -> None:
        """No poll brings more records than asked, and none is skipped for it."""
        topic = await world.topic("number", 2, groups=["g"])
        for partition in (0, 1):
            await writer.send(numbered(topic, range(partition * 100, partition * 100 + 50), partition=partition))
        reader = world.transport.reader("g", [topic])
        sizes = []

        async with joined(reader) as member:
            while len(member.records) < 100:
                sizes.append(len(await member.poll(reader, 1000, max_records=7)))

        assert max(sizes) <= 7
        assert sorted(values(member.records)) == [*range(50), *range(100, 150)]

    async def test_no_first_offset_is_said(self, world: World, writer: Writer) -> None:
        """A group that was never given a place to begin does not guess one; it says what to do."""
        topic = await world.topic("unknown", 1, groups=["another"])
        await writer.send(numbered(topic, [1]))
        reader = world.transport.reader("g", [topic])

        async with joined(reader) as member:
            await until(lambda: self._troubled(member, reader))

        assert "giclee topics apply" in member.troubles[0]
        assert "unknown" in member.troubles[0]
        assert member.records == []

    # ---- pausing --------------------------------------------------------------------------------

    async def test_a_paused_partition_waits_and_loses_nothing(self, world: World, writer: Writer) -> None:
        """Paused in the middle of what was fetched: silent until resumed, then on from the very next record."""
        topic = await world.topic("pause", 2, groups=["g"])
        zero, one = Partition(topic, 0), Partition(topic, 1)
        await writer.send([*numbered(topic, range(100), partition=0), *numbered(topic, range(100, 200), partition=1)])
        reader = world.transport.reader("g", [topic])

        async with joined(reader) as member:
            while not any(record.at == zero for record in member.records):
                await member.poll(reader, 1000, max_records=5)
            reader.pause([zero])
            before = [record for record in member.records if record.at == zero]
            await until(lambda: self._count(member, reader, one, 100))
            await writer.send(numbered(topic, [100_000], partition=1))
            await until(lambda: self._count(member, reader, one, 101))
            assert [record for record in member.records if record.at == zero] == before
            reader.resume([zero])
            await until(lambda: self._count(member, reader, zero, 100))

        assert values([record for record in member.records if record.at == zero]) == list(range(100))

    async def test_pauses_survive_a_rebalance(self, world: World, writer: Writer) -> None:
        """What stays ours and was paused stays paused when a member comes and goes."""
        topic = await world.topic("still", 2, groups=["g"])
        reader, other = world.transport.reader("g", [topic]), world.transport.reader("g", [topic])

        async with joined(reader) as member, polled(member, reader):
            reader.pause([Partition(topic, 0), Partition(topic, 1)])
            async with joined(other):
                await until(lambda: len(reader.assignment()) == 1)
                kept = next(iter(reader.assignment()))
            await until(lambda: len(reader.assignment()) == 2)
            await writer.send([*numbered(topic, [0], partition=0), *numbered(topic, [1], partition=1)])
            await until(lambda: member.records)
            assert {record.at for record in member.records} == {at for at in reader.assignment() if at != kept}
            reader.resume([kept])
            await until(lambda: len(member.records) == 2)

    # ---- groups ---------------------------------------------------------------------------------

    async def test_the_next_member_goes_on_where_the_last_committed(self, world: World, writer: Writer) -> None:
        """Records read but not committed come again; committed ones do not."""
        topic = await world.topic("resume", 1, groups=["g"])
        at = Partition(topic, 0)
        await writer.send(numbered(topic, range(10)))
        first, second = world.transport.reader("g", [topic]), world.transport.reader("g", [topic])

        async with joined(first) as member:
            await member.read(first, 10)
            await first.commit({at: 4})
        async with joined(second) as member:
            found = await member.read(second, 6)

        assert values(found) == [4, 5, 6, 7, 8, 9]

    async def test_two_members_share_all_partitions(self, world: World, writer: Writer) -> None:
        """Every partition has one owner; when one leaves the other has all."""
        topic = await world.topic("share", 6, groups=["g"])
        everything = {Partition(topic, number) for number in range(6)}
        one, two = world.transport.reader("g", [topic]), world.transport.reader("g", [topic])

        async with joined(one) as first, polled(first, one):
            assert set(one.assignment()) == everything
            async with joined(two) as second, polled(second, two):
                await until(lambda: len(one.assignment()) == 3 and len(two.assignment()) == 3)
                assert set(one.assignment()) | set(two.assignment()) == everything
                await writer.send([Record(topic=topic, value=b"1", partition=n) for n in range(6)])
                await until(lambda: len(first.records) + len(second.records) == 6)
                assert {record.at for record in first.records} == set(one.assignment())
            await until(lambda: set(one.assignment()) == everything)

    async def test_drained_work_is_committed_before_others_get_it(self, world: World, writer: Writer) -> None:
        """While partitions are being taken away their owner may still commit; whoever comes does not repeat that."""
        topic = await world.topic("drain", 2, groups=["g"])
        await writer.send([*numbered(topic, range(10), partition=0), *numbered(topic, range(10, 20), partition=1)])
        one, two = world.transport.reader("g", [topic]), world.transport.reader("g", [topic])

        async def commit_everything(partitions: Collection[Partition]) -> None:
            await one.commit(dict.fromkeys(partitions, 10))

        async with joined(one, Member(commit_everything)) as first:
            await first.read(one, 20)
            async with polled(first, one), joined(two) as second, polled(second, two):
                await until(lambda: len(two.assignment()) == 1)
                await writer.send([*numbered(topic, [100], partition=0), *numbered(topic, [101], partition=1)])
                await until(lambda: len(first.records) + len(second.records) >= 22)
                assert sorted(values([*first.records[20:], *second.records])) == [100, 101]

    async def test_a_commit_for_what_moved_away_is_fenced(self, world: World, writer: Writer) -> None:
        """An owner of yesterday cannot move the group's offsets."""
        topic = await world.topic("fence", 2, groups=["g"])
        await writer.send([*numbered(topic, range(3), partition=0), *numbered(topic, range(3), partition=1)])
        one, two = world.transport.reader("g", [topic]), world.transport.reader("g", [topic])

        async with joined(one) as first, polled(first, one), joined(two) as second, polled(second, two):
            await until(lambda: len(one.assignment()) == 1 and len(two.assignment()) == 1)
            foreign = next(iter(two.assignment()))
            with pytest.raises(Fenced):
                await one.commit({foreign: 3})
            await until(lambda: sum(record.at == foreign for record in second.records) == 3)

    async def test_a_listener_is_told_before_any_record(self, world: World, writer: Writer) -> None:
        """A record is delivered only for a partition that was announced and not taken back."""
        topic = await world.topic("told", 2, groups=["g"])
        await writer.send([*numbered(topic, range(5), partition=0), *numbered(topic, range(5), partition=1)])
        one, two = world.transport.reader("g", [topic]), world.transport.reader("g", [topic])

        async with joined(one) as first:
            await first.read(one, 10)
            async with polled(first, one), joined(two):
                await until(lambda: len(first.assignments) == 2)

        assert len(first.assignments[0]) == 2
        assert first.revocations[0] == first.assignments[0]
        assert len(first.assignments[1]) == 1

    # ---- transactions ---------------------------------------------------------------------------

    async def test_aborted_and_open_records_are_never_read(self, world: World, writer: Writer) -> None:
        """Readers see a transaction when it is committed, and what follows an open one only after its end."""
        topic = await world.topic("hidden", 1, groups=["g"])
        transactions = await world.transactions()
        reader = world.transport.reader("g", [topic])

        async with joined(reader) as member:
            await transactions.begin()
            await transactions.send(numbered(topic, [1, 2]))
            await transactions.abort()
            await transactions.begin()
            await transactions.send(numbered(topic, [3]))
            await writer.send(numbered(topic, [4]))
            await member.poll(reader, 700)
            assert member.records == []
            await transactions.commit()
            await member.read(reader, 2)

        assert values(member.records) == [3, 4]

    async def test_caught_up_passes_control_records(self, world: World) -> None:
        """With everything read, the place to commit is the end, so that no lag stays for nothing."""
        topic = await world.topic("control", 1, groups=["g"])
        at = Partition(topic, 0)
        transactions = await world.transactions()
        await transactions.begin()
        await transactions.send(numbered(topic, [1]))
        await transactions.commit()
        await transactions.begin()
        await transactions.send(numbered(topic, [2]))
        await transactions.abort()
        reader = world.transport.reader("g", [topic])

        async with joined(reader) as member:
            await member.read(reader, 1)
            await until(lambda: self._at_the_end(member, reader))
            reached = await reader.caught_up([at])
            await reader.commit(reached)

        assert values(member.records) == [1]
        assert reached == {at: 4}

    # ---- without a group ------------------------------------------------------------------------

    async def test_without_a_group_everything_is_read_from_the_beginning(self, world: World, writer: Writer) -> None:
        """Tables are built so: no first offset, no sharing, no commits, and an end to arrive at."""
        topic = await world.topic("table", 2)
        await writer.send([*numbered(topic, range(5), partition=0), *numbered(topic, range(5, 9), partition=1)])
        one, two = world.transport.reader("", [topic]), world.transport.reader("", [topic])

        async with joined(one) as first, joined(two) as second:
            assert sorted(values(await first.read(one, 9))) == list(range(9))
            assert sorted(values(await second.read(two, 9))) == list(range(9))
            assert await one.caught_up(one.assignment()) == await one.ends()
            with pytest.raises(Fenced):
                await one.commit({Partition(topic, 0): 1})
        assert first.assignments == [frozenset({Partition(topic, 0), Partition(topic, 1)})]

    async def test_a_cluster_has_an_identity(self, world: World) -> None:
        """Ids of requests without one are derived from it: it is never empty and does not change."""
        found = await world.transport.cluster_id()

        assert found
        assert await world.transport.cluster_id() == found

    # ---- conditions -----------------------------------------------------------------------------

    @staticmethod
    async def _saw(member: Member, reader, value: bytes) -> bool:  # type: ignore[no-untyped-def]
        await member.poll(reader)
        return any(record.value == value for record in member.records)

    @staticmethod
    async def _troubled(member: Member, reader) -> bool:  # type: ignore[no-untyped-def]
        await member.poll(reader)
        return bool(member.troubles)

    @staticmethod
    async def _count(member: Member, reader, at: Partition, number: int) -> bool:  # type: ignore[no-untyped-def]
        await member.poll(reader)
        return sum(record.at == at for record in member.records) >= number

    @staticmethod
    async def _at_the_end(member: Member, reader) -> bool:  # type: ignore[no-untyped-def]
        await member.poll(reader)
        return bool(await reader.caught_up(reader.assignment()) == await reader.ends())
