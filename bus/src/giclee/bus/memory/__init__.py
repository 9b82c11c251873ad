"""The transport over dicts, with Kafka's guarantees: for tests, all stages in one process.

Partitions, placement, eager groups with committed offsets and fencing, transactions with control records. No
threads and no background tasks: a rebalance runs inside the call that causes it. Faults are set by hand: `away`,
`acks_to_lose`, `expire`, `rewind`. By default the topics are those of the table and every group has first offsets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from giclee.bus.memory.broker import Broker
from giclee.bus.memory.lookup import MemoryLookup
from giclee.bus.memory.reader import Group, MemoryReader
from giclee.bus.memory.writer import MemoryNumberedWriter, MemoryTransactions, MemoryWriter
from giclee.bus.transport import Partition, Record
from giclee.schemas import topics as table

__all__ = ["MemoryNumberedWriter", "MemoryReader", "MemoryTransactions", "MemoryTransport", "MemoryWriter"]


class MemoryTransport:
    """A broker of one process.

    `topics`: number of partitions by name. `groups`: topics by group; if given, only these have first offsets, as
    after `giclee topics apply`. `drain_s`: what a group waits for a member that drains.
    """

    def __init__(
        self,
        topics: Mapping[str, int] | None = None,
        *,
        groups: Mapping[str, Sequence[str]] | None = None,
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
        drain_s: float = 16.0,
    ) -> None:
        self._broker = Broker(clock_ms)
        self._groups: dict[str, Group] = {}
        self._strict = groups is not None
        self._drain_s = drain_s
        for row in table.all_topics() if topics is None else ():
            self.create(row.name, row.partitions, record_max_bytes=row.max_message_bytes)
        for name, partitions in (topics or {}).items():
            self.create(name, partitions)
        for group, names in (groups or {}).items():
            self.first_offsets(group, names)

    async def cluster_id(self) -> str:
        return "memory"

    def reader(self, group: str, topics: Sequence[str]) -> MemoryReader:
        return MemoryReader(self._broker, self._group(group) if group else self._new_group(), topics, group)

    def writer(self, name: str) -> MemoryWriter:
        return MemoryWriter(self._broker)

    def numbered(self, name: str, topics: Sequence[str]) -> MemoryNumberedWriter:
        return MemoryNumberedWriter(self._broker, self.transactions(f"giclee.{name}"), name, topics)

    def lookup(self) -> MemoryLookup:
        return MemoryLookup(self._broker, lambda group: self._group(group).offsets)

    def transactions(self, name: str) -> MemoryTransactions:
        """A transactional writer."""
        return MemoryTransactions(self._broker, name, lambda group: self._group(group).offsets)

    # ---- what an operator does and sees ---------------------------------------------------------

    def create(self, topic: str, partitions: int, *, record_max_bytes: int = table.MIB) -> None:
        """A topic, or more partitions for one."""
        self._broker.create(topic, partitions, record_max_bytes)

    def first_offsets(self, group: str, topics: Sequence[str]) -> None:
        """The beginning, for a group that has no offset in these topics yet."""
        for at in self._broker.partitions(topics):
            self._group(group).offsets.setdefault(at, 0)

    def records(self, topic: str) -> list[Record]:
        """What a reader of committed records sees of a topic, partition by partition."""
        return [record for at in self._broker.partitions([topic]) for record in self._broker.log(at).all_from(0)]

    def committed(self, group: str) -> dict[Partition, int]:
        """The group's offsets: the next to read."""
        return dict(self._group(group).offsets)

    def lag(self, group: str, topics: Sequence[str]) -> int:
        """Records of `topics` that the group has not committed."""
        offsets = self._group(group).offsets
        ats = self._broker.partitions(topics)
        return sum(len(self._broker.log(at).all_from(offsets.get(at, 0))) for at in ats)

    # ---- faults ---------------------------------------------------------------------------------

    @property
    def away(self) -> bool:
        """While True, every poll, send and commit raises Transient."""
        return self._broker.away

    @away.setter
    def away(self, away: bool) -> None:
        self._broker.away = away
        self._broker.wake()

    @property
    def acks_to_lose(self) -> int:
        """So many next sends and commits of transactions happen and raise Transient all the same."""
        return self._broker.acks_to_lose

    @acks_to_lose.setter
    def acks_to_lose(self, sends: int) -> None:
        self._broker.acks_to_lose = sends

    async def expire(self, reader: MemoryReader) -> None:
        """The group gives up a member that was silent for too long; it finds out at its next poll or commit."""
        await reader.group.rebalance(lambda: reader.group.members.remove(reader), without=reader)

    async def rewind(self, group: str, offsets: Mapping[Partition, int] | None = None) -> None:
        """Deliver again: set the group's offsets back, to the beginning unless given."""
        found = self._group(group)
        back = offsets or dict.fromkeys(self._broker.everything(), 0)
        await found.rebalance(lambda: found.offsets.update(back))

    def _group(self, name: str) -> Group:
        return self._groups.setdefault(name, self._new_group())

    def _new_group(self) -> Group:
        return Group(drain_s=self._drain_s, strict=self._strict)
