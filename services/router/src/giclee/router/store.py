"""Choices in Postgres: the first for a wave is the only one, however often and wherever the wave arrives.

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
from giclee.router.choose import Choice
from giclee.router.waves import Asked, Key, Wave

REMEMBERED_DAYS = 40
"""After the closing time; dead letters of a wave can be replayed for 30."""
PRUNE_EVERY_S = 3600.0
PRUNE_ROWS = 5000
"""Rows one statement deletes: short enough to hold no lock that a choice waits for."""
TOGETHER_MAX = 200
"""Waves in one statement; more would make the first of them wait for the last."""

log = telemetry.logger(__name__)


class Waves:
    """The table router.waves."""

    def __init__(self, pool: database.Pool) -> None:
        self._pool = pool
        self._queries = database.Queries(Path(__file__).with_name("queries.sql"))
        self._gathered = Gathered(self._record, TOGETHER_MAX)

    async def first(self, asked: Asked) -> Wave:
        """The first choice for this wave: the one asked for now, or the one that was there."""
        return await self._gathered(asked)

    async def _record(self, rows: Sequence[Asked]) -> list[Wave]:
        with database.translated():
            async with self._pool.acquire() as connection:
                await failpoints.reach("before-choice-commit")
                made = await connection.fetch(self._queries.record_first, [row.row() for row in rows])
                await failpoints.reach("after-choice-commit")
                known = _by_key(made)
                if missing := [row.key for row in rows if row.key not in known]:
                    columns = [list(column) for column in zip(*missing, strict=True)]
                    known |= _by_key(await connection.fetch(self._queries.known_waves, *columns))
        return [known[row.key] for row in rows]

    async def check(self) -> None:
        """Raises while the database does not answer."""
        await database.ping(self._pool)

    async def prune(self) -> int:
        """Forget waves of requests that had to close 40 days ago; how many."""
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
                    log.info("waves forgotten", rows=forgotten)
            except Transient as error:
                log.warning("nothing was forgotten", error=str(error))
            await asyncio.sleep(PRUNE_EVERY_S)


def _by_key(rows: Sequence[asyncpg.Record]) -> dict[Key, Wave]:
    return {
        (row["tenant"], row["request_id"], row["wave"]): Wave(
            first_index=row["first_index"],
            count=row["count"],
            limit_usd=row["limit_usd"],
            choice=Choice.model_validate(row["choice"]),
        )
        for row in rows
    }
