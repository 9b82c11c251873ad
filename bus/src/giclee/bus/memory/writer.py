"""Writers in memory: plain ones, and transactional ones that fence their predecessor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from giclee.bus.errors import Fenced, Transient
from giclee.bus.memory.broker import Broker, Transaction
from giclee.bus.transport import NUMBER, Partition, Record
from giclee.schemas.parts import Position


class MemoryWriter:
    """Sends plain records."""

    def __init__(self, broker: Broker) -> None:
        self.sent_at: float | None = None
        self._broker = broker

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def send(self, records: Sequence[Record]) -> Sequence[Position]:
        await asyncio.sleep(0)
        positions = self._broker.append(records) if records else []
        self.sent_at = time.monotonic()
        return positions


class MemoryTransactions:
    """A transactional writer. A new one of the same name aborts what the old one had open, and fences it."""

    def __init__(self, broker: Broker, name: str, offsets_of: Callable[[str], dict[Partition, int]]) -> None:
        self._broker = broker
        self._name = name
        self._offsets_of = offsets_of
        self._open: Transaction | None = None

    async def start(self) -> None:
        """Become the writer of this name."""
        before = self._broker.transactional.get(self._name)
        self._broker.transactional[self._name] = self
        if isinstance(before, MemoryTransactions):
            before._finish("aborted")

    async def begin(self) -> None:
        self._check()
        self._open = Transaction()

    async def send(self, records: Sequence[Record]) -> Sequence[Position]:
        self._check()
        return self._broker.append(records, self._open)

    async def commit(self, offsets: Mapping[Partition, int] | None = None, *, group: str = "") -> None:
        """Make the records readable and, in the same step, store a group's offsets."""
        self._check()
        if offsets:
            self._offsets_of(group).update(offsets)
        self._finish("committed")
        self._broker.acknowledge()

    async def abort(self) -> None:
        self._check()
        self._finish("aborted")

    def _finish(self, state: Literal["committed", "aborted"]) -> None:
        if self._open is not None:
            self._broker.end(self._open, state)
        self._open = None

    def _check(self) -> None:
        """Errors: Fenced for a writer that has a successor, Transient while the broker is away."""
        self._broker.check("transaction")
        if self._broker.transactional.get(self._name) is not self:
            raise Fenced(f"another writer is {self._name} now")


class MemoryNumberedWriter:
    """Numbered records, one transaction a send."""

    def __init__(self, broker: Broker, transactions: MemoryTransactions, name: str, topics: Sequence[str]) -> None:
        self._broker = broker
        self._transactions = transactions
        self._name = name
        self._topics = topics

    async def open(self) -> int:
        await asyncio.sleep(0)
        self._broker.check("open")
        await self._transactions.start()
        return max(self._numbers(), default=0)

    async def send(self, records: Sequence[Record], first_number: int) -> None:
        await asyncio.sleep(0)
        numbered = [
            replace(record, headers=(*record.headers, (NUMBER, f"{self._name}/{number}".encode())))
            for number, record in enumerate(records, first_number)
        ]
        with _transient():
            await self._transactions.begin()
            await self._transactions.send(numbered)
            await self._transactions.commit()

    async def close(self) -> None:
        """Abort what is open; when that fails, the next `open` of this name does it."""
        try:
            await self._transactions.abort()
        except (Fenced, Transient):
            return

    def _numbers(self) -> Iterator[int]:
        prefix = f"{self._name}/"
        for at in self._broker.partitions(self._topics):
            for record in self._broker.log(at).all_from(0):
                for name, text in record.headers:
                    if name == NUMBER and text.decode().startswith(prefix):
                        yield int(text.decode().removeprefix(prefix))


@contextmanager
def _transient() -> Iterator[None]:
    """A writer that is shut out is told so as Kafka's is: something failed, open again."""
    try:
        yield
    except Fenced as error:
        raise Transient(str(error)) from error
