"""Real parts for whoever asks: a Kafka, a Postgres and an S3 of this run, started once, stopped for sure."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.kit import stack as parts


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """What a test puts into the environment goes with it: verbs of the command line fill variables."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[parts.PostgresRunning]:
    """A Postgres server of this test run."""
    with parts.postgres_part() as running:
        yield running


@pytest.fixture(scope="session")
def kafka() -> Iterator[parts.KafkaRunning]:
    """A broker of this test run. A test that kills it starts one of its own."""
    with parts.kafka_part() as running:
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[parts.S3Running]:
    """An object store of this test run."""
    with parts.s3_part() as running:
        yield running


def _on(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


async def _execute(url: str, *statements: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def _template(postgres: parts.PostgresRunning) -> str:
    """A database with every service's migrations applied once; tests get copies of it."""
    from giclee.infra import migrate

    url = _on(postgres.database_url, "template_giclee")
    asyncio.run(_execute(postgres.database_url, "CREATE DATABASE template_giclee"))
    asyncio.run(migrate.migrate(url))
    return "template_giclee"


@pytest.fixture
def database(postgres: parts.PostgresRunning, _template: str) -> Iterator[str]:
    """URL of a fresh, migrated database of this test alone."""
    name = f"t{uuid.uuid4().hex[:12]}"
    asyncio.run(_execute(postgres.database_url, f"CREATE DATABASE {name} TEMPLATE {_template}"))
    yield _on(postgres.database_url, name)
    asyncio.run(_execute(postgres.database_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def topic_prefix() -> str:
    """Topics and groups of this test alone, on the broker of the run."""
    return f"t{uuid.uuid4().hex[:8]}."
