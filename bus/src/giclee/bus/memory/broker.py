"""Topics in memory: logs of records and control records, transactions, and waking those who wait for more."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from giclee.bus.errors import Poison, Transient
from giclee.bus.placement import partition_of
from giclee.bus.transport import Partition, Record
from giclee.schemas.parts import Position

RECORD_OVERHEAD_BYTES = 70
"""What Kafka adds around a record that is alone in its batch, about."""


@dataclass(slots=True, eq=False)
class Transaction:
    """Records that become readable together, or never."""

    state: Literal["open", "committed", "aborted"] = "open"
    touched: set[Partition] = field(default_factory=set)


class Entry(NamedTuple):
    """One offset. A control record has no `record` and is never delivered."""

    record: Record | None
    transaction: Transaction | None


class Log:
    """One partition."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.open: dict[Transaction, int] = {}  # first offset of each open transaction

    def end(self) -> int:
        """What readers of committed records may read up to."""
        return min(self.open.values(), default=len(self.entries))

    def skipped(self, position: int) -> int:
        """`position`, or the next one behind control records and aborted ones."""
        while position < self.end():
            record, transaction = self.entries[position]
            if record is not None and (transaction is None or transaction.state == "committed"):
                break
            position += 1
        return position

    def read(self, position: int, max_records: int) -> tuple[list[Record], int]:
        """Records from `position`, and where to go on."""
        found: list[Record] = []
        position = self.skipped(position)
        while position < self.end() and len(found) < max_records:
            found += [record for record in (self.entries[position].record,) if record is not None]
            position = self.skipped(position + 1)
        return found, position

    def all_from(self, position: int) -> list[Record]:
        return self.read(position, len(self.entries))[0]


class Broker:
    """All topics of a transport."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self.away = False
        self.acks_to_lose = 0
        self.transactional: dict[str, object] = {}  # who is the writer of a name now
        self._clock_ms = clock_ms
        self._logs: dict[str, list[Log]] = {}
        self._limits: dict[str, int] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._keyless = itertools.count()

    def check(self, doing: str) -> None:
        """Errors: Transient while the broker is away."""
        if self.away:
            raise Transient(f"the broker is away: {doing}")

    def create(self, topic: str, partitions: int, record_max_bytes: int) -> None:
        logs = self._logs.setdefault(topic, [])
        logs += [Log() for _ in range(partitions - len(logs))]
        self._limits[topic] = record_max_bytes

    def log(self, at: Partition) -> Log:
        return self._logs[at.topic][at.number]

    def partitions(self, topics: Iterable[str]) -> list[Partition]:
        """All partitions of `topics`. Errors: Transient when one is not there."""
        return [Partition(topic, number) for topic in topics for number in range(self._size(topic))]

    def everything(self) -> list[Partition]:
        return self.partitions(self._logs)

    def append(self, records: Sequence[Record], transaction: Transaction | None = None) -> list[Position]:
        """Write all or nothing. Errors: Transient and Poison, as a Writer's send."""
        self.check("send")
        places = [self._place(record) for record in records]
        positions = [self._write(record, at, transaction) for record, at in zip(records, places, strict=True)]
        self.wake()
        if transaction is None:
            self.acknowledge()
        return positions

    def acknowledge(self) -> None:
        """Errors: Transient when this acknowledgement is to be lost."""
        if self.acks_to_lose:
            self.acks_to_lose -= 1
            raise Transient("the acknowledgement was lost; the records are there")

    def end(self, transaction: Transaction, state: Literal["committed", "aborted"]) -> None:
        """End a transaction: a control record in every partition that it touched."""
        transaction.state = state
        for at in sorted(transaction.touched):
            self.log(at).open.pop(transaction)
            self.log(at).entries.append(Entry(None, transaction))
        self.wake()

    def wake(self) -> None:
        """Let those who wait for a change look again."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self, until: float) -> bool:
        """Wait for `wake`; False when `until` (time of the event loop) came first."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            async with asyncio.timeout_at(until):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiter)
        return True

    def _write(self, record: Record, at: Partition, transaction: Transaction | None) -> Position:
        log = self.log(at)
        offset = len(log.entries)
        stamp_ms = record.timestamp_ms if record.timestamp_ms >= 0 else self._clock_ms()
        stored = replace(record, partition=at.number, offset=offset, timestamp_ms=stamp_ms)
        log.entries.append(Entry(stored, transaction))
        if transaction is not None:
            transaction.touched.add(at)
            log.open.setdefault(transaction, offset)
        return Position(topic=at.topic, partition=at.number, offset=offset)

    def _place(self, record: Record) -> Partition:
        topic, number, count = record.topic, record.partition, self._size(record.topic)
        headers = sum(len(name) + len(value or b"") for name, value in record.headers)
        size_bytes = len(record.value or b"") + len(record.key or b"") + headers + RECORD_OVERHEAD_BYTES
        if size_bytes > self._limits[topic]:
            raise Poison(f"the broker takes no record like this on {topic}: {size_bytes} bytes")
        if number >= count:
            raise Transient(f'{topic} has {count} partitions, none of number {number}: run "giclee topics apply"')
        if number < 0:
            number = partition_of(record.key, count) if record.key is not None else next(self._keyless) % count
        return Partition(topic, number)

    def _size(self, topic: str) -> int:
        if topic not in self._logs:
            raise Transient(f'topic {topic} is not there: run "giclee topics apply"')
        return len(self._logs[topic])
