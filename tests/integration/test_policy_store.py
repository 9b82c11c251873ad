"""Verdicts on a real Postgres: the first of an id counts, whoever asks, however many ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from giclee.bus import database as postgres
from giclee.bus.errors import Poison
from giclee.bus.settings import DatabaseSettings
from giclee.policy.handle import Policy
from giclee.policy.store import Verdicts
from giclee.policy.verdict import Asked, Judge, RequestIdConflict, Ruling
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import ImageCleared, ImageRequested

pytestmark = pytest.mark.real
Replica = Callable[[], Awaitable[Verdicts]]


@pytest.fixture
async def replica(database: str) -> AsyncIterator[Replica]:
    """Makes stores, each with a pool of its own, as replicas have."""
    settings = DatabaseSettings(url=SecretStr(database), pool_max=4, statement_timeout_s=15)
    async with AsyncExitStack() as opened:

        async def start() -> Verdicts:
            return Verdicts(await opened.enter_async_context(postgres.connect(settings, schema="policy")))

        yield start


def asked(origin: str, request_id: UUID | None = None, **values: Any) -> Asked:
    fields: dict[str, Any] = {
        "tenant": "default",
        "request_id": request_id or uuid4(),
        "origin": origin,
        "asked": {"prompt": "abc"},
        "ruling": Ruling(policy_version=origin, first_wave=1, limit_usd=1),
        "recorded_at": datetime(2020, 1, 1, tzinfo=UTC),
        "deadline": None,
        "ttl_h": 72,
    }
    return Asked(**{**fields, **values})


def requested(request_id: UUID, origin: str, *, replay_for: str | None = None, **values: Any) -> ImageRequested:
    event = ImageRequested.model_validate({"request_id": request_id, "prompt": "a red circle", **values})
    event.delivered(Envelope(origin=origin, recorded_at=datetime.now(UTC), replay_for=replay_for))
    return event


async def test_two_replicas_agree_on_the_first(replica: Replica) -> None:
    """Forty ids asked for by two replicas at once, in opposite orders: one verdict each, the same for both."""
    first, second = await replica(), await replica()
    ids = [uuid4() for _ in range(40)]
    one, other = await asyncio.gather(
        asyncio.gather(*(first.first(asked(f"a:0:{at}", id)) for at, id in enumerate(ids))),
        asyncio.gather(*(second.first(asked(f"b:0:{at}", id)) for at, id in reversed(list(enumerate(ids))))),
    )
    assert list(one) == list(reversed(other))
    assert {stored.origin.split(":")[2] for stored in one} == {str(at) for at in range(40)}


async def test_copies_in_one_statement_get_one_verdict(replica: Replica) -> None:
    """The same id twice in one batch is one row."""
    store, id = await replica(), uuid4()
    found = await asyncio.gather(*(store.first(asked(f"a:0:{at}", id)) for at in range(5)))
    assert len({stored.origin for stored in found}) == 1


async def test_the_clock_is_the_databases(replica: Replica) -> None:
    """Accepted is the earlier of record time and now; closing is the deadline, else acceptance and the time to live."""
    store = await replica()
    early = await store.first(asked("a:0:1", ttl_h=5))
    assert early.times.accepted_at == datetime(2020, 1, 1, tzinfo=UTC)
    assert early.times.closes_by == datetime(2020, 1, 1, 5, tzinfo=UTC)
    future = await store.first(asked("a:0:2", recorded_at=datetime(2999, 1, 1, tzinfo=UTC)))
    assert abs(future.times.accepted_at - datetime.now(UTC)) < timedelta(minutes=5)
    deadline = datetime(2030, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert (await store.first(asked("a:0:3", deadline=deadline))).times.closes_by == deadline


async def test_a_ruling_survives_its_trip(replica: Replica) -> None:
    """What comes back from the database is what went in, by the insert and by the look-up."""
    store, id = await replica(), uuid4()
    ruling = Ruling(
        policy_version="v", prompt='quoted "é" 🙂 {x}', negative_prompt="n", first_wave=3, limit_usd="0.001"
    )
    assert (await store.first(asked("a:0:1", id, ruling=ruling))).ruling == ruling
    assert (await store.first(asked("a:0:2", id))).ruling == ruling


async def test_a_verdict_the_database_cannot_hold_fails_alone(replica: Replica) -> None:
    """One bad row among good ones is Poison for its own request only."""
    store = await replica()
    bad = asked("a:0:1", asked={"prompt": "nul \x00"})
    good = [asked(f"a:0:{at}") for at in range(2, 5)]
    found = await asyncio.gather(*(store.first(one) for one in [*good, bad]), return_exceptions=True)
    assert [getattr(one, "origin", None) for one in found[:3]] == ["a:0:2", "a:0:3", "a:0:4"]
    assert isinstance(found[3], Poison)


async def test_rule_13_on_the_real_table(replica: Replica) -> None:
    """Repeat, replay, copy and conflict, across a restart and a change of tables."""
    id = uuid4()
    policy = Policy(Judge(), await replica(), ttl_h=72)
    (first,) = await policy.handle(requested(id, "t:0:1"))
    restarted = Policy(Judge((), "other tables"), await replica(), ttl_h=1)
    for repeat in (requested(id, "t:0:1"), requested(id, "t:2:9", replay_for="policy")):
        (again,) = await restarted.handle(repeat)
        assert isinstance(again, ImageCleared)
        assert again.model_dump_json() == first.model_dump_json()
    assert await restarted.handle(requested(id, "t:0:2")) == []
    with pytest.raises(RequestIdConflict):
        await restarted.handle(requested(id, "t:0:3", prompt="a blue square"))
    with pytest.raises(RequestIdConflict):
        await restarted.handle(requested(id, "t:0:3", replay_for="policy", prompt="a blue square"))


async def test_ids_are_forgotten_after_400_days(replica: Replica, database: str) -> None:
    """Pruning takes what is older than 400 days and nothing else."""
    store = await replica()
    old, young = asked("a:0:1"), asked("a:0:2")
    for one in (old, young):
        await store.first(one)
    connection = await asyncpg.connect(database)
    for one, days in ((old, 401), (young, 399)):
        await connection.execute(
            "UPDATE policy.verdicts SET decided_at = now() - $2 * interval '1 day' WHERE request_id = $1",
            one.request_id, days,
        )  # fmt: skip
    await connection.close()
    assert await store.prune() == 1
    assert await store.prune() == 0
    assert (await store.first(asked("new", old.request_id))).origin == "new"
    assert (await store.first(asked("new", young.request_id))).origin == "a:0:2"


async def test_a_hundred_at_once_take_few_statements(replica: Replica, database: str) -> None:
    """Calls made while a statement runs share the next one."""
    store = await replica()
    await store.check()
    await asyncio.gather(*(store.first(asked(f"a:0:{at}")) for at in range(200)))
    connection = await asyncpg.connect(database)
    transactions = await connection.fetchval("SELECT count(DISTINCT xmin::text) FROM policy.verdicts")
    await connection.close()
    assert transactions <= 10
