"""Intake on a real database without a broker: HTTP through the ASGI application, events by hand, outbox read back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import httpx2
from pydantic import SecretStr

from giclee.bus import database
from giclee.bus.gather import Gathered
from giclee.bus.settings import DatabaseSettings
from giclee.intake import api
from giclee.intake.ask_scorer import ScorerCalls
from giclee.intake.bodies import Linker
from giclee.intake.clock import Clock
from giclee.intake.evaluation import Evaluator
from giclee.intake.handle import handle
from giclee.intake.projection import Projection
from giclee.intake.quote import Quoter
from giclee.intake.store import Store
from giclee.intake.stream import Bell
from giclee.schemas.events import EVENTS, Event, SwitchSet
from tests.unit.intake.builders import Line

API_KEY = "a-key-of-sixteen-characters"
URL = "https://giclee.example"
EVALUATIONS_MAX = 2
TTL = timedelta(hours=72)
Answer = httpx2.Response


class Said(NamedTuple):
    """One server-sent event."""

    id: int
    event: str
    body: dict[str, Any]


class Desk:
    """One replica of intake, with a client that holds the key."""

    def __init__(self, pool: database.Pool, quoter: Quoter | None = None, scorer: ScorerCalls | None = None) -> None:
        self.pool = pool
        self.bell = Bell()
        self.store = Store(pool, TTL)
        self.projection = Projection(pool, self.bell, TTL)
        self.switches: dict[str, SwitchSet] = {}
        self.clock = Clock(self.store, self.projection, self.switches)
        self._apply = Gathered(self.projection.apply, 64)
        linker = Linker(URL, "https://assets.example")
        self.evaluator = Evaluator(self.store, scorer or ScorerCalls(None, 1), EVALUATIONS_MAX)
        desk = api.Desk(self.store, quoter or Quoter(None, None, 1), self.bell, linker, self.evaluator)
        self.app = api.application(desk, api_key=API_KEY)
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {API_KEY}"}
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://intake", headers=headers)

    async def tell(self, *events: Event) -> None:
        """Handle events side by side, as the loop does."""
        answers = await asyncio.gather(*(handle(event, apply=self._apply) for event in events))
        assert all(answer == () for answer in answers)

    async def post(self, body: Any, **headers: str) -> Answer:
        """POST /v1/requests with a JSON body, or with raw bytes as they are."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | {n.replace("_", "-"): text for n, text in headers.items()}
        return await self.http.post("/v1/requests", content=raw, headers=headers)

    async def accepted(self, line: Line) -> None:
        """Accept the request of a line over HTTP."""
        answer = await self.post(line.request.model_dump(mode="json", exclude_none=True))
        assert answer.status_code == 202, answer.text

    async def shown(self, request_id: Any) -> dict[str, Any]:
        """The body of GET /v1/requests/{id}."""
        answer = await self.http.get(f"/v1/requests/{request_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def listed(self, query: str = "") -> list[str]:
        """The ids of all pages of a list, in their order."""
        found, cursor = [], ""
        while True:
            answer = await self.http.get(f"/v1/requests?{query}{cursor}")
            assert answer.status_code == 200, answer.text
            found += [row["request_id"] for row in answer.json()["items"]]
            if answer.json()["next_cursor"] is None:
                return found
            cursor = f"&cursor={answer.json()['next_cursor']}"

    async def heard(self, request_id: Any, after: int | None = None) -> Sequence[Said]:
        """Everything that the event stream says until it ends."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        async with asyncio.timeout(15):
            answer = await self.http.get(f"/v1/requests/{request_id}/events", headers=headers)
        assert answer.status_code == 200, answer.text
        said = []
        for block in answer.text.replace("\r\n", "\n").split("\n\n"):
            fields = dict(row.split(": ", 1) for row in block.split("\n") if ": " in row and not row.startswith(":"))
            if "event" in fields:
                said.append(Said(int(fields["id"]), fields["event"], json.loads(fields["data"])))
        return said

    async def sent(self, line: Line | None = None) -> list[Any]:
        """Everything in the outbox, in order, as events."""
        rows = await self.pool.fetch("SELECT headers, value FROM intake.outbox ORDER BY id")
        events = [EVENTS[row["headers"]["ce_type"]].model_validate_json(row["value"]) for row in rows]
        return [event for event in events if line is None or getattr(event, "request_id", None) == line.id]

    async def overdue(self, line: Line, by: timedelta = timedelta(minutes=1)) -> None:
        """Move the closing time of a request into the past, and its last expiry with it."""
        late = "closes_by = clock_timestamp() - $2::interval, expiry_sent_at = expiry_sent_at - interval '61 minutes'"
        await self.pool.execute(f"UPDATE intake.requests SET {late} WHERE request_id = $1", line.id, by)


@asynccontextmanager
async def opened(
    database_url: str, quoter: Quoter | None = None, scorer: ScorerCalls | None = None
) -> AsyncIterator[Desk]:
    """A desk on a migrated database."""
    settings = DatabaseSettings(url=SecretStr(database_url), pool_max=6, statement_timeout_s=15)
    async with database.connect(settings, schema="intake") as pool:
        desk = Desk(pool, quoter, scorer)
        async with desk.http:
            yield desk
