"""Stored verdicts on a real Postgres: the first one counts, for everyone and for ever."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from giclee.bus import database as databases
from giclee.bus.settings import DatabaseSettings
from giclee.schemas.events import ImageScored
from giclee.scorer.store import SCHEMA, Store, queries

pytestmark = pytest.mark.real
EXAMPLE = Path(__file__).parents[2] / "schemas" / "examples" / "ImageScored.json"


@pytest.fixture
async def pool(database: str) -> AsyncIterator[databases.Pool]:
    async with databases.connect(DatabaseSettings(url=SecretStr(database)), SCHEMA) as opened:
        yield opened


def scored(verdict: str = "pass", candidate_id: uuid.UUID | None = None) -> ImageScored:
    example = ImageScored.model_validate_json(EXAMPLE.read_text())
    return example.model_copy(update={"verdict": verdict, "candidate_id": candidate_id or uuid.uuid4()})


async def test_what_was_kept_is_found_as_it_was(pool: databases.Pool) -> None:
    """Bit by bit the same event, money and times included; other bytes are not found."""
    store, event = Store(pool), scored()
    assert await store.find(event.candidate_id, event.sha256) is None
    assert await store.keep(event) == event
    found = await store.find(event.candidate_id, event.sha256)
    assert found == event and found.event_id() == event.event_id()
    assert await store.find(event.candidate_id, "0" * 64) is None


async def test_the_first_of_two_verdicts_counts(pool: databases.Pool) -> None:
    """Two scorers judge the same bytes at once and differ: both tell the same."""
    one, two = Store(pool), Store(pool)
    for _ in range(10):
        candidate_id = uuid.uuid4()
        told = await asyncio.gather(one.keep(scored("pass", candidate_id)), two.keep(scored("fail", candidate_id)))
        assert told[0].verdict == told[1].verdict


async def test_old_verdicts_are_forgotten(pool: databases.Pool) -> None:
    """After the candidates' own blobs are gone."""
    store, old, new = Store(pool), scored(), scored()
    await store.keep(old)
    await pool.execute("UPDATE scorer.verdicts SET scored_at = scored_at - interval '90 days'")
    await store.keep(new)
    await pool.execute(queries.forget_verdicts, 45)
    assert await store.find(old.candidate_id, old.sha256) is None
    assert await store.find(new.candidate_id, new.sha256) == new
