"""Writes down everything about a run that can be seen from outside of the product. README.md says what the files hold.

`async with observing(folder, env) as observer:` follows the topics from before the first request; `finish()` is called
when writing has ceased. `python -m tests.chaos.observe <folder>` does the same with the environment of the process:
it prints `following`, and finishes on SIGTERM, exit 0 when all of it was written.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from botocore.exceptions import ClientError
from confluent_kafka import KafkaException

from tests.chaos import observe_log, observe_stores
from tests.chaos.observe_log import Ends, LiveReader
from tests.chaos.observe_stores import AWAY, Probe

FOLLOWING_MAX_S = 60.0
CAUGHT_UP_MAX_S = 90.0
"""Longer than a transaction that hangs: 15 s, and the broker's scan every 10 s."""
FINAL_MAX_S = 300.0
TRIES = 5
BETWEEN_TRIES_S = 2.0
GONE = (*AWAY, ClientError, KafkaException, asyncpg.PostgresError, asyncpg.InterfaceError)


@dataclass
class Observer:
    """The readers of one run. `finish` may be called once."""

    folder: Path
    env: Mapping[str, str]
    bucket: Any
    probe: Probe
    readers: dict[str, LiveReader]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def servers(self) -> str:
        return self.env["KAFKA_BOOTSTRAP_SERVERS"]

    @property
    def prefix(self) -> str:
        return self.env.get("GICLEE_TOPIC_PREFIX", "")

    async def finish(self) -> None:
        """Read to the end, then dump log, tables and bucket.

        Errors: those of the clients when a part stays away. What a reader did not reach is written as such.
        """
        ends = await _tried(lambda: asyncio.to_thread(observe_log.ends_of, self.servers, self.prefix))
        await self._caught_up(ends)
        lines = [line for name, reader in self.readers.items() for line in await self._positions(name, reader, ends)]
        await self.probe.finish()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        final = self.folder / "log.final.jsonl"
        arguments = (self.servers, self.prefix, ends, final, FINAL_MAX_S)
        reached = await _tried(lambda: asyncio.to_thread(observe_log.read_all, *arguments))
        lines += [_end("final", place, ends[place], position) for place, position in reached.items()]
        (self.folder / "ends.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        await _tried(lambda: observe_stores.dump_tables(self.env["DATABASE_URL"], self.folder / "tables"))
        listing = self.folder / "bucket.jsonl"
        await _tried(lambda: observe_stores.dump_bucket(self.bucket, self.env["GICLEE_BUCKET"], listing))

    async def _caught_up(self, ends: Ends) -> None:
        """Wait until both live readers have read to the ends, or the time is over."""
        deadline = time.monotonic() + CAUGHT_UP_MAX_S
        left = [(reader, place, end) for reader in self.readers.values() for place, (_, end) in ends.items()]
        while left and time.monotonic() < deadline:
            left = [(reader, place, end) for reader, place, end in left if await reader.at(*place) < end]
            if left:
                await asyncio.sleep(observe_log.END_EVERY_S)

    async def _positions(self, name: str, reader: LiveReader, ends: Ends) -> list[dict[str, Any]]:
        return [_end(name, place, limits, await reader.at(*place)) for place, limits in ends.items()]


def _end(reader: str, place: tuple[str, int], limits: tuple[int, int], position: int) -> dict[str, Any]:
    line = {"reader": reader, "topic": place[0], "partition": place[1], "begin": limits[0], "end": limits[1]}
    return {**line, "position": position, "at": time.time()}


async def _tried(deed: Callable[[], Awaitable[Any]]) -> Any:
    """A part may still be coming back when the run ends."""
    for left in reversed(range(TRIES)):
        try:
            return await deed()
        except GONE:
            if not left:
                raise
            await asyncio.sleep(BETWEEN_TRIES_S)
    return None


@asynccontextmanager
async def observing(folder: Path, env: Mapping[str, str]) -> AsyncIterator[Observer]:
    """Readers that follow all topics of `env` from their beginning. Errors: TimeoutError when no broker answers."""
    _prepare(folder)
    servers, prefix = env["KAFKA_BOOTSTRAP_SERVERS"], env.get("GICLEE_TOPIC_PREFIX", "")
    async with observe_stores.bucket_of(env) as bucket:
        probe = Probe(bucket, env["GICLEE_BUCKET"], folder / "blobs.jsonl")
        readers = {
            name: LiveReader(servers, prefix, f"read_{name}", folder / f"log.{name}.jsonl")
            for name in ("committed", "uncommitted")
        }
        readers["committed"].on_line = probe.saw
        observer = Observer(folder, env, bucket, probe, readers)
        observer.tasks += [asyncio.create_task(reader.run()) for reader in readers.values()]
        try:
            async with asyncio.timeout(FOLLOWING_MAX_S):
                for reader in readers.values():
                    await reader.following.wait()
            yield observer
        finally:
            for task in (*observer.tasks, *probe.running):
                task.cancel()
            await asyncio.gather(*observer.tasks, *probe.running, return_exceptions=True)


def _prepare(folder: Path) -> None:
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for name in ("log.committed", "log.uncommitted", "blobs"):
        (folder / f"{name}.jsonl").touch()


async def main(folder: str) -> None:
    """Follow until SIGTERM or Ctrl-C, then finish."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with observing(Path(folder), os.environ) as observer:
        print("following", flush=True)
        await told.wait()
        await observer.finish()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
