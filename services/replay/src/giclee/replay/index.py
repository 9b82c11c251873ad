"""Reads every `.dlq` and `.held` topic into the database, bytes and headers as they are.

A reader of its own and not a stage: these records need not be events, nothing is emitted, and a record
that cannot be indexed must not become a dead letter's dead letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from giclee.bus import failpoints, telemetry
from giclee.bus.errors import Fenced, Poison, Transient
from giclee.bus.transport import Partition, Record, Transport
from giclee.replay.store import Store
from giclee.schemas import topics

POLL_MS = 500
POLL_MAX = 200
PAUSE_S = 1.0

log = telemetry.logger(__name__)


class Index:
    """Follows the dead-letter and held topics of `pools` until cancelled."""

    def __init__(self, transport: Transport, store: Store, pools: tuple[str, ...]) -> None:
        wanted = topics.groups(pools)["giclee.replay"]
        self._reader = transport.reader("giclee.replay", wanted)
        self._store = store
        self._trouble: str | None = "has not joined its group yet"

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """Nothing is in flight between polls."""

    async def assigned(self, partitions: Collection[Partition]) -> None:
        """Dead letters can be seen from now on."""
        self._trouble = None

    async def check(self) -> None:
        """Errors: Transient that says why new dead letters are not listed."""
        if self._trouble:
            raise Transient(self._trouble)

    async def run(self) -> None:
        """Poll, store, commit; an outage is waited out."""
        await self._reader.start(self)
        try:
            while True:
                try:
                    await self._step()
                except (Transient, Fenced) as error:
                    await self._wait(error)
        finally:
            await self._reader.stop()

    async def _step(self) -> None:
        records = await self._reader.poll(POLL_MS, POLL_MAX)
        self._trouble = None
        if records:
            await self._remember(records)
            await self._reader.commit({record.at: record.offset + 1 for record in records})

    async def _remember(self, records: Sequence[Record]) -> None:
        """Store them; what cannot be stored is said loudly and left, and does not hide what lies behind it."""
        while True:
            try:
                await failpoints.reach("before-index-commit")
                await self._store.index(records)
                await failpoints.reach("after-index-commit")
                return
            except Transient as error:
                await self._wait(error)
            except Poison as error:
                if len(records) > 1:
                    for record in records:
                        await self._remember([record])
                    return
                telemetry.count("giclee_records_skipped_total", stage="replay", why="undecodable")
                log.critical("a record cannot be indexed", origin=records[0].origin(), error=str(error))
                return

    async def _wait(self, error: Exception) -> None:
        self._trouble = str(error)
        log.warning("index waits", error=self._trouble)
        await asyncio.sleep(PAUSE_S)
