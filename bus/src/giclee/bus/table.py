"""A compacted topic as a dict: every process that follows it holds the newest event per key.

Read without a group, from the beginning, committed records only. When the broker was away and the reader had
to start again the table is built anew beside the old one, which stays readable until the new one is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Generic, TypeVar

from pydantic import ValidationError

from giclee.bus import telemetry
from giclee.bus.errors import Transient
from giclee.bus.transport import Partition, Reader, Record, Transport
from giclee.schemas import topics
from giclee.schemas.events import Event

POLL_MS = 1000
POLL_MAX = 1000
PAUSE_S = 0.5

log = telemetry.logger(__name__)
Row = TypeVar("Row", bound=Event)


class Table(Generic[Row]):
    """The events of one type by key. `rows` stays the same dict; `caught_up` is set once it is whole."""

    def __init__(self, event: type[Row], transport: Transport) -> None:
        self.rows: dict[str, Row] = {}
        self.caught_up = asyncio.Event()
        self._event = event
        self._topic = topics.topic_of(event)
        self._transport = transport
        self._building: dict[str, Row] | None = {}
        self._goal: Mapping[Partition, int] | None = None

    async def follow(self) -> None:
        """Until cancelled. Errors: only bugs; outages are waited for."""
        reader = self._transport.reader("", (self._topic,))
        try:
            await reader.start(self)
            while True:
                for record in await self._poll(reader):
                    self._apply(record)
                if self._building is not None and await self._is_whole(reader):
                    self.rows.clear()
                    self.rows |= self._building
                    self._building = None
                    self.caught_up.set()
                    log.info("table read", topic=self._topic, rows=len(self.rows))
                telemetry.gauge("giclee_table_rows", len(self.rows), topic=self._topic)
        finally:
            await reader.stop()

    async def check(self) -> None:
        """For /readyz. Errors: Transient until the table was whole once."""
        if not self.caught_up.is_set():
            raise Transient(f"{self._topic} has not been read to its end")

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """The reader starts again; what was read stays until it is replaced."""

    async def assigned(self, partitions: Collection[Partition]) -> None:
        """The reader is at the beginning of every partition."""
        self._building, self._goal = {}, None

    async def _poll(self, reader: Reader) -> Sequence[Record]:
        try:
            return await reader.poll(POLL_MS if self._building is None else POLL_MS // 10, POLL_MAX)
        except Transient as error:
            log.warning("a table waits", topic=self._topic, error=str(error))
            await asyncio.sleep(PAUSE_S)
            return ()

    async def _is_whole(self, reader: Reader) -> bool:
        """Whether everything that was there when the reading began has been read."""
        try:
            self._goal = self._goal or await reader.ends()
        except Transient as error:
            log.warning("a table waits", topic=self._topic, error=str(error))
            return False
        reached = await reader.caught_up(tuple(self._goal))
        return bool(self._goal) and all(reached.get(at, -1) >= end for at, end in self._goal.items())

    def _apply(self, record: Record) -> None:
        """The newest record of a key is its row; one without a value removes it; one that is no event is skipped."""
        key = (record.key or b"").decode(errors="replace")
        rows = self.rows if self._building is None else self._building
        if record.value is None:
            rows.pop(key, None)
        else:
            try:
                rows[key] = self._event.model_validate_json(record.value)
            except ValidationError as error:
                telemetry.count("giclee_records_skipped_total", stage="table", why="undecodable")
                log.error("a record of a table is no event", origin=record.origin(), errors=error.error_count())
