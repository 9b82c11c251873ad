"""Outboxes for tests: a schema with the table of outbox.py, and decisions to write into it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from giclee.bus import database, outbox
from giclee.bus.database import Pool
from giclee.bus.settings import DatabaseSettings
from giclee.schemas.events import CancelRequested, Event, ImageApproved, RequestClosed

EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"
SCHEMA = "publisher"


@asynccontextmanager
async def empty_outbox(database_url: str, *, pool_max: int = 20) -> AsyncIterator[tuple[Pool, str]]:
    """A pool on a database of its own that has nothing but an outbox, and the database's URL."""
    name = f"o{uuid.uuid4().hex[:12]}"
    server = await asyncpg.connect(database_url)
    await server.execute(f"CREATE DATABASE {name}")
    url = database_url.rpartition("/")[0] + f"/{name}"
    try:
        async with database.connect(DatabaseSettings(url=url, pool_max=pool_max), SCHEMA) as pool:
            await pool.execute(f"CREATE SCHEMA {SCHEMA}")
            await pool.execute(outbox.TABLE.replace("{schema}", SCHEMA))
            yield pool, url
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


def approved(request_id: uuid.UUID, asset_id: uuid.UUID, version: int = 1) -> ImageApproved:
    example = ImageApproved.model_validate_json((EXAMPLES / "ImageApproved.json").read_bytes())
    return example.model_copy(update={"request_id": request_id, "asset_id": asset_id, "version": version})


def closed(request_id: uuid.UUID) -> RequestClosed:
    example = RequestClosed.model_validate_json((EXAMPLES / "RequestClosed.json").read_bytes())
    return example.model_copy(update={"request_id": request_id})


def cancelled(request_id: uuid.UUID, note: str | None = None) -> CancelRequested:
    return CancelRequested(request_id=request_id, note=note)


async def decide(pool: Pool, *events: Event) -> None:
    """One decision: its events in one transaction."""
    async with pool.acquire() as connection, connection.transaction():
        await outbox.put(connection, SCHEMA, events)


async def waiting(pool: Pool) -> int:
    """Rows not sent yet."""
    return int(await pool.fetchval(f"SELECT count(*) FROM {SCHEMA}.outbox"))
