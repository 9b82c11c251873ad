"""Migrations: plain SQL files per service, applied in order, once, under one lock, and never changed afterwards.

`plan` says what is outstanding and `migrate` applies it, each file in a transaction of its own. Called by the command
line and by the local stack; services never create tables.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from giclee.infra.local.folder import checkout
from giclee.infra.trouble import Trouble

LOCK_KEY = 0x6769636C  # "gicl": any number, as long as every release uses the same
LOCK_TIMEOUT_S = 120.0
CONNECT_TIMEOUT_S = 10.0
_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_TABLE = """
create table if not exists giclee_migrations (
    service text not null,
    number integer not null,
    name text not null,
    sha256 text not null,
    applied_at timestamptz not null default now(),
    primary key (service, number)
)
"""


@dataclass(frozen=True, slots=True, order=True)
class Migration:
    """One file of one service."""

    service: str
    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read(root: Path) -> list[Migration]:
    """The files `root/<service>/sql/NNNN_name.sql`, by service and number.

    Errors: Trouble for a file name that does not fit and for a number used twice.
    """
    found: dict[tuple[str, int], Migration] = {}
    for path in sorted(root.glob("*/sql/*.sql")):
        service = path.parent.parent.name
        parts = _FILE_NAME.fullmatch(path.name)
        if parts is None:
            raise Trouble(f"{path}: a migration is named NNNN_what_it_does.sql.")
        key = service, int(parts[1])
        if key in found:
            raise Trouble(f"{path}: number {parts[1]} is taken by {parts[1]}_{found[key].name}.sql.")
        found[key] = Migration(*key, parts[2], path.read_text())
    return list(found.values())


async def plan(database_url: str, migrations: list[Migration] | None = None) -> list[Migration]:
    """Those not applied yet; of every service of the checkout unless others are given.

    Errors: Trouble for a changed file and for a database that does not answer.
    """
    migrations = read(checkout() / "services") if migrations is None else migrations
    async with _connected(database_url) as connection:
        known = await connection.fetchval("select to_regclass('giclee_migrations') is not null")
        return await _outstanding(connection, migrations) if known else migrations


async def migrate(database_url: str, migrations: list[Migration] | None = None) -> list[Migration]:
    """Apply what is outstanding and return it; of every service of the checkout unless others are given.

    What was applied before an error stays. Two at once take turns.

    Errors: Trouble for a changed file, a failing one (in the database's words) and a lock that is held too long.
    """
    migrations = read(checkout() / "services") if migrations is None else migrations
    async with _connected(database_url) as connection:
        try:
            async with asyncio.timeout(LOCK_TIMEOUT_S):
                await connection.execute("select pg_advisory_lock($1)", LOCK_KEY)
        except TimeoutError:
            raise Trouble(f"Another migration has held the lock for {LOCK_TIMEOUT_S:.0f} s.") from None
        await connection.execute(_TABLE)
        outstanding = await _outstanding(connection, migrations)
        for migration in outstanding:
            await _apply(connection, migration)
        return outstanding  # the lock ends with the connection


async def _apply(connection: asyncpg.Connection[asyncpg.Record], migration: Migration) -> None:
    row = (migration.service, migration.number, migration.name, migration.sha256)
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            query = "insert into giclee_migrations (service, number, name, sha256) values ($1, $2, $3, $4)"
            await connection.execute(query, *row)
    except asyncpg.PostgresError as error:
        raise Trouble(f"{_path(migration)} failed and was rolled back: {error}.") from error


async def _outstanding(connection: asyncpg.Connection[asyncpg.Record], migrations: list[Migration]) -> list[Migration]:
    rows = await connection.fetch("select service, number, sha256 from giclee_migrations")
    applied = {(row["service"], row["number"]): row["sha256"] for row in rows}
    changed = [one for one in migrations if applied.get((one.service, one.number), one.sha256) != one.sha256]
    if changed:
        names = ", ".join(_path(one) for one in changed)
        raise Trouble(f"{names}: changed after it was applied. Put the old text back and write a new migration.")
    return [one for one in migrations if (one.service, one.number) not in applied]


def _path(migration: Migration) -> str:
    return f"{migration.service}/sql/{migration.number:04}_{migration.name}.sql"


@asynccontextmanager
async def _connected(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    try:
        connection = await asyncpg.connect(database_url, timeout=CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Trouble(f"Postgres does not let us in: {str(error) or type(error).__name__}.") from error
    try:
        yield connection
    finally:
        await connection.close()


def database_url_from_env() -> str:
    """Errors: Trouble when DATABASE_URL is not set."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        raise Trouble("DATABASE_URL is not set; start the local stack with `make up`, or name a database.")
    return url
