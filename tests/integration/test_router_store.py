"""Choices on a real Postgres: the first for a wave counts, whoever asks, however many ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from giclee.bus import database as postgres
from giclee.bus.errors import Poison
from giclee.bus.settings import DatabaseSettings
from giclee.router.choose import choose
from giclee.router.handle import Router
from giclee.router.routes import Catalogue
from giclee.router.store import Waves
from giclee.router.waves import Asked, Wave
from tests.unit.router.builders import DEMO, DRAFT, FINAL, SDXL, cleared, failing, request, wave

pytestmark = pytest.mark.real
Replica = Callable[[], Awaitable[Waves]]


@pytest.fixture
async def replica(database: str) -> AsyncIterator[Replica]:
    """Makes stores, each with a pool of its own, as replicas have."""
    settings = DatabaseSettings(url=SecretStr(database), pool_max=4, statement_timeout_s=15)
    async with AsyncExitStack() as opened:

        async def start() -> Waves:
            return Waves(await opened.enter_async_context(postgres.connect(settings, schema="router")))

        yield start


def asked(request_id: UUID | None = None, number: int = 0, *, count: int = 1, **values: Any) -> Asked:
    choice = choose(request(quality="draft"), Decimal("0.001"), [DRAFT, FINAL])
    chosen = Wave(first_index=number * 10, count=count, limit_usd=Decimal("0.001"), choice=choice)
    fields: dict[str, Any] = {
        "tenant": "default", "request_id": request_id or uuid4(), "number": number, "wave": chosen, "tables": "t",
        "closes_by": datetime.now(UTC) + timedelta(days=3),
    }  # fmt: skip
    return Asked(**{**fields, **values})


async def test_two_replicas_agree_on_the_first(replica: Replica) -> None:
    """Forty waves asked for by two replicas at once, in opposite orders and with other counts: one choice each."""
    first, second = await replica(), await replica()
    ids = [uuid4() for _ in range(40)]
    one, other = await asyncio.gather(
        asyncio.gather(*(first.first(asked(id, count=1)) for id in ids)),
        asyncio.gather(*(second.first(asked(id, count=2)) for id in reversed(ids))),
    )
    assert list(one) == list(reversed(other))


async def test_waves_of_one_request_are_kept_apart(replica: Replica) -> None:
    """Each wave has its own choice and comes back as it went in, money to the last digit."""
    store, id = await replica(), uuid4()
    asks = [asked(id, number, count=number + 1) for number in range(3)]
    stored = await asyncio.gather(*(store.first(one) for one in asks))
    assert list(stored) == [one.wave for one in asks]
    again = await (await replica()).first(asked(id, 1, count=9))
    assert again == asks[1].wave


async def test_a_wave_the_database_cannot_hold_fails_alone(replica: Replica) -> None:
    """One bad row among good ones is Poison for its own wave only."""
    store = await replica()
    good = [asked() for _ in range(3)]
    found = await asyncio.gather(*(store.first(one) for one in [*good, asked(count=0)]), return_exceptions=True)
    assert found[:3] == [one.wave for one in good]
    assert isinstance(found[3], Poison)


async def test_a_choice_outlives_restarts_and_tables(replica: Replica) -> None:
    """The same wave at a new process with other models and an ailing provider is answered with the same events."""
    first = await Router(DEMO, await replica()).handle(cleared(3, quality="draft"))
    other = Router(Catalogue((FINAL, SDXL), "other"), await replica(), failing(FINAL, SDXL))
    again = await other.handle(cleared(3, quality="draft"))
    assert [event.model_dump_json() for event in again] == [event.model_dump_json() for event in first]
    repeated = await other.handle(wave(0, 0, 3, quality="draft"))
    assert [event.event_id() for event in repeated] == [event.event_id() for event in first]


async def test_two_replicas_on_one_wave_emit_the_same(replica: Replica) -> None:
    """A zombie and its successor, with different tables, answer alike."""
    one = Router(DEMO, await replica())
    other = Router(Catalogue((FINAL,), "other"), await replica())
    mine, theirs = await asyncio.gather(
        one.handle(cleared(5, quality="draft")), other.handle(cleared(5, quality="draft"))
    )
    assert [event.model_dump_json() for event in mine] == [event.model_dump_json() for event in theirs]


async def test_waves_are_forgotten_after_their_requests(replica: Replica) -> None:
    """Forty days after the closing time, when no dead letter of theirs can come back any more."""
    store = await replica()
    old, young = (asked(closes_by=datetime.now(UTC) - timedelta(days=days)) for days in (41, 39))
    for one in (old, young):
        await store.first(one)
    assert (await store.prune(), await store.prune()) == (1, 0)
    again = asked(old.request_id, count=7)
    assert (await store.first(again)).count == 7
    assert (await store.first(asked(young.request_id, count=7))).count == 1
