"""Stored verdicts: the first one on a candidate's bytes counts for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol
from uuid import UUID

from giclee.bus import database, failpoints, telemetry
from giclee.bus.database import Pool
from giclee.bus.errors import Transient
from giclee.schemas.events import ImageScored

SCHEMA = "scorer"
FORGET_DAYS = 45
FORGET_EVERY_S = 3600.0

queries = database.Queries(Path(__file__).with_name("queries.sql"))
log = telemetry.logger(__name__)


class Verdicts(Protocol):
    """What the handler needs of the store."""

    async def find(self, candidate_id: UUID, sha256: str) -> ImageScored | None: ...
    async def keep(self, scored: ImageScored) -> ImageScored: ...


class Store:
    """Verdicts in Postgres. Errors of every method: Transient, Poison."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, candidate_id: UUID, sha256: str) -> ImageScored | None:
        """The verdict on these bytes, made again as the event it was."""
        with database.translated():
            found = await self._pool.fetchval(queries.find_verdict, candidate_id, sha256)
        return None if found is None else ImageScored.model_validate(found)

    async def keep(self, scored: ImageScored) -> ImageScored:
        """Store a verdict; the answer is the one that counts, which another process may have stored first."""
        about = (scored.candidate_id, scored.sha256)
        row = (*about, scored.tenant, scored.request_id, scored.verdict, scored.gate_version)
        with database.translated():
            await failpoints.reach("before-verdict-commit")
            kept = await self._pool.fetchval(queries.keep_verdict, *row, scored.model_dump(mode="json"))
            await failpoints.reach("after-verdict-commit")
        if kept is not None:
            return scored
        return await self.find(*about) or scored

    async def forget(self) -> None:
        """Delete what is too old, until cancelled."""
        while True:
            try:
                with database.translated():
                    await self._pool.execute(queries.forget_verdicts, FORGET_DAYS)
            except Transient as error:
                log.warning("the database is away", error=str(error))
            await asyncio.sleep(FORGET_EVERY_S)
