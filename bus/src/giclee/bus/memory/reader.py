"""Groups in memory: members, offsets, eager rebalances, fencing."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from giclee.bus.errors import Fenced, Transient
from giclee.bus.memory.broker import Broker
from giclee.bus.transport import Partition, Rebalance, Record


class Group:
    """Members and offsets. A `strict` group has no offset until it is given one. Rebalances follow one another."""

    def __init__(self, *, drain_s: float, strict: bool) -> None:
        self.offsets: dict[Partition, int] = {}
        self.members: list[MemoryReader] = []
        self.generation = 0
        self.drain_s = drain_s
        self._strict = strict
        self._one_at_a_time = asyncio.Lock()

    async def rebalance(self, change: Callable[[], None], *, without: MemoryReader | None = None) -> None:
        """Let every member drain, except one that is not heard of; make the change; deal out the partitions anew."""
        await asyncio.shield(asyncio.ensure_future(self._rebalance(change, without)))

    async def _rebalance(self, change: Callable[[], None], without: MemoryReader | None) -> None:
        async with self._one_at_a_time:
            await asyncio.gather(*(member.drain() for member in self.members if member is not without))
            change()
            self.generation += 1
            for member, partitions in self._dealt().items():
                await member.take(partitions, self.generation)

    def _dealt(self) -> dict[MemoryReader, list[Partition]]:
        dealt: dict[MemoryReader, list[Partition]] = {member: [] for member in self.members}
        turn = itertools.cycle(self.members)
        for at in sorted({at for member in self.members for at in member.wanted()}):
            dealt[next(member for member in turn if at.topic in member.topics)].append(at)
        return dealt

    def first(self, at: Partition, *, groupless: bool) -> int:
        """Where a new owner of a partition begins; -1 when nobody has said."""
        return self.offsets.get(at, -1 if self._strict and not groupless else 0)


class MemoryReader:
    """One member of a group; without one (name ""), a reader of every partition from its beginning."""

    def __init__(self, broker: Broker, group: Group, topics: Sequence[str], name: str) -> None:
        self.group = group
        self.topics = topics
        self.polled_at: float | None = None
        self.committed_at: float | None = None
        self._broker = broker
        self._name = name
        self._listener: Rebalance | None = None
        self._generation = -1
        self._positions: dict[Partition, int] = {}  # of assigned partitions
        self._paused: set[Partition] = set()
        self._settled = False
        self._turn = 0

    def wanted(self) -> list[Partition]:
        """All partitions of its topics. Errors: Transient when a topic is not there."""
        return self._broker.partitions(self.topics)

    async def start(self, listener: Rebalance) -> None:
        self.wanted()
        self._listener = listener
        await self._join()

    async def stop(self) -> None:
        self._settled, self._positions = False, {}
        if not self._is_out():
            await self.group.rebalance(lambda: self.group.members.remove(self), without=self)

    async def _join(self) -> None:
        await self.group.rebalance(lambda: self.group.members.append(self))

    def _is_out(self) -> bool:
        """Whether the group has gone on without this member."""
        return self not in self.group.members

    async def drain(self) -> None:
        """The group takes everything away; the listener has as long as a Kafka group would wait."""
        self._settled = False
        try:
            if self._positions and self._listener is not None:
                async with asyncio.timeout(self.group.drain_s):
                    await self._listener.revoked(frozenset(self._positions))
        except TimeoutError:
            pass  # the group does not wait longer; what comes later is fenced
        finally:
            self._positions = {}

    async def take(self, partitions: Sequence[Partition], generation: int) -> None:
        """The group gives `partitions`."""
        self._generation = generation
        self._positions = {at: self.group.first(at, groupless=not self._name) for at in partitions}
        self._paused &= self._positions.keys()
        try:
            if self._listener is not None:
                await self._listener.assigned(frozenset(self._positions))
        finally:
            self._settled = True
            self._broker.wake()

    async def poll(self, timeout_ms: int, max_records: int) -> Sequence[Record]:
        until = asyncio.get_running_loop().time() + timeout_ms / 1000
        await asyncio.sleep(0)  # others get their turn, as they would while a socket is read
        while True:
            self._broker.check("poll")
            if self._settled and self._is_out():
                await self.drain()
                await self._join()
            found = self._read(max_records) if self._settled else []
            if found or not await self._broker.changed(until):
                self.polled_at = time.monotonic()
                return found

    def _read(self, max_records: int) -> list[Record]:
        found: list[Record] = []
        partitions = sorted(self._positions.keys() - self._paused)
        self._turn += 1
        for step in range(len(partitions)):
            at = partitions[(self._turn + step) % len(partitions)]
            if self._positions[at] < 0:
                raise Transient(f'group {self._name} has no first offset in {at}: run "giclee topics apply"')
            records, self._positions[at] = self._broker.log(at).read(self._positions[at], max_records - len(found))
            found += records
            if len(found) >= max_records:
                break
        return found

    def pause(self, partitions: Collection[Partition]) -> None:
        self._paused |= self._positions.keys() & set(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        self._paused -= set(partitions)
        self._broker.wake()

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        await asyncio.sleep(0)
        self._broker.check("commit")
        stale = self._is_out() or self._generation != self.group.generation
        if stale or not self._name or not self._positions.keys() >= set(offsets):
            raise Fenced(f"{self._name} has moved on: not all of {sorted(offsets)} are this member's")
        self.group.offsets.update(offsets)
        self.committed_at = time.monotonic()

    async def caught_up(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        if not self._settled:
            return {}
        mine = {at: self._positions.get(at, -1) for at in partitions}
        return {at: self._broker.log(at).skipped(position) for at, position in mine.items() if position >= 0}

    async def ends(self) -> Mapping[Partition, int]:
        self._broker.check("ends")
        return {at: self._broker.log(at).end() for at in self._positions}

    def assignment(self) -> Collection[Partition]:
        return frozenset(self._positions)
