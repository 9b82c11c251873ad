"""Looking things up in memory: records by their place, where topics end, how far groups have come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from giclee.bus.memory.broker import Broker
from giclee.bus.transport import Partition, Record


class MemoryLookup:
    """As a lookup of Kafka."""

    def __init__(self, broker: Broker, offsets_of: Callable[[str], Mapping[Partition, int]]) -> None:
        self._broker = broker
        self._offsets_of = offsets_of

    async def read(self, at: Partition, offsets: Collection[int]) -> Mapping[int, Record]:
        await asyncio.sleep(0)
        self._broker.check("read")
        wanted = set(offsets)
        return {one.offset: one for one in self._broker.log(at).all_from(0) if one.offset in wanted}

    async def ends(self, topic: str) -> Mapping[Partition, int]:
        self._broker.check("ends")
        return {at: self._broker.log(at).end() for at in self._broker.partitions([topic])}

    async def committed(self, group: str) -> Mapping[Partition, int]:
        self._broker.check("committed")
        return dict(self._offsets_of(group))

    async def stop(self) -> None:
        return None
