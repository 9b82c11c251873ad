"""Postgres for services: a small bounded pool, SQL read from files, errors in the bus' two words.

Every wait is bounded: connecting, getting a connection of the pool, a statement, an idle transaction. The
schema's tables are made by `giclee db migrate`, never from here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson

from giclee.bus.errors import Poison, Transient
from giclee.bus.settings import DatabaseSettings

CONNECT_TIMEOUT_S = 5.0
ACQUIRE_TIMEOUT_S = 10.0
"""Longest wait for a connection of an exhausted pool; asyncpg itself would wait for ever."""
START_TIMEOUT_S = 30.0
"""How long a starting process waits for a database that starts beside it; then its supervisor decides."""
START_PAUSE_S = 0.5
IDLE_TRANSACTION_TIMEOUT_S = 60
"""Longer than the longest wait for the broker inside a transaction (the relay's), short enough to free locks."""
IDLE_CONNECTION_S = 300.0

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Connection = asyncpg.Connection


class _BoundedPool(Pool):
    """A pool whose every way to a connection has a deadline; the library leaves that to each caller."""

    def acquire(self, *, timeout: float | None = None) -> Any:
        return super().acquire(timeout=timeout or ACQUIRE_TIMEOUT_S)


@asynccontextmanager
async def connect(settings: DatabaseSettings, schema: str) -> AsyncIterator[Pool]:
    """A pool for one process. `schema` names it in pg_stat_activity; SQL stays schema-qualified.

    jsonb and json travel as Python values. Errors: Transient when the database cannot be reached in 30 s.
    """
    pool = await _opened(settings, schema)
    try:
        yield pool
    finally:
        await _closed(pool)


async def _opened(settings: DatabaseSettings, schema: str) -> Pool:
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
    while True:
        pool = _pool(settings, schema)  # one that failed to open cannot be opened again
        try:
            with translated():
                await pool
                return pool
        except Transient:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(START_PAUSE_S)


def _pool(settings: DatabaseSettings, schema: str) -> Pool:
    return _BoundedPool(
        settings.url.get_secret_value(),
        min_size=0,  # a floor would be restored in the background, noisily, while the database is away
        init_size=1,
        max_size=settings.pool_max,
        max_queries=50_000,
        max_inactive_connection_lifetime=IDLE_CONNECTION_S,
        loop=None,
        connection_class=asyncpg.Connection,
        record_class=asyncpg.Record,
        init=_speak_json,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=settings.statement_timeout_s + 5,  # for a hung server; a slow statement ends there first
        server_settings={
            "application_name": f"giclee-{schema}",
            "statement_timeout": f"{settings.statement_timeout_s}s",
            "idle_in_transaction_session_timeout": f"{IDLE_TRANSACTION_TIMEOUT_S}s",
            "timezone": "UTC",
        },
    )


async def _closed(pool: Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), CONNECT_TIMEOUT_S)
    except TimeoutError:
        pool.terminate()


async def _speak_json(connection: Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=_to_json, decoder=orjson.loads, schema="pg_catalog")


def _to_json(value: Any) -> str:
    return orjson.dumps(value, default=_plain).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError(f"{type(value).__name__} has no JSON form")


async def ping(pool: Pool, timeout_s: float = 2.0) -> None:
    """For /readyz. Errors: Transient when a statement does not come back in time."""
    with translated():
        async with asyncio.timeout(timeout_s):
            await pool.fetchval("select 1", timeout=timeout_s)


# ---- errors -------------------------------------------------------------------------------------

_AWAY = ("08", "53", "57P0", "40001", "40P01")
_NEVER = ("22", "23", "54001")
_SLOW = ("57014", "55P03")
"""A statement or lock that took too long: this record's bad luck, so it is tried a few times, not for ever."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the database says as Transient or Poison; what is neither stays what it is: a bug of ours.

    A task that is being cancelled stays so: what fails while it cleans up on a dead session is not an outage to
    wait for, or it would go on for ever.
    """
    try:
        with _still_cancelled():
            yield
    except asyncpg.PostgresError as error:
        raise _in_our_words(error) or error from error
    except (asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise Transient(f"the database is away: {type(error).__name__} {error}") from error
    except asyncpg.InterfaceError as error:
        if isinstance(error, ValueError):  # an argument that its column cannot hold
            raise Poison(f"the database cannot take a value: {error}") from error
        if _connection_lost(error):
            raise Transient(f"the database is away: {error}") from error
        raise
    except UnicodeEncodeError as error:
        raise Poison("text with a lone surrogate cannot be stored") from error


@contextmanager
def _still_cancelled() -> Iterator[None]:
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from error
        raise


def _in_our_words(error: asyncpg.PostgresError) -> Exception | None:
    state = str(getattr(error, "sqlstate", None) or "")
    said = f"{type(error).__name__} ({state}): {error}"
    if state.startswith(_AWAY):
        return Transient(said)
    if state.startswith(_SLOW):
        return Transient(said, scope="record")
    return Poison(said) if state.startswith(_NEVER) else None


def _connection_lost(error: asyncpg.InterfaceError) -> bool:
    return any(word in str(error) for word in ("closed", "closing", "lost", "released"))


# ---- SQL in files -------------------------------------------------------------------------------

_NAME = re.compile(r"^--\s*name:\s*([a-z][a-z0-9_]*)\s*$", re.MULTILINE)


class Queries:
    """The SQL of one file, by name: `queries.close_order` is the text under `-- name: close_order`.

    Errors: ValueError at once for a name used twice, a query without text or without a describing comment
    line under its name; AttributeError for a name that the file lacks.
    """

    def __init__(self, path: Path) -> None:
        parts = _NAME.split(path.read_text(encoding="utf-8"))
        self._path = path
        self._texts: dict[str, str] = {}
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            body = text.strip()
            if name in self._texts:
                raise ValueError(f"{path}: {name} is there twice")
            if not body.startswith("--") or not re.sub(r"--[^\n]*", "", body).strip():
                raise ValueError(f"{path}: {name} needs a comment line that describes it, then SQL")
            self._texts[name] = body

    def __getattr__(self, name: str) -> str:
        try:
            return self._texts[name]
        except KeyError:
            raise AttributeError(f"{self._path} has no query {name}") from None

    def names(self) -> tuple[str, ...]:
        """Every query of the file, in its order."""
        return tuple(self._texts)
