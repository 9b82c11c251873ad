"""What the loop needs of Kafka, and no more. `kafka.py` and `memory.py` fulfil it and pass one suite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from giclee.schemas.envelope import Headers
from giclee.schemas.parts import Position


class Partition(NamedTuple):
    """A topic's partition."""

    topic: str
    number: int


@dataclass(slots=True, kw_only=True)
class Record:
    """An event as Kafka carries it. `partition` and `offset` are -1 until the broker has it. Nobody writes to one
    that exists: not frozen only because freezing triples what it costs to make one.

    A record to be sent with `partition` -1 goes where its key belongs (murmur2, as every Kafka client).
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int = -1
    offset: int = -1
    timestamp_ms: int = -1

    @property
    def at(self) -> Partition:
        return Partition(self.topic, self.partition)

    def origin(self) -> str:
        """The record's place as one word; identity of redeliveries and dead letters."""
        return f"{self.topic}:{self.partition}:{self.offset}"

    def to(self, topic: str, *, partition: int = -1, extra: Headers = ()) -> Record:
        """The same bytes for another topic, headers added."""
        return replace(
            self, topic=topic, partition=partition, offset=-1, timestamp_ms=-1, headers=(*self.headers, *extra)
        )


class Rebalance(Protocol):
    """What a reader tells its loop. `revoked` may take until the reader's drain budget ends."""

    async def revoked(self, partitions: Collection[Partition]) -> None: ...
    async def assigned(self, partitions: Collection[Partition]) -> None: ...


class Reader(Protocol):
    """A member of a consumer group, reading committed records only, committing explicit offsets only.

    Every wait is bounded. Errors: Transient when the broker is away, Fenced when a commit comes from a
    member that the group has left behind.
    """

    async def start(self, listener: Rebalance) -> None: ...
    async def poll(self, timeout_ms: int, max_records: int) -> Sequence[Record]:
        """Records in order per partition; an empty list when there are none in time. Call it always."""
        ...

    def pause(self, partitions: Collection[Partition]) -> None:
        """Deliver nothing of these until resumed; survives rebalances for partitions that stay."""
        ...

    def resume(self, partitions: Collection[Partition]) -> None: ...
    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit the next offset to read per partition."""
        ...

    async def caught_up(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Where a partition with nothing in flight may be committed to: past control records too."""
        ...

    async def ends(self) -> Mapping[Partition, int]:
        """Per assigned partition, the offset after the last record that may be read now. Who has come so far
        (`caught_up`) has read everything there was. Errors: Transient."""
        ...

    def assignment(self) -> Collection[Partition]: ...
    async def stop(self) -> None: ...


class Writer(Protocol):
    """Sends records; returns only what the broker acknowledged (all in-sync replicas)."""

    async def start(self) -> None: ...
    async def send(self, records: Sequence[Record]) -> Sequence[Position]:
        """Send all and wait for all. Errors: Transient (outcome unknown: send again, ids are deterministic),
        Poison when one record can never be taken (too large)."""
        ...

    async def stop(self) -> None: ...


class NumberedWriter(Protocol):
    """Writes numbered records to its topics exactly once, as the only living writer of its name.

    After any error or cancellation the outcome is unknown: `close`, then `open` tells what is on the log.
    """

    async def open(self) -> int:
        """Shut out whoever wrote under this name before; the last number on the log, 0 for none.
        Errors: Transient."""
        ...

    async def send(self, records: Sequence[Record], first_number: int) -> None:
        """All records in one transaction, numbered on from `first_number`. Errors: Transient."""
        ...

    async def close(self) -> None: ...


class Lookup(Protocol):
    """Looks things up without being a member of anything. Errors of every method: Transient."""

    async def read(self, at: Partition, offsets: Collection[int]) -> Mapping[int, Record]:
        """The records at these offsets of a partition; one that is no longer there is left out."""
        ...

    async def ends(self, topic: str) -> Mapping[Partition, int]:
        """Per partition of a topic the offset after its last readable record."""
        ...

    async def committed(self, group: str) -> Mapping[Partition, int]:
        """Per partition the next offset that a group will read."""
        ...

    async def stop(self) -> None: ...


NUMBER = "giclee-number"
"""Header of a record that a NumberedWriter wrote: its name, a slash, its number."""


class Transport(Protocol):
    """Makes readers and writers. A reader of group "" reads every partition from its beginning."""

    async def cluster_id(self) -> str: ...
    def reader(self, group: str, topics: Sequence[str]) -> Reader: ...
    def writer(self, name: str) -> Writer: ...
    def numbered(self, name: str, topics: Sequence[str]) -> NumberedWriter: ...
    def lookup(self) -> Lookup: ...


Send = Callable[[Sequence[Record]], Awaitable[Sequence[Position]]]
