"""The database pool on a real Postgres: bounded waits, errors in two words, JSON as values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from giclee.bus import database
from giclee.bus.database import Pool, Queries
from giclee.bus.errors import Poison, Transient
from giclee.bus.settings import DatabaseSettings
from tests.kit.stack import PostgresRunning, postgres_part
from tests.kit.wait import until


@pytest.fixture
async def pool(postgres: PostgresRunning) -> AsyncIterator[Pool]:
    settings = DatabaseSettings(url=postgres.database_url, pool_max=2, statement_timeout_s=1)
    async with database.connect(settings, "test") as opened:
        yield opened


async def test_json_travels_as_values(pool: Pool) -> None:
    """jsonb columns take and give Python values, amounts of money as text."""
    sent = {"a": [1, None, "ü"], "usd": Decimal("0.0004")}
    assert await pool.fetchval("SELECT $1::jsonb", sent) == {"a": [1, None, "ü"], "usd": "0.0004"}


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("SELECT 1 / 0", ()),
        ("SELECT $1::text", ("a\x00b",)),
        ("SELECT $1::text", ("\ud800",)),
        ("SELECT $1::int", (2**40,)),
        ("SELECT $1::uuid", ("no uuid",)),
        ("SELECT repeat('[', 100000)::jsonb", ()),
    ],
)
async def test_what_the_record_brought_is_poison(pool: Pool, sql: str, values: tuple[object, ...]) -> None:
    """A value that Postgres or its driver cannot take will never be taken."""
    with pytest.raises(Poison), database.translated():
        await pool.fetchval(sql, *values)


async def test_a_slow_statement_is_the_records_bad_luck(pool: Pool) -> None:
    """The server ends it; trying for ever would block everything behind it."""
    with pytest.raises(Transient) as caught, database.translated():
        await pool.fetchval("SELECT pg_sleep(30)")
    assert caught.value.scope == "record"


async def test_a_bug_stays_a_bug(pool: Pool) -> None:
    """Wrong SQL is neither an outage nor the record's fault."""
    with pytest.raises(asyncpg.PostgresSyntaxError), database.translated():
        await pool.fetchval("SELEC 1")


async def test_an_exhausted_pool_is_not_waited_for_without_end(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets no connection in time hears Transient, also through the pool's own short cuts."""
    monkeypatch.setattr(database, "ACQUIRE_TIMEOUT_S", 0.1)
    async with pool.acquire(), pool.acquire():
        with pytest.raises(Transient), database.translated():
            await pool.fetchval("SELECT 1")


async def test_two_crossing_locks_are_transient(pool: Pool) -> None:
    """One of two transactions that wait for each other is told to try again."""
    async with pool.acquire() as first, pool.acquire() as second, first.transaction(), second.transaction():
        for connection in (first, second):
            await connection.execute("SET LOCAL deadlock_timeout = '50ms'")
        await first.execute("SELECT pg_advisory_xact_lock(1)")
        await second.execute("SELECT pg_advisory_xact_lock(2)")
        crossing = (
            first.execute("SELECT pg_advisory_xact_lock(2)"),
            second.execute("SELECT pg_advisory_xact_lock(1)"),
        )
        ends = await asyncio.gather(*crossing, return_exceptions=True)
        (failed,) = [end for end in ends if isinstance(end, BaseException)]
        with pytest.raises(Transient), database.translated():
            raise failed


async def test_a_task_that_is_cancelled_on_a_dead_session_stays_cancelled(pool: Pool) -> None:
    """Its rollback fails with the session; taken for an outage, it would be waited for, and the process never end."""
    pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def in_a_transaction() -> None:
        with database.translated():
            async with pool.acquire() as connection, connection.transaction():
                pid.set_result(await connection.fetchval("SELECT pg_backend_pid()"))
                await asyncio.Event().wait()

    working = asyncio.create_task(in_a_transaction())
    assert await pool.fetchval("SELECT pg_terminate_backend($1)", await pid)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


@pytest.fixture
def own_postgres() -> Iterator[PostgresRunning]:
    with postgres_part() as running:
        yield running


async def test_a_pool_outlives_its_server(own_postgres: PostgresRunning) -> None:
    """Killed and started again: Transient in between, the same pool afterwards; a new one waits for its server."""
    settings = DatabaseSettings(url=own_postgres.database_url, pool_max=2)
    async with database.connect(settings, "test") as pool:

        async def answers() -> bool:
            try:
                await database.ping(pool)
            except Transient:
                return False
            return True

        async def fails() -> bool:
            return not await answers()

        assert await answers()
        own_postgres.running.kill()
        await until(fails)  # a backend may outlive its postmaster by a moment
        assert await fails()
        own_postgres.running.start()
        await until(answers)
    own_postgres.running.stop()
    asyncio.get_running_loop().call_later(0.7, lambda: own_postgres.running.start(wait=False))
    async with database.connect(settings, "test") as pool:
        await database.ping(pool)


async def test_a_server_that_stays_away_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot have its database ends, and its supervisor decides."""
    monkeypatch.setattr(database, "START_TIMEOUT_S", 0.2)
    monkeypatch.setattr(database, "START_PAUSE_S", 0.05)
    settings = DatabaseSettings(url="postgresql://x:y@127.0.0.1:9/none", pool_max=2)
    with pytest.raises(Transient):
        async with database.connect(settings, "test"):
            pass


def test_queries_are_found_by_name(tmp_path: Path) -> None:
    """Every query has a name, a sentence and text; what is missing or double is said when the file is read."""
    file = tmp_path / "queries.sql"
    file.write_text("-- name: one\n-- The first.\nSELECT 1;\n\n-- name: two\n-- The second.\nSELECT 2 -- why\n")
    queries = Queries(file)
    assert queries.names() == ("one", "two")
    assert queries.one.endswith("SELECT 1;") and "SELECT 2" in queries.two
    with pytest.raises(AttributeError):
        _ = queries.three
    for bad in ("-- name: one\nSELECT 1", "-- name: one\n-- Only words.\n", file.read_text() * 2):
        file.write_text(bad)
        with pytest.raises(ValueError):
            Queries(file)
