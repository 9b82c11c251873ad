"""A publisher on a real database without a broker: events in by hand, outbox rows read back as events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx2
from pydantic import SecretStr

from giclee.bus import database
from giclee.bus.blobs import MemoryBlobs
from giclee.bus.settings import DatabaseSettings
from giclee.publisher import api
from giclee.publisher.derive import deriving
from giclee.publisher.handle import handle
from giclee.publisher.seal import Sealer
from giclee.publisher.standing import Pace
from giclee.publisher.store import Store
from giclee.publisher.sweep import Sweeper
from giclee.schemas.events import (
    EVENTS,
    CandidatesRequested,
    Event,
    ImageApproved,
    ImageGenerated,
    RequestClosed,
)
from tests.unit.publisher.builders import Request, delivered, picture

PUBLIC_URL = "https://giclee.example"
KEY = "a-key-of-at-least-16"
E = TypeVar("E", bound=Event)


class Desk:
    """One replica of the publisher. `blobs` may be shared between replicas, as a bucket is."""

    def __init__(self, pool: database.Pool, blobs: MemoryBlobs, sealer: Sealer) -> None:
        self.pool = pool
        self.blobs = blobs
        self.sealer = sealer
        self.store = Store(pool, Pace(), PUBLIC_URL)
        self.sweeper = Sweeper(self.store, sealer, 0.05)

    async def tell(self, *events: Event) -> None:
        """Handle events one after the other; the image of a generated one is put where it says."""
        for event in events:
            if isinstance(event, ImageGenerated):
                body = picture(event.index + 1000 * event.hop, event.request_id)
                self.blobs.stored.setdefault(event.image.key, body)
            assert await handle(delivered(event), store=self.store, sealer=self.sealer) == ()

    async def emitted(self, request: Request | None = None) -> list[Event]:
        """Everything in the outbox, in order, as events."""
        rows = await self.pool.fetch(
            """SELECT headers, value FROM publisher.outbox
            WHERE $1::text IS NULL OR headers->>'ce_subject' = $1 ORDER BY id""",
            None if request is None else str(request.id),
        )
        return [EVENTS[row["headers"]["ce_type"]].model_validate_json(row["value"]) for row in rows]

    async def _of(self, kind: type[E], request: Request | None) -> list[E]:
        return [event for event in await self.emitted(request) if isinstance(event, kind)]

    async def closings(self, request: Request | None = None) -> list[RequestClosed]:
        return await self._of(RequestClosed, request)

    async def closing(self, request: Request) -> RequestClosed:
        """The one closing. Errors: ValueError unless there is exactly one."""
        (closed,) = await self.closings(request)
        return closed

    async def approvals(self, request: Request | None = None) -> list[ImageApproved]:
        return await self._of(ImageApproved, request)

    async def waves(self, request: Request) -> list[tuple[int, int, int]]:
        """Number, first index and count of every wave asked for."""
        return [(w.wave, w.first_index, w.count) for w in await self._of(CandidatesRequested, request)]

    async def age(self, request: Request, seconds: float) -> None:
        """Let time pass for an order: everything known of it happened so much earlier."""
        key = (request.tenant, request.id, seconds)
        which = "(SELECT id FROM publisher.orders WHERE tenant = $1 AND request_id = $2)"
        ago = "make_interval(secs => $3)"
        await self.pool.execute(f"UPDATE publisher.facts SET at = at - {ago} WHERE order_id = {which}", *key)
        await self.pool.execute(
            f"""UPDATE publisher.facts SET says = jsonb_set(
                    says, '{{closes_by}}', to_jsonb((says->>'closes_by')::timestamptz - {ago}))
                WHERE kind = 'verdict' AND says ? 'closes_by' AND order_id = {which}""",
            *key,
        )
        await self.pool.execute(
            f"UPDATE publisher.orders SET opened_at = opened_at - {ago}, wake_at = wake_at - {ago} WHERE id = {which}",
            *key,
        )

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        return await self.pool.fetchval(sql, *arguments)


@asynccontextmanager
async def desk(url: str, blobs: MemoryBlobs | None = None, *, pool_max: int = 4) -> AsyncIterator[Desk]:
    """A replica on the database at `url`."""
    settings = DatabaseSettings(url=SecretStr(url), pool_max=pool_max)
    store = blobs if blobs is not None else MemoryBlobs()
    async with database.connect(settings, schema="publisher") as pool, deriving() as deriver:
        yield Desk(pool, store, Sealer(store, deriver))


def request(**asked: Any) -> Request:
    """A request that closes in three days, unless `closes_in_s` says otherwise."""
    return Request(closes_by=datetime.now(UTC) + timedelta(seconds=asked.pop("closes_in_s", 259_200)), **asked)


@asynccontextmanager
async def client(publisher: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of its API, with the key."""
    app = api.application(publisher.store, publisher.blobs, api_key=KEY, link_s=60)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://assets", headers=headers) as made:
        yield made
