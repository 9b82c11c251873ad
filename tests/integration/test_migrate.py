"""`giclee db`: migrations are applied once, in order, whole or not at all, and never changed afterwards."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from giclee.infra.migrate import migrate, plan, read
from giclee.infra.trouble import Trouble
from tests.kit.stack import PostgresRunning, postgres_part

pytestmark = pytest.mark.real

GICLEE = Path(sys.executable).parent / "giclee"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresRunning]:
    """A server of this file."""
    with postgres_part() as running:
        yield running


@pytest.fixture
async def url(server: PostgresRunning) -> str:
    """An empty database."""
    name = f"t{uuid.uuid4().hex[:8]}"
    connection = await asyncpg.connect(server.database_url)
    await connection.execute(f"create database {name}")
    await connection.close()
    return urlunsplit(urlsplit(server.database_url)._replace(path=f"/{name}"))


def write(root: Path, service: str, name: str, sql: str) -> None:
    folder = root / service / "sql"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(sql)


async def rows(url: str, query: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_each_file_is_applied_once_in_order(url: str, tmp_path: Path) -> None:
    """Files run by number within a service; a second run does nothing."""
    write(tmp_path, "policy", "0002_fill.sql", "insert into facts values (1);")
    write(tmp_path, "policy", "0001_facts.sql", "create table facts (n int); insert into facts values (0);")
    write(tmp_path, "intake", "0001_requests.sql", "create table requests (id int)")
    outstanding = await plan(url, read(tmp_path))
    assert [(one.service, one.number) for one in outstanding] == [("intake", 1), ("policy", 1), ("policy", 2)]
    assert await migrate(url, read(tmp_path)) == outstanding
    assert await migrate(url, read(tmp_path)) == []
    assert await plan(url, read(tmp_path)) == []
    assert await rows(url, "select n from facts order by n") == [(0,), (1,)]


async def test_a_changed_file_is_refused(url: str, tmp_path: Path) -> None:
    """The checksum of an applied file guards it: plan and migrate name the file and apply nothing."""
    write(tmp_path, "policy", "0001_facts.sql", "create table facts (n int)")
    await migrate(url, read(tmp_path))
    write(tmp_path, "policy", "0001_facts.sql", "create table facts (n bigint)")
    write(tmp_path, "policy", "0002_more.sql", "create table more (n int)")
    for step in (plan, migrate):
        with pytest.raises(Trouble, match=r"policy/sql/0001_facts\.sql: changed after it was applied"):
            await step(url, read(tmp_path))
    assert await rows(url, "select to_regclass('more')") == [(None,)]


async def test_a_failing_file_leaves_nothing_of_itself(url: str, tmp_path: Path) -> None:
    """A file is one transaction: what failed is rolled back, what came before stays, and the mended file goes on."""
    write(tmp_path, "policy", "0001_one.sql", "create table one (n int)")
    write(tmp_path, "policy", "0002_two.sql", "create table two (n int); select 1/0;")
    with pytest.raises(Trouble, match=r"0002_two\.sql failed and was rolled back: division by zero"):
        await migrate(url, read(tmp_path))
    assert await rows(url, "select to_regclass('one') is null, to_regclass('two') is null") == [(False, True)]
    write(tmp_path, "policy", "0002_two.sql", "create table two (n int)")
    assert [one.number for one in await migrate(url, read(tmp_path))] == [2]


async def test_two_at_once_take_turns(url: str, tmp_path: Path) -> None:
    """Replicas that migrate at the same time apply each file once."""
    write(
        tmp_path,
        "policy",
        "0001_slow.sql",
        "create table slow (n int); select pg_sleep(0.3); insert into slow values (1)",
    )
    done = await asyncio.gather(*(migrate(url, read(tmp_path)) for _ in range(4)))
    assert sorted(map(len, done)) == [0, 0, 0, 1]
    assert await rows(url, "select count(*) from slow") == [(1,)]


async def test_who_applied_what_is_on_record(url: str, tmp_path: Path) -> None:
    """The table names service, number, file and checksum."""
    write(tmp_path, "policy", "0001_facts.sql", "select 1")
    (only,) = await migrate(url, read(tmp_path))
    found = await rows(url, "select service, number, name, sha256 from giclee_migrations")
    assert found == [("policy", 1, "facts", only.sha256)]


async def test_the_command_says_what_is_outstanding_by_its_exit_code(url: str, tmp_path: Path) -> None:
    """`giclee db plan` is 1 while a file waits and 0 after `apply`, which is another word for `migrate`."""
    write(tmp_path, "policy", "0001_facts.sql", "select 1")
    env = {"DATABASE_URL": url, "GICLEE_STATE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}

    def giclee(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(GICLEE), "db", *words, "--from", str(tmp_path), "--json"]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    planned = giclee("plan")
    assert planned.returncode == 1 and json.loads(planned.stdout)[0]["name"] == "facts"
    assert giclee("apply").returncode == 0
    assert giclee("plan").returncode == 0
    write(tmp_path, "policy", "0001_facts.sql", "select 2")
    refused = giclee("migrate")
    assert refused.returncode == 1 and "changed after it was applied" in refused.stderr
    assert "Traceback" not in refused.stderr


async def test_a_database_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    """Nobody listening is Trouble, not a traceback."""
    with pytest.raises(Trouble, match="Postgres does not let us in"):
        await plan("postgresql://x:y@127.0.0.1:1/z", [])
