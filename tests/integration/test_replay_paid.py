"""An image that was paid for and stored is not made again, whoever replays its dead letter and however often."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from giclee.bus import database as bus_database
from giclee.bus.blobs import MemoryBlobs
from giclee.bus.layers import codec
from giclee.bus.memory import MemoryTransport
from giclee.bus.settings import DatabaseSettings
from giclee.gpu_worker.batch import Batcher
from giclee.gpu_worker.claims import SCHEMA, Claims
from giclee.gpu_worker.handle import Worker
from giclee.gpu_worker.inquiries import Inquiries
from giclee.gpu_worker.providers.stub import Stub
from giclee.gpu_worker.shelf import Shelf
from tests.kit import loops
from tests.kit.candidates import model, routed
from tests.kit.loops import header
from tests.kit.ops import WHO, Ops, client, letter, replayed, working
from tests.kit.wait import until

pytestmark = pytest.mark.real

ROUTED, GENERATED = "image.routed.local.v1", "image.generated.v1"


class Workers:
    """The worker's own endpoint, asked without a network."""

    def __init__(self, inquiries: Inquiries) -> None:
        self._inquiries = inquiries

    async def orders(self, keys: Any) -> dict[Any, Any]:
        return {}

    async def blobs(self, keys: Any) -> dict[Any, Any]:
        return {}

    async def claims(self, pool: str, keys: Any) -> dict[Any, Any]:
        rows = (await self._inquiries.claims({"claims": [list(key) for key in keys]}))["claims"]
        return {(row["candidate_id"], row["hop"]): row for row in rows}


@pytest.fixture
async def pool(database: str) -> AsyncIterator[bus_database.Pool]:
    async with bus_database.connect(DatabaseSettings(url=database, pool_max=16), schema=SCHEMA) as made:
        yield made


async def test_a_stored_image_is_told_again_and_not_made_again(pool: bus_database.Pool) -> None:
    """Its worker died behind the claim's end, its record became a dead letter, three operators put that back: the
    same event again, the same bytes, not a cent more; the dry run says so before."""
    transport, stub, blobs = MemoryTransport(), Stub(), MemoryBlobs()
    claims, batcher = Claims(pool, "local"), Batcher({"stub": stub}, wait_ms=0)
    worker = Worker(claims=claims, shelf=Shelf({"shapes-final": model()}), batcher=batcher, blobs=blobs)
    ops = Ops(transport, pool, neighbours=Workers(Inquiries(claims)))
    event = routed()
    stage = worker.stage(concurrency=4, deadline_s=30)
    async with (
        working(batcher.run, ops.index.run, ops.runs.work),
        loops.running(transport, stage, ops.writer),
        client(ops.app) as http,
    ):
        record = codec.encode(event, source="test")
        await ops.put(record)
        await until(lambda: transport.records(GENERATED), 20)
        spent = await _spent(pool)
        asked: dict[str, Any] = {}
        for turn in range(3):
            died = letter(
                offset=1000 + turn, failed=record, stage="gpu-worker.local", tenant="acme",
                request_id=event.request_id, candidate_id=str(event.candidate_id), paid_usd=Decimal("0.0004"),
            )  # fmt: skip
            await ops.bury(died)
            asked = (await http.post("/v1/dead-letters/preflight", json={"selection": {"state": "open"}})).json()
            await asyncio.gather(*(replayed(http, selection={"state": "open"}) for _ in range(3)))
            await until(lambda told=turn + 2: len(transport.records(GENERATED)) >= told, 20)  # type: ignore[misc]

    told = transport.records(GENERATED)
    (look,) = asked["items"]
    assert (look["verdict"], look["claim"], look["cost_max_usd"]) == ("go with changes", "generated", "0")
    assert len({header(one, "ce_id") for one in told}) == 1
    assert len({one.value for one in told}) == 1
    assert await _spent(pool) == spent
    assert await pool.fetchval("SELECT max(fence) FROM gpu_worker.claims") == 1
    assert uuid.UUID(header(told[0], "ce_id"))
    assert WHO["reason"] in {row["reason"] for row in await pool.fetch("SELECT reason FROM replay.audit")}


async def _spent(pool: bus_database.Pool) -> Decimal:
    found: Decimal = await pool.fetchval("SELECT sum(base_usd + prior_usd + at_risk_usd) FROM gpu_worker.claims")
    return found
