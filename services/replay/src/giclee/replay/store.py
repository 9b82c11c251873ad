"""The index of dead letters, what is held, and the audit: their SQL. Runs are in ledger.py."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg

from giclee.bus import database
from giclee.bus.errors import Poison
from giclee.bus.transport import Record
from giclee.replay import rows as make
from giclee.replay import selection as select

QUERIES = database.Queries(Path(__file__).with_name("queries.sql"))
COUNTING_MS = 2000
"""Counting ends after this; a page must not wait for a count of millions."""
PLANNED = "SET LOCAL plan_cache_mode = force_custom_plan"
"""Most filters are absent, and only a plan for those that are given can use its index."""
TAKING_S = 120.0
"""Taking or setting aside letters may last so long; 100,000 take some seconds."""
Row = asyncpg.Record


def selecting(name: str) -> str:
    """The text of a query with the condition of a selection in its place."""
    text: str = getattr(QUERIES, name)
    return text.replace("SELECTED", QUERIES.selected)


class Store:
    """Dead letters, held records and the audit. Errors of every method: Transient, Poison."""

    def __init__(self, pool: database.Pool) -> None:
        self.pool = pool

    async def index(self, records: Sequence[Record]) -> None:
        """Remember dead letters and held records, all or none. Errors: Transient; Poison where one cannot be stored."""
        letters = [make.dead_letter_row(one) for one in records if not one.topic.endswith(".held")]
        held = [make.held_row(one) for one in records if one.topic.endswith(".held")]
        with database.translated():
            async with self.pool.acquire() as connection, connection.transaction():
                if letters:
                    await connection.execute(QUERIES.index_dead_letters, *map(list, zip(*letters, strict=True)))
                if held:
                    await connection.executemany(QUERIES.index_held, held)

    # ---- finding --------------------------------------------------------------------------------

    async def page(
        self, wanted: select.Selection, cursor: str | None, limit: int, *, ids: list[uuid.UUID] | None = None
    ) -> list[Row]:
        """Dead letters, newest first. Errors: ValueError for a bad cursor."""
        return await self._selected("page", *wanted.filters(ids), *select.read_cursor(cursor), limit)

    async def oldest(
        self, wanted: select.Selection, after: Row | None, limit: int, *, ids: list[uuid.UUID] | None = None
    ) -> list[Row]:
        """Dead letters, oldest first, those behind `after`."""
        place = (after["died_at"], after["dlq_id"]) if after is not None else (None, None)
        return await self._selected("oldest", *wanted.filters(ids), *place, limit)

    async def counts(self, wanted: select.Selection, ids: list[uuid.UUID] | None = None) -> list[dict[str, Any]] | None:
        """How many per stage, class and state; None when that takes too long."""
        rows = await self._counted("counts", *wanted.filters(ids))
        if rows is None:
            return None
        return [{"stage": r["stage"], "class": r["dead_class"], "state": r["state"], "count": r["count"]} for r in rows]

    async def clusters(self, wanted: select.Selection, limit: int) -> list[Row] | None:
        """Dead letters by cause, most first; None when that takes too long."""
        return await self._counted("clusters", *wanted.filters(), limit)

    async def _selected(self, name: str, *values: Any) -> list[Row]:
        with database.translated():
            async with self.pool.acquire() as connection, connection.transaction(readonly=True):
                await connection.execute(PLANNED)
                return list(await connection.fetch(selecting(name), *values))

    async def _counted(self, name: str, *values: Any) -> list[Row] | None:
        with database.translated():
            try:
                async with self.pool.acquire() as connection, connection.transaction(readonly=True):
                    await connection.execute(f"{PLANNED}; SET LOCAL statement_timeout = {COUNTING_MS}")
                    return list(await connection.fetch(selecting(name), *values))
            except asyncpg.QueryCanceledError:
                return None

    async def one(self, dlq_id: uuid.UUID) -> Row | None:
        """One dead letter."""
        with database.translated():
            return await self.pool.fetchrow(QUERIES.one_dead_letter, dlq_id)

    # ---- setting aside, and the audit -----------------------------------------------------------

    async def set_aside(
        self, wanted: select.Selection, ids: list[uuid.UUID] | None, limit: int, *, states: tuple[str, str], who: Note
    ) -> int:
        """Letters from one state to another, and the audit of it in the same transaction; how many."""
        before, after = states
        with database.translated():
            async with self.pool.acquire() as connection, connection.transaction():
                await one_at_a_time(connection)
                tag = await connection.execute(
                    selecting("set_aside"), *wanted.filters(ids), before, limit, after, who.operation, timeout=TAKING_S
                )
                count = int(tag.split()[-1])
                details = {"before": before, "after": after, "count": count, "selection": wanted.as_json()}
                await note(connection, who, {**details, **({"ids": [str(one) for one in ids]} if ids else {})})
        return count

    async def note(self, who: Note, details: dict[str, Any]) -> None:
        """Write the audit once."""
        with database.translated():
            async with self.pool.acquire() as connection:
                await note(connection, who, details)

    async def audited(self, dlq_id: uuid.UUID | None, operations: list[uuid.UUID] | None, limit: int) -> list[Row]:
        """What was done to a letter, or by runs, newest first."""
        with database.translated():
            return list(await self.pool.fetch(QUERIES.audited, dlq_id, operations, limit))

    async def deeds(self, actions: Sequence[str], limit: int) -> list[Row]:
        """What was done by these names, newest first."""
        with database.translated():
            return list(await self.pool.fetch(QUERIES.deeds, list(actions), limit))

    # ---- held records ---------------------------------------------------------------------------

    async def waiting(self) -> dict[str, int]:
        """Held records per switch scope."""
        with database.translated():
            return {row["scope"]: row["count"] for row in await self.pool.fetch(QUERIES.waiting_scopes)}

    async def now(self) -> datetime:
        """The database's clock."""
        with database.translated():
            moment: datetime = await self.pool.fetchval(QUERIES.now)
            return moment

    @asynccontextmanager
    async def letting_go(self, scopes: Sequence[str], before: datetime, limit: int) -> AsyncIterator[list[Row]]:
        """Records held until `before`, oldest first; gone when the block ends well, and nobody else's meanwhile."""
        with database.translated():
            async with self.pool.acquire() as connection, connection.transaction():
                rows = await connection.fetch(QUERIES.waiting_held, scopes, before, limit)
                yield rows
                await connection.execute(QUERIES.release_held, [row["held_id"] for row in rows])

    async def ping(self) -> None:
        """Errors: Transient when the database does not answer."""
        with database.translated():
            async with asyncio.timeout(2):
                await self.pool.fetchval("SELECT 1")


class Note:
    """Who does what, and why; `operation` is the run, or the deed, that it belongs to."""

    def __init__(self, actor: str, action: str, reason: str, operation: uuid.UUID | None = None) -> None:
        if "\x00" in actor + reason:
            raise Poison("NUL is not allowed in texts")
        self.actor, self.action, self.reason, self.operation = actor, action, reason, operation


async def note(connection: Any, who: Note, *details: dict[str, Any], letters: Sequence[uuid.UUID | None] = ()) -> None:
    """Write the audit: one row for each of `details`, about the letter in its place."""
    about = list(letters) or [None] * len(details)
    await connection.execute(QUERIES.note, who.actor, who.action, who.reason, who.operation, about, list(details))


async def one_at_a_time(connection: Any) -> None:
    """Begin taking letters: others who want to wait, and a statement may last `TAKING_S`."""
    await connection.execute(f"{PLANNED}; SET LOCAL statement_timeout = '{TAKING_S:.0f}s'")
    await connection.execute(QUERIES.one_at_a_time, timeout=TAKING_S)
