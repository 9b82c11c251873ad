"""What waits under switches, listed over HTTP from a real database."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from giclee.bus import database as bus_database
from giclee.bus.database import Pool
from giclee.bus.settings import DatabaseSettings
from giclee.replay import held_api, problems

pytestmark = pytest.mark.real


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with bus_database.connect(DatabaseSettings(url=database), schema="replay") as opened:
        yield opened


@pytest.fixture
async def http(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI()
    problems.answer_problems(app)
    held_api.routes(app, pool)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://ops") as client:
        yield client


async def hold(pool: Pool, scope: str, minutes_ago: int) -> str:
    """A record held by a switch; its request id."""
    request_id = str(uuid.uuid4())
    headers = [["held-request-id", request_id], ["held-scope", scope]]
    at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    await pool.execute(
        "INSERT INTO replay.held (held_id, stage, scope, topic, value, headers, held_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7)",
        uuid.uuid4(), "policy", scope, "image.requested.v1", b"{}", headers, at,
    )  # fmt: skip
    return request_id


async def test_every_held_record_is_on_one_page_the_longest_waiting_first(pool: Pool, http: httpx2.AsyncClient) -> None:
    """Page after page, for all switches or for one."""
    wanted = [await hold(pool, "all" if number % 2 else "tenant:acme", 60 - number) for number in range(5)]
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await http.get("/v1/held", params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        found, cursor = found + page["items"], page["next_cursor"]

    assert [row["request_id"] for row in found] == wanted
    assert {(row["stage"], row["topic"], row["size_bytes"]) for row in found} == {("policy", "image.requested.v1", 2)}
    of_all = (await http.get("/v1/held", params={"scope": "all"})).json()["items"]
    assert [row["request_id"] for row in of_all] == wanted[1::2]


async def test_a_cursor_of_another_list_is_a_problem(http: httpx2.AsyncClient) -> None:
    """It is not taken for the beginning."""
    answer = await http.get("/v1/held", params={"cursor": "nonsense"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
