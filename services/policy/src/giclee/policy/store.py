"""Verdicts in Postgres: the first of a request is the only one, however often and wherever the request arrives.

Handlers ask one at a time; what is asked while a statement runs shares the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from giclee.bus import database, failpoints, telemetry
from giclee.bus.errors import Transient
from giclee.bus.gather import Gathered
from giclee.policy.verdict import Asked, Key, Ruling, Stored, Times

REMEMBERED_DAYS = 400
PRUNE_EVERY_S = 3600.0
PRUNE_ROWS = 5000
"""Rows one statement deletes: short enough to hold no lock that a verdict waits for."""
TOGETHER_MAX = 200
"""Verdicts in one statement; more would make the first of them wait for the last."""

log = telemetry.logger(__name__)


class Verdicts:
    """The table policy.verdicts."""

    def __init__(self, pool: database.Pool) -> None:
        self._pool = pool
        self._queries = database.Queries(Path(__file__).with_name("queries.sql"))
        self._gathered = Gathered(self._record, TOGETHER_MAX)

    async def first(self, asked: Asked) -> Stored:
        """The first verdict of this request's id: the one asked for now, or the one that was there."""
        return await self._gathered(asked)

    async def _record(self, rows: Sequence[Asked]) -> list[Stored]:
        with database.translated():
            async with self._pool.acquire() as connection:
                await failpoints.reach("before-verdict-commit")
                made = await connection.fetch(self._queries.record_first, [row.row() for row in rows])
                await failpoints.reach("after-verdict-commit")
                known = _by_key(made)
                if missing := [row.key for row in rows if row.key not in known]:
                    tenants, ids = zip(*missing, strict=True)
                    known |= _by_key(await connection.fetch(self._queries.known_verdicts, list(tenants), list(ids)))
        return [known[row.key] for row in rows]

    async def check(self) -> None:
        """Raises while the database does not answer."""
        await database.ping(self._pool)

    async def prune(self) -> int:
        """Forget ids older than 400 days; how many."""
        total = 0
        while True:
            with database.translated():
                gone: int = await self._pool.fetchval(self._queries.prune, REMEMBERED_DAYS, PRUNE_ROWS)
            total += gone
            if gone < PRUNE_ROWS:
                return total

    async def keep_pruned(self) -> None:
        """Prune every hour, until cancelled; a database that is away is asked again an hour later."""
        while True:
            try:
                if forgotten := await self.prune():
                    log.info("ids forgotten", rows=forgotten, older_than_days=REMEMBERED_DAYS)
            except Transient as error:
                log.warning("nothing was forgotten", error=str(error))
            await asyncio.sleep(PRUNE_EVERY_S)


def _by_key(rows: Sequence[asyncpg.Record]) -> dict[Key, Stored]:
    return {
        (row["tenant"], row["request_id"]): Stored(
            origin=row["origin"],
            asked=row["asked"],
            ruling=Ruling.model_validate(row["ruling"]),
            times=Times(row["accepted_at"], row["closes_by"]),
        )
        for row in rows
    }
