"""What the replay service asks its neighbours: real answers of the publisher's endpoint, and silence taken well."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from giclee.bus import database as bus_database
from giclee.bus.blobs import MemoryBlobs
from giclee.bus.probes import serving
from giclee.bus.settings import DatabaseSettings, ProcessSettings
from giclee.publisher.inquiries import Inquiries
from giclee.publisher.standing import Pace
from giclee.publisher.store import Store
from giclee.replay.ask import Neighbours
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
