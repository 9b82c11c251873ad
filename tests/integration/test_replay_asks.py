"""What the replay service asks its neighbours: real answers of the publisher's endpoint, and silence taken well."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI

from giclee.bus import database as bus_database
from giclee.bus.blobs import MemoryBlobs
from giclee.bus.probes import serving
from giclee.bus.settings import DatabaseSettings, ProcessSettings
from giclee.publisher.inquiries import Inquiries
from giclee.publisher.standing import Pace
from giclee.publisher.store import Store
from giclee.replay import calls_api
from giclee.replay.ask import Neighbours
from tests.kit.ops import client
from tests.kit.service_process import free_port

pytestmark = pytest.mark.real


async def test_the_publisher_says_how_orders_stand_and_which_images_are_there(database: str) -> None:
    """Open, closed with its outcome, or never heard of; another tenant's order of the same id is not told."""
    opened, closed, nobody = (str(uuid.uuid4()) for _ in range(3))
    bucket = MemoryBlobs()
    await bucket.put("candidates/acme/one", b"bytes", "image/png", width=1, height=1)
    port = free_port()
    async with bus_database.connect(DatabaseSettings(url=database, pool_max=4), schema="publisher") as pool:
        await pool.execute(
            "INSERT INTO publisher.orders (tenant, request_id, closed_at, outcome)"
            " VALUES ('acme', $1, NULL, NULL), ('acme', $2, now(), 'cancelled')",
            opened,
            closed,
        )
        asked = Inquiries(Store(pool, Pace(late_after_s=300), "http://x"), bucket)
        internal: Any = {"/internal/orders": asked.orders, "/internal/blobs": asked.blobs}
        async with serving(ProcessSettings(health_port=port), checks={}, alive={}, internal=internal):
            neighbours = Neighbours(f"http://127.0.0.1:{port}", {})
            keys = [("acme", opened), ("acme", closed), ("acme", nobody), ("zeta", opened)]
            orders = await neighbours.orders(keys)
            blobs = await neighbours.blobs(["candidates/acme/one", "candidates/acme/on"])

    assert [(orders[key]["state"], orders[key]["outcome"]) for key in keys] == [
        ("open", None),
        ("closed", "cancelled"),
        ("unheard", None),
        ("unheard", None),
    ]
    assert blobs == {"candidates/acme/one": True, "candidates/acme/on": False}


async def test_a_neighbour_that_is_away_makes_answers_unknown() -> None:
    """Not an error: operators act while half of the line is down."""
    neighbours = Neighbours(f"http://127.0.0.1:{free_port()}", {"local": "nonsense"})

    assert await neighbours.orders([("acme", str(uuid.uuid4()))]) == {}
    assert await neighbours.blobs(["key"]) == {}
    assert await neighbours.claims("local", [(str(uuid.uuid4()), 0)]) == {}
    assert await neighbours.claims("other", [(str(uuid.uuid4()), 0)]) == {}


async def test_the_ledger_is_asked_of_whichever_worker_answers() -> None:
    """One that is away is passed over; where none answers the operator is told so, and a question that makes no sense
    is refused before anybody is asked."""
    port, asked = free_port(), []

    async def calls(body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        return {"calls": [{"jobs": ["job-1"]}], "spent": []}

    away = {"local": f"http://127.0.0.1:{free_port()}"}
    app, deaf = FastAPI(), FastAPI()
    calls_api.routes(app, Neighbours(None, {**away, "hosted": f"http://127.0.0.1:{port}"}))
    calls_api.routes(deaf, Neighbours(None, away))
    internal: Any = {"/internal/calls": calls}
    async with serving(ProcessSettings(health_port=port), checks={}, alive={}, internal=internal), client(app) as http:
        query = {"provider": "fal", "state": "lost", "since": "2026-11-22T08:00:00Z", "limit": "5"}
        answer = await http.get("/v1/calls", params=query)
        assert (answer.status_code, answer.json()["items"]) == (200, [{"jobs": ["job-1"]}])
        for wrong in ({"state": "unheard"}, {"limit": "0"}, {"since": "2026-11-22T08:00:00"}, {"request": "x"}):
            assert (await http.get("/v1/calls", params=wrong)).status_code == 422
    (body,) = asked
    assert (body["provider"], body["state"], body["limit"]) == ("fal", "lost", 5)
    assert datetime.fromisoformat(body["since"]) == datetime(2026, 11, 22, 8, tzinfo=UTC)
    async with client(deaf) as http:
        assert (await http.get("/v1/calls")).status_code == 503
