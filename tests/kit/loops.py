"""Runs stages on a transport for tests, and collects what they emit."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from giclee.bus.loop import Loop
from giclee.bus.stage import Context, Stage
from giclee.bus.transport import Partition, Record, Transport, Writer

PROMPT = "a small red circle on a blue background"


def request_record(request_id: uuid.UUID | None = None, **fields: Any) -> Record:
    """A request as an upstream system writes it."""
    rid = str(request_id or uuid.uuid4())
    body = {"request_id": rid, "prompt": PROMPT, **fields}
    return Record(topic="image.requested.v1", key=rid.encode(), value=json.dumps(body).encode())


class Collector:
    """Everything that lies on some topics, as a read_committed subscriber sees it."""

    def __init__(self, transport: Transport, topics: Sequence[str]) -> None:
        self._reader = transport.reader("", topics)
        self.records: list[Record] = []
        self._task: asyncio.Task[None] | None = None

    async def revoked(self, partitions: Collection[Partition]) -> None: ...
    async def assigned(self, partitions: Collection[Partition]) -> None: ...

    async def __aenter__(self) -> Self:
        await self._reader.start(self)
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._reader.stop()

    async def _follow(self) -> None:
        while True:
            self.records += await self._reader.poll(100, 500)

    def on(self, topic: str) -> list[Record]:
        return [record for record in self.records if record.topic == topic]

    def ids(self, topic: str) -> list[str]:
        """The `ce_id` of every record on a topic."""
        return [header(record, "ce_id") for record in self.on(topic)]


def header(record: Record, name: str) -> str:
    """A header's text; empty when it is missing."""
    return dict(record.headers).get(name, b"").decode()


@asynccontextmanager
async def running(
    transport: Transport, stage: Stage, writer: Writer, *, drain_s: float = 12.0, **parts: Any
) -> AsyncIterator[Loop]:
    """A loop of `stage`, stopped and drained at the end."""
    context = Context(stage=stage, send=writer.send, cluster_id="test-cluster", parts=parts)
    loop = Loop(context, transport.reader(stage.group, stage.topics()), drain_s=drain_s)
    task = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        loop.stop()
        await asyncio.wait_for(task, 40)
