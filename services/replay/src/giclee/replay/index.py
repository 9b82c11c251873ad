"""Reads every `.dlq` and `.held` topic into the database, bytes and headers as they are.

A reader of its own and not a stage: these records need not be events, nothing is emitted, and a record
that cannot be indexed must not become a dead letter's dead letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from giclee.bus import telemetry
from giclee.bus.errors import Fenced, Transient
from giclee.bus.transport import Partition, Transport
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
        self.ready = False

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """Nothing is in flight between polls."""

    async def assigned(self, partitions: Collection[Partition]) -> None:
        """Dead letters can be seen from now on."""
        self.ready = True

    async def check(self) -> None:
        """Errors: Transient until the group was joined."""
        if not self.ready:
            raise Transient("has not joined its group yet")

    async def run(self) -> None:
        """Poll, store, commit; an outage is waited out."""
        await self._reader.start(self)
        try:
            while True:
                try:
                    await self._step()
                except (Transient, Fenced) as error:
                    log.warning("index waits", error=str(error))
                    await asyncio.sleep(PAUSE_S)
        finally:
            await self._reader.stop()

    async def _step(self) -> None:
        records = await self._reader.poll(POLL_MS, POLL_MAX)
        while records:
            try:
                await self._store.index(records)
                break
            except Transient as error:
                log.warning("index waits", error=str(error))
                await asyncio.sleep(PAUSE_S)
        if records:
            await self._reader.commit({record.at: record.offset + 1 for record in records})
