"""A member of a group for tests: notes what it is told and what it reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from giclee.bus.errors import Transient
from giclee.bus.transport import Partition, Reader, Record
from tests.kit.wait import until


async def _nothing(partitions: Collection[Partition]) -> None:
    return None


class Member:
    """A listener that remembers; `drain` is awaited while partitions are taken away."""

    def __init__(self, drain: Callable[[Collection[Partition]], Awaitable[None]] = _nothing) -> None:
        self.assignments: list[frozenset[Partition]] = []
        self.revocations: list[frozenset[Partition]] = []
        self.records: list[Record] = []
        self.troubles: list[str] = []
        self.drain = drain

    async def revoked(self, partitions: Collection[Partition]) -> None:
        self.revocations.append(frozenset(partitions))
        await self.drain(partitions)

    async def assigned(self, partitions: Collection[Partition]) -> None:
        self.assignments.append(frozenset(partitions))

    async def poll(self, reader: Reader, timeout_ms: int = 100, max_records: int = 500) -> Sequence[Record]:
        """One poll; what it brings is kept, a Transient is noted."""
        try:
            found = await reader.poll(timeout_ms, max_records)
        except Transient as error:
            self.troubles.append(str(error))
            return ()
        self.records += found
        return found

    async def read(self, reader: Reader, number: int, within_s: float = 20.0) -> list[Record]:
        """Poll until so many records have come in all; returns all."""

        async def enough() -> bool:
            await self.poll(reader)
            return len(self.records) >= number

        await until(enough, within_s)
        return self.records


@asynccontextmanager
async def joined(reader: Reader, member: Member | None = None) -> AsyncIterator[Member]:
    """The reader started and, in the end, stopped."""
    member = member or Member()
    await reader.start(member)
    try:
        yield member
    finally:
        await reader.stop()


@asynccontextmanager
async def polled(member: Member, reader: Reader) -> AsyncIterator[Member]:
    """Somebody polls this reader all the time."""

    async def always() -> None:
        while True:
            await member.poll(reader)

    task = asyncio.create_task(always())
    try:
        yield member
    finally:
        task.cancel()
        await asyncio.wait([task])
