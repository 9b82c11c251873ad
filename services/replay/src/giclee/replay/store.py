"""All SQL of the replay service."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg

from giclee.bus import database, dlq
from giclee.bus.errors import Poison
from giclee.bus.transport import Record
from giclee.replay import selection as select
from giclee.schemas.parts import derived_id, is_uuid

QUERIES = database.Queries(Path(__file__).with_name("queries.sql"))


def _as_text(raw: bytes) -> str:
    """Bytes as jsonb can keep them: one character each, and U+0100 for the zero byte, which it refuses."""
    return raw.decode("latin-1").replace("\x00", "\u0100")


def _as_bytes(text: str) -> bytes:
    return text.replace("\u0100", "\x00").encode("latin-1")


def headers_as_json(record: Record) -> list[list[str]]:
    """Headers as jsonb keeps them."""
    return [[_as_text(name.encode(errors="surrogatepass")), _as_text(raw or b"")] for name, raw in record.headers]


def record_of(row: asyncpg.Record, topic: str) -> Record:
    """The record of a row, byte for byte."""
    named = ((_as_bytes(name).decode(errors="surrogatepass"), _as_bytes(text)) for name, text in row["headers"])
    return Record(topic=topic, key=row["key"], value=row["value"], headers=tuple(named))


class Store:
    """Dead letters, held records and the audit."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def index(self, records: Sequence[Record]) -> None:
        """Remember dead letters and held records, all or none. Errors: Transient; Poison where one cannot be stored."""
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                for record in records:
                    if record.topic.endswith(".held"):
                        await connection.execute(QUERIES.index_held, *_held_row(record))
                    else:
                        await connection.execute(QUERIES.index_dead_letter, *_dead_letter_row(record))

    async def page(self, wanted: select.Selection, cursor: str | None, limit: int) -> list[asyncpg.Record]:
        """Dead letters, newest first, without their bytes. Errors: ValueError for a bad cursor."""
        after = select.read_cursor(cursor)
        with database.translated():
            return await self._pool.fetch(QUERIES.select_dead_letters, *wanted.filters(), *after, limit)

    async def counts(self, wanted: select.Selection) -> list[dict[str, Any]]:
        """How many per stage, class and state."""
        with database.translated():
            rows = await self._pool.fetch(QUERIES.count_dead_letters, *wanted.filters())
        return [{"stage": r["stage"], "class": r["dead_class"], "state": r["state"], "count": r["count"]} for r in rows]

    async def one(self, dlq_id: uuid.UUID) -> asyncpg.Record | None:
        """One dead letter with its bytes."""
        with database.translated():
            return await self._pool.fetchrow(QUERIES.one_dead_letter, dlq_id)

    async def claim(self, ids: Sequence[uuid.UUID], run_id: uuid.UUID, *, again: bool) -> list[asyncpg.Record]:
        """Take dead letters for a run; those of others, and with `again` False those already done, stay out."""
        with database.translated():
            return await self._pool.fetch(QUERIES.claim_for_replay, ids, run_id, again)

    async def some(self, ids: Sequence[uuid.UUID]) -> list[asyncpg.Record]:
        """Dead letters by id, without their bytes."""
        with database.translated():
            return await self._pool.fetch(QUERIES.some_dead_letters, ids)

    async def replayed(self, ids: Sequence[uuid.UUID], run_id: uuid.UUID) -> None:
        """The broker has what this run claimed."""
        with database.translated():
            await self._pool.execute(QUERIES.end_replay, ids, run_id, "replayed")

    async def parked(self, dlq_id: uuid.UUID, run_id: uuid.UUID) -> None:
        """Set aside for a person what this run claimed and cannot send."""
        with database.translated():
            await self._pool.execute(QUERIES.end_replay, [dlq_id], run_id, "parked")

    async def unfinished(self, limit: int) -> list[asyncpg.Record]:
        """Replays whose process died between claiming and marking; the caller's for the next 30 s."""
        with database.translated():
            return await self._pool.fetch(QUERIES.claim_unfinished, limit)

    async def waiting(self) -> dict[str, int]:
        """Held records per switch scope."""
        with database.translated():
            return {row["scope"]: row["count"] for row in await self._pool.fetch(QUERIES.waiting_scopes)}

    async def now(self) -> datetime:
        """The database's clock."""
        with database.translated():
            moment: datetime = await self._pool.fetchval(QUERIES.now)
            return moment

    @asynccontextmanager
    async def letting_go(
        self, scopes: Sequence[str], before: datetime, limit: int
    ) -> AsyncIterator[list[asyncpg.Record]]:
        """Records held until `before`, oldest first; gone when the block ends well, and nobody else's meanwhile."""
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                rows = await connection.fetch(QUERIES.waiting_held, scopes, before, limit)
                yield rows
                await connection.execute(QUERIES.release_held, [row["held_id"] for row in rows])

    async def note(
        self, actor: str, action: str, reason: str, run_id: uuid.UUID | None, details: dict[str, Any]
    ) -> None:
        """Write the audit."""
        with database.translated():
            await self._pool.execute(QUERIES.note, actor, action, reason, run_id, details)

    async def ping(self) -> None:
        """Errors: Transient when the database does not answer."""
        with database.translated():
            await self._pool.fetchval("SELECT 1")


def _held_row(record: Record) -> tuple[Any, ...]:
    named = {name: (raw or b"").decode(errors="replace") for name, raw in record.headers if name.startswith("held-")}
    origin = named.get("held-origin", record.origin())
    stage, scope = named.get("held-stage", "unknown"), named.get("held-scope", "all")
    # the place in the held topic is part of the id: a record that is released and held again waits twice
    held_id = derived_id("held", stage, origin, record.origin())
    topic = record.topic.removesuffix(".held")
    return held_id, stage, scope, topic, record.key, record.value, headers_as_json(record)


def _dead_letter_row(record: Record) -> tuple[Any, ...]:
    """The row of a dead letter. Errors: Poison for a record that does not carry a dead letter's headers."""
    named = {name: text.replace("\x00", "\ufffd") for name, text in dlq.read_headers(record.headers).items()}
    try:
        return _row_from(named, record)
    except (KeyError, ValueError, ArithmeticError) as error:
        raise Poison(f"not a dead letter's headers: {type(error).__name__} {error}") from error


def _row_from(named: dict[str, str], record: Record) -> tuple[Any, ...]:
    paid = named.get("dlq-paid-usd")
    return (
        uuid.UUID(named["dlq-id"]),
        named["dlq-stage"],
        named.get("dlq-class", "other"),
        named.get("dlq-error-type", ""),
        named.get("dlq-error-message", ""),
        named.get("dlq-fingerprint", ""),
        int(named.get("dlq-attempts", "1")),
        named.get("dlq-tenant"),
        _uuid(named.get("dlq-request-id")),
        _uuid(named.get("dlq-candidate-id")),
        named.get("dlq-provider"),
        named.get("dlq-model"),
        Decimal(paid) if paid else None,
        int(named.get("dlq-replay-count", "0")),
        named.get("dlq-service-version", ""),
        named["dlq-original-topic"],
        int(named["dlq-original-partition"]),
        int(named["dlq-original-offset"]),
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        headers_as_json(record),
        _moment(named.get("dlq-last-failed-at"), record.timestamp_ms),
    )


def _uuid(text: str | None) -> uuid.UUID | None:
    return uuid.UUID(text) if text and is_uuid(text) else None


def _moment(text: str | None, timestamp_ms: int) -> datetime:
    """When it died, as its header says; the record's own time where the header does not."""
    try:
        moment = datetime.fromisoformat(text or "")
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        return datetime.fromtimestamp(max(timestamp_ms, 0) / 1000, UTC)
