"""A member of a group in a process of its own, to be stopped, frozen and killed.

Arguments: bootstrap servers, topic prefix, group, topic, and the Timings as JSON. It says `owns N` when it is given
N partitions, and answers each line on stdin with the outcome of committing offset 1 for all of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Collection

from giclee.bus.errors import Fenced, Transient
from giclee.bus.kafka import KafkaReader, KafkaTransport, Timings
from giclee.bus.transport import Partition
from tests.kit.kafka_world import Settings


class Talking:
    """A listener that says what it is given."""

    def __init__(self) -> None:
        self.owned: frozenset[Partition] = frozenset()

    async def revoked(self, partitions: Collection[Partition]) -> None:
        return None

    async def assigned(self, partitions: Collection[Partition]) -> None:
        self.owned = self.owned or frozenset(partitions)
        print("owns", len(partitions), flush=True)


async def _answer(reader: KafkaReader, listener: Talking) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        try:
            await reader.commit(dict.fromkeys(listener.owned, 1))
            print("committed", flush=True)
        except (Fenced, Transient) as error:
            print(type(error).__name__, flush=True)


async def main(servers: str, prefix: str, group: str, topic: str, timings: str) -> None:
    transport = KafkaTransport(Settings(servers, prefix), timings=Timings(**json.loads(timings)))
    reader, listener = transport.reader(group, [topic]), Talking()
    await reader.start(listener)
    answering = asyncio.create_task(_answer(reader, listener))
    while not answering.done():
        try:
            await reader.poll(200, 100)
        except Transient as error:
            print(error, file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
