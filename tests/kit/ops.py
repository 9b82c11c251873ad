"""The replay service's parts on a transport and a real database, and dead letters to work on."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from giclee.bus import dlq
from giclee.bus.database import Pool
from giclee.bus.errors import Poison
from giclee.bus.layers import switches as switch_layer
from giclee.bus.stage import Stage
from giclee.bus.table import Table
from giclee.bus.transport import Record, Writer
from giclee.replay.api import application
from giclee.replay.ask import Neighbours
from giclee.replay.desk import Desk
from giclee.replay.index import Index
from giclee.replay.ledger import Ledger
from giclee.replay.preflight import REPLAYS_MAX, Preflight
from giclee.replay.runs import Runs
from giclee.replay.store import Store
from giclee.replay.switches import Switches
from giclee.schemas.events import Event, ImageRequested, SwitchSet
from giclee.schemas.parts import Position
from tests.kit.loops import header, request_record, running
from tests.kit.wait import until

KEY = "a-key-of-at-least-16"
REQUESTED = "image.requested.v1"
POOLS = ("local", "hosted")
WHO = {"reason": "mended"}
ADA = {"X-Giclee-Actor": "ada"}
ENDED = ("done", "stopped", "aborted", "paused")


@dataclass
class Ops:
    """Each part is to be run by hand. `gate` is asked before anything is sent."""

    transport: Any
    pool: Pool
    neighbours: Any = field(default_factory=lambda: Neighbours(None, {}))
    gate: Callable[[Sequence[Record]], Any] | None = None
    sent: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.writer: Writer = self.transport.writer("ops")
        self.lookup = self.transport.lookup()
        self.store = Store(self.pool)
        self.table: Table[SwitchSet] = Table(SwitchSet, self.transport)
        self.preflight = Preflight(self.lookup, self.neighbours, POOLS)
        self.ledger = Ledger(self.pool, self.preflight.allowed, REPLAYS_MAX)
        self.runs = Runs(self.ledger, self.lookup, self.preflight, self.send)
        self.index = Index(self.transport, self.store, POOLS)
        self.switches = Switches(self.table, self.store, self.send)
        self.desk = Desk(self.store, self.ledger, self.preflight, self.runs)
        self.app = application(self.desk, self.switches, api_key=KEY)

    async def send(self, records: Sequence[Record]) -> Sequence[Position]:
        if self.gate is not None:
            found = self.gate(records)
            if asyncio.iscoroutine(found):
                await found
        positions = await self.writer.send(records)
        self.sent += records
        return positions

    async def die(self, number: int = 1, *, offset: int = 0, **fields: Any) -> list[str]:
        """Dead letters on their topic, indexed; their ids."""
        letters = [letter(offset=offset + place, **fields) for place in range(number)]
        await self.bury(*letters)
        return [header(one, "dlq-id") for one in letters]

    async def put(self, *records: Record) -> None:
        """Records on their topics."""
        await self.writer.send(records)

    async def bury(self, *records: Record) -> None:
        """Dead letters on their topics, indexed when this returns."""
        await self.put(*records)
        ids = {uuid.UUID(found) for one in records if (found := header(one, "dlq-id"))}

        async def all_known() -> bool:
            known = await self.count("replay.dead_letters WHERE dlq_id = ANY($1)", list(ids))
            return known == len(ids)

        await until(all_known, 20)

    async def count(self, what: str = "replay.dead_letters", *values: Any) -> int:
        return int(await self.pool.fetchval(f"SELECT count(*) FROM {what}", *values))

    async def states(self) -> list[str]:
        return [row["state"] for row in await self.pool.fetch("SELECT state FROM replay.dead_letters ORDER BY state")]

    async def states_are(self, state: str, number: int) -> bool:
        """Whether so many letters are in a state."""
        return await self.count("replay.dead_letters WHERE state = $1", state) == number

    def back(self, topic: str = REQUESTED) -> list[Record]:
        """What lies on a topic of the memory transport."""
        found: list[Record] = self.transport.records(topic)
        return found


def letter(offset: int = 0, **fields: Any) -> Record:
    """A dead letter of a request, as the layer writes it."""
    rid = str(fields.pop("request_id", uuid.uuid4()))
    named = {"message": "oops", "stage": "policy", "dead_class": "poison", "error_type": "Poison", **fields}
    extra = named.pop("headers", ())
    failed = replace(named.pop("failed", request_record(uuid.UUID(rid))), partition=1, offset=offset, timestamp_ms=1000)
    failed = replace(failed, headers=(*failed.headers, *extra))
    died = dlq.DeadLetter(
        attempts=1, origin=failed.origin(), timestamp_ms=1000, group="giclee.policy", version="0.1.0",
        first_failed_at=moment(offset), last_failed_at=moment(offset), request_id=rid, **named,
    )  # fmt: skip
    return died.record(failed)


def moment(second: int) -> str:
    return (datetime(2026, 11, 21, 9, 0, tzinfo=UTC) + timedelta(seconds=second)).isoformat()


def held(scope: str, *, stage: str = "policy", offset: int = 0) -> Record:
    """A record as the switches layer holds it."""
    record = replace(request_record(), partition=1, offset=offset, timestamp_ms=1000)
    event = ImageRequested.model_validate_json(record.value or b"", strict=False)
    return switch_layer.held(record, stage, switch(scope), event)


def switch(scope: str, mode: str = "hold", **fields: Any) -> SwitchSet:
    return SwitchSet(scope=scope, mode=mode, reason="because", actor="ada", set_at=datetime.now(UTC), **fields)


@asynccontextmanager
async def working(*parts: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Background work, cancelled at the end."""
    tasks = [asyncio.create_task(part()) for part in parts]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def client(app: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """The API as Ada calls it."""
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {KEY}", **ADA}
    async with httpx2.AsyncClient(transport=transport, base_url="http://ops", headers=headers) as made:
        yield made


def is_problem(answer: Any, status: int) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"]) == (status, status), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["code"] and isinstance(body["errors"], list)
    assert uuid.UUID(body["request_id"])
    return body


async def started(http: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    """A run, just begun."""
    answer = await http.post("/v1/runs", json={**WHO, **body})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def ended(http: httpx2.AsyncClient, run: dict[str, Any], within_s: float = 20.0) -> dict[str, Any]:
    """A run that goes no further by itself."""

    async def over() -> dict[str, Any] | None:
        found: dict[str, Any] = (await http.get(f"/v1/runs/{run['run_id']}")).json()
        return found if found["state"] in ENDED else None

    found: dict[str, Any] = await until(over, within_s)
    return found


async def replayed(http: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    """A run from its start to its end."""
    return await ended(http, await started(http, **body))


@asynccontextmanager
async def failing(ops: Ops, *, handles: Callable[[ImageRequested], bool] = lambda _: False) -> AsyncIterator[list[str]]:
    """Policy as far as its records go: those that `handles` says no to die; the prompts of those that lived."""
    lived: list[str] = []

    async def handle(event: ImageRequested) -> list[Event]:
        if not handles(event):
            raise Poison("oops")
        lived.append(event.prompt or "")
        return []

    stage = Stage(name="policy", reads=(ImageRequested,), emits=(), handle=handle, concurrency=8)
    async with running(ops.transport, stage, ops.writer):
        yield lived
