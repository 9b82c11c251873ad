"""The reconciler on a real database: what is wrong is found and nothing else, and only orphans are ever deleted."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from giclee.bus import database as bus_database
from giclee.bus.blobs import MemoryBlobs
from giclee.bus.database import Pool
from giclee.bus.settings import DatabaseSettings
from giclee.replay.checks import Checks
from giclee.replay.objects import Objects
from giclee.replay.offsets import Offsets
from giclee.replay.reconcile import Reconciler

pytestmark = pytest.mark.real

GRACE = timedelta(hours=192)


class NoGroups:
    """A cluster on which no group of ours reads anything."""

    async def places(self, groups: Any) -> dict[str, Any]:
        return {}

    async def put(self, group: str, topics: Any, offsets: Any) -> None: ...


async def no_switches() -> list[dict[str, Any]]:
    return []


@dataclass
class World:
    """A database and a bucket, and rows as the services write them."""

    pool: Pool
    blobs: MemoryBlobs
    reconciler: Reconciler

    async def finding(self, check: str) -> dict[str, Any]:
        self.reconciler._looked_at = float("-inf")
        report = await self.reconciler.look()
        return next(dict(row) for row in report["checks"] if row["check"] == check)

    async def request(self, *, late: timedelta = -timedelta(hours=1), **columns: Any) -> uuid.UUID:
        """A request at intake; `late` is how long ago its time was over."""
        rid = uuid.uuid4()
        row = {
            "tenant": "acme", "request_id": rid, "request": "{}", "accepted_at": datetime.now(UTC),
            "closes_by": datetime.now(UTC) - late, **columns,
        }  # fmt: skip
        await self._insert("intake.requests", row)
        return rid

    async def order(self, rid: uuid.UUID, *, closed: bool) -> int:
        row: dict[str, Any] = {"tenant": "acme", "request_id": rid}
        row |= {"closed_at": datetime.now(UTC), "outcome": "approved"} if closed else {}
        await self._insert("publisher.orders", row)
        return int(await self.pool.fetchval("SELECT max(id) FROM publisher.orders"))

    async def fact(self, order_id: int, key: str) -> None:
        said = {"image": {"key": key}}
        await self._insert("publisher.facts", {"order_id": order_id, "kind": "outcome", "name": key, "says": said})

    async def asset(self, rid: uuid.UUID, document: dict[str, Any]) -> uuid.UUID:
        asset_id = uuid.uuid4()
        row = {
            "asset_id": asset_id, "tenant": "acme", "request_id": rid, "candidate_id": uuid.uuid4(), "version": 1,
            "status": "approved", "labels": {}, "document": document, "updated_at": datetime.now(UTC),
        }  # fmt: skip
        await self._insert("publisher.assets", row)
        return asset_id

    async def claim(self, rid: uuid.UUID, candidate: uuid.UUID) -> None:
        row = {
            "candidate_id": candidate, "hop": 0, "tenant": "acme", "request_id": rid, "pool": "local", "state": "live",
            "fence": 1, "owner": "w", "lease_until": datetime.now(UTC), "base_usd": 0, "price_usd": 0, "limit_usd": 0,
            "origin": "t:0:0", "record_value": b"", "record_headers": [], "recorded_ms": 0,
        }  # fmt: skip
        await self._insert("gpu_worker.claims", row)

    async def waiting(self, service: str, lane: str, age: timedelta) -> None:
        row = {"lane": lane, "topic": "t", "headers": {}, "created_at": datetime.now(UTC) - age}
        await self._insert(f"{service}.outbox", row)

    async def _insert(self, table: str, row: dict[str, Any]) -> None:
        places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        await self.pool.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", *row.values())

    def put(self, key: str, body: bytes = b"bytes", *, age: timedelta = GRACE + timedelta(hours=1)) -> dict[str, Any]:
        """An object of an age; what a document says of it."""
        self.blobs.stored[key], self.blobs.modified_at[key] = body, datetime.now(UTC) - age
        digest = hashlib.sha256(body).hexdigest()
        return {
            "bucket": "memory", "key": key, "sha256": digest, "size_bytes": len(body), "content_type": "image/png",
            "width": 8, "height": 8,
        }  # fmt: skip


def candidate_key(rid: uuid.UUID, candidate: uuid.UUID | None = None) -> str:
    return f"candidates/acme/{rid}/{candidate or uuid.uuid4()}-0-1"


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    async with bus_database.connect(DatabaseSettings(url=database, pool_max=12), schema="replay") as pool:
        blobs = MemoryBlobs()
        objects, offsets = Objects(pool, blobs, GRACE), Offsets(pool, NoGroups(), {})
        yield World(pool, blobs, Reconciler(Checks(pool, no_switches), offsets, objects, pool, 60))


async def test_an_empty_line_is_good(world: World) -> None:
    """Every check answers, and none finds anything."""
    report = await world.reconciler.look()
    assert report["verdict"] == "good"
    assert len(report["checks"]) == 9
    assert {row["verdict"] for row in report["checks"]} == {"good"}


async def test_requests_past_their_time_are_found_with_who_is_late(world: World) -> None:
    """No expiry sent: intake. Sent: the publisher. Closed there: what lies between. Ended or young: nobody."""
    await world.request()
    await world.request(late=timedelta(minutes=1))
    await world.request(late=timedelta(hours=1), outcome="expired", closed_at=datetime.now(UTC))
    assert (await world.finding("requests"))["verdict"] == "good"

    rid = await world.request(late=timedelta(hours=1), expiry_sent_at=datetime.now(UTC))
    found = await world.finding("requests")
    assert (found["count"], found["examples"]) == (1, [f"acme {rid}"])
    assert "publisher has not closed" in found["says"]

    await world.order(rid, closed=True)
    assert "intake has not read" in (await world.finding("requests"))["says"]

    await world.request(late=timedelta(hours=2))
    found = await world.finding("requests")
    assert found["count"] == 2
    assert "intake's clock has sent no expiry for 1" in found["says"]


async def test_stalled_requests_and_late_outboxes_are_found(world: World) -> None:
    """Each lane has its own patience; a young row is no trouble."""
    await world.waiting("intake", "plain", timedelta(seconds=5))
    await world.waiting("publisher", "transactional", timedelta(seconds=5))
    assert {(await world.finding(name))["verdict"] for name in ("outboxes", "relay", "stalled")} == {"good"}

    await world.waiting("intake", "plain", timedelta(minutes=10))
    await world.waiting("publisher", "transactional", timedelta(minutes=1))
    rid = await world.request(stalled=True)
    assert (await world.finding("outboxes"))["says"] == "not sent: 2 of intake since 10 min"
    assert (await world.finding("relay"))["count"] == 2
    assert (await world.finding("stalled"))["fix"] == f"giclee dlq ls --request {rid}"


async def test_only_objects_that_nothing_speaks_of_are_orphans(world: World) -> None:
    """A fact, an asset, a claim, an open order or request, a foreign name or youth each keep an object."""
    ended = await world.request(outcome="approved", closed_at=datetime.now(UTC))
    order_id = await world.order(ended, closed=True)
    kept = [candidate_key(ended), f"assets/acme/{ended}/a/original-1.png"]
    await world.fact(order_id, kept[0])
    await world.asset(ended, {"image": {"key": kept[1]}})
    candidate, open_order, open_request = uuid.uuid4(), uuid.uuid4(), await world.request()
    await world.claim(ended, candidate)
    await world.order(open_order, closed=False)
    kept += [candidate_key(ended, candidate), candidate_key(open_order), candidate_key(open_request)]
    kept += ["candidates/backup.tar", "assets/acme/notes/readme/x.txt"]
    orphans = [candidate_key(ended), candidate_key(uuid.uuid4()), f"assets/acme/{ended}/b/original-2.png"]
    for key in (*kept, *orphans):
        world.put(key)
    young = candidate_key(ended)
    world.put(young, age=timedelta(hours=100))

    found = await world.finding("orphans")
    assert (found["count"], found["examples"]) == (3, sorted(orphans))

    assert await world.reconciler.delete_orphans(actor="ada", reason="tidy") == sorted(orphans)
    assert set(world.blobs.stored) == {*kept, young}
    assert (await world.finding("orphans"))["verdict"] == "good"


async def test_an_orphan_that_is_needed_again_is_not_deleted(world: World) -> None:
    """Between finding and deleting a request may have come back to its image."""
    rid = uuid.uuid4()
    key = candidate_key(rid)
    world.put(key)
    assert (await world.finding("orphans"))["count"] == 1
    await world.order(rid, closed=False)

    assert await world.reconciler.delete_orphans(actor="ada", reason="tidy") == []
    assert key in world.blobs.stored


async def test_the_listing_is_walked_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orphans on every page of both prefixes are found."""
    monkeypatch.setattr("giclee.replay.objects.PAGE", 3)
    for _ in range(10):
        world.put(candidate_key(uuid.uuid4()))
        world.put(f"assets/acme/{uuid.uuid4()}/a/original-1.png")
    assert (await world.finding("orphans"))["count"] == 20


async def test_approvals_whose_bytes_are_gone_or_others_are_found(world: World) -> None:
    """Every blob of an approval is read; all approvals have their turn, twenty a round."""
    rid = uuid.uuid4()
    for number in range(30):
        await world.asset(rid, {"image": world.put(f"assets/acme/{rid}/{number}/original-1.png"), "derivatives": []})
    assert [(await world.finding("approvals"))["verdict"] for _ in range(2)] == ["good", "good"]

    gone = world.put(f"assets/acme/{rid}/x/original-1.png")
    thumbnail = world.put(f"assets/acme/{rid}/x/thumbnail-1.webp")
    one = await world.asset(rid, {"image": gone, "derivatives": [{"role": "thumbnail", **thumbnail}]})
    del world.blobs.stored[gone["key"]]
    world.blobs.stored[thumbnail["key"]] = b"other"
    said = [(await world.finding("approvals")) for _ in range(2)]
    examples = [text for found in said for text in found["examples"]]
    assert len(examples) == 2
    assert all(text.startswith(str(one)) for text in examples)


async def test_a_part_that_is_away_makes_its_checks_unknown(database: str, world: World) -> None:
    """The report comes all the same, and says what could not be told."""
    await world.pool.close()
    report = await world.reconciler.look()
    assert report["verdict"] == "unknown"
    assert {row["check"] for row in report["checks"] if row["verdict"] == "good"} == {"switches"}
    assert all("cannot be told" in row["says"] for row in report["checks"] if row["verdict"] != "good")
