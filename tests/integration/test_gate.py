"""A threshold that is set while the line runs: over HTTP, at the scorer, in the history; and what it would change."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from giclee.bus import database as bus_database
from giclee.bus.settings import DatabaseSettings
from giclee.bus.table import Table
from giclee.replay import gate_api
from giclee.schemas.events import GateSet, ImageScored
from giclee.scorer import whatif
from giclee.scorer.gate import Gates
from giclee.scorer.store import Store
from tests.kit.ops import WHO, Ops, client, is_problem, working
from tests.kit.wait import until
from tests.unit.scorer.test_compare import scored

pytestmark = pytest.mark.real
ROW = {"dimension": "alignment", "pass_at": 0.9, "doubt_at": 0.5}


@pytest.fixture
async def told(ops: Ops) -> AsyncIterator[tuple[httpx2.AsyncClient, Gates]]:
    """The API, and the gate of a scorer elsewhere."""
    here: Table[GateSet] = Table(GateSet, ops.transport)
    there: Table[GateSet] = Table(GateSet, ops.transport)
    gate_api.routes(ops.app, here, ops.store, ops.writer.send)
    async with working(here.follow, there.follow), client(ops.app) as http:
        await asyncio.wait_for(there.caught_up.wait(), 10)
        yield http, Gates(there.rows)


async def test_a_threshold_is_in_force_at_the_scorer_and_told_in_the_history(
    told: tuple[httpx2.AsyncClient, Gates],
) -> None:
    """Set, changed for one asset type, taken back; who, why, and what it was before."""
    http, gates = told
    first = gates.now().version
    narrow = {**ROW, "asset_type": "email-hero", "pass_at": 0.95}
    for row in (ROW, narrow):
        assert (await http.put("/v1/gate", json={**WHO, "row": row})).status_code == 200
    await until(lambda: len([row for row in gates.now().table if row.dimension == "alignment"]) == 2)
    assert gates.now().version != first
    listed = (await http.get("/v1/gate")).json()["items"]
    for place in ("any/alignment/any", "email-hero/alignment/any"):
        assert (await http.put("/v1/gate", json={**WHO, "place": place})).status_code == 200
    await until(lambda: gates.now().version == first)
    history = (await http.get("/v1/gate/history")).json()["items"]

    assert {one["place"] for one in listed} == {"any/alignment/any", "email-hero/alignment/any"}
    assert [one["action"] for one in history] == ["gate clear", "gate clear", "gate set", "gate set"]
    assert (history[0]["before"]["pass_at"], history[0]["after"], history[-1]["before"]) == (0.95, None, None)
    assert {one["actor"] for one in history} == {"ada"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({**WHO}, 422),
        ({**WHO, "row": {**ROW, "pass_at": "high"}}, 422),
        ({**WHO, "row": {**ROW, "doubt_at": 1}}, 422),
        ({**WHO, "row": {**ROW, "threshold": 1}}, 422),
        ({**WHO, "row": {**ROW, "asset_type": "A B"}}, 422),
        ({**WHO, "row": ROW, "place": "any/safety/any"}, 422),
        ({**WHO, "place": "any/alignment/any"}, 404),
        ({"row": ROW}, 422),
    ],
)
async def test_what_makes_no_sense_is_a_problem(
    told: tuple[httpx2.AsyncClient, Gates], body: dict[str, Any], status: int
) -> None:
    """Nothing is published and nothing is in the history."""
    http, gates = told
    before = gates.now().version
    is_problem(await http.put("/v1/gate", json=body), status)
    assert (await http.get("/v1/gate/history")).json()["items"] == []
    assert gates.now().version == before


async def test_what_a_threshold_would_change_is_read_from_stored_verdicts(database: str) -> None:
    """No model is called: the verdicts of the last hours are judged again."""
    passing = dict.fromkeys(("format", "content", "sharpness", "exposure", "compression", "safety"), 1.0)
    stored = [scored(alignment=value, **passing) for value in (0.95, 0.8, 0.3)]
    async with bus_database.connect(DatabaseSettings(url=database), schema="scorer") as pool:
        for number, one in enumerate(stored):
            await Store(pool).keep(ImageScored.model_validate({**one.model_dump(), "sha256": f"{number:064x}"}))
        await pool.execute(
            "UPDATE scorer.verdicts SET scored_at = scored_at - interval '2 hours' WHERE sha256 LIKE '%2'"
        )
    asked = {"other": [ROW], "since_h": 1}
    found = await whatif.differing(asked, None, database)

    assert found["looked_at"] == 2
    assert found["verdicts"] == [
        {"before": "pass", "after": "pass", "count": 1},
        {"before": "pass", "after": "unsure", "count": 1},
    ]
    assert uuid.UUID(found["changes"][0]["candidate_id"]) == stored[1].candidate_id
    assert found["version"] != found["other_version"]


async def test_two_gates_are_compared_on_stored_verdicts(database: str, tmp_path: Path) -> None:
    """A file against what is now: what changes by asset type and dimension, how much passes, and which images."""
    passing = dict.fromkeys(("format", "content", "sharpness", "exposure", "compression", "safety"), 1.0)
    tiles = [scored(alignment=value, **passing) for value in (0.95, 0.8, 0.3)]
    stored = [*tiles, scored(alignment=0.95, **passing).model_copy(update={"asset_type": "hero"})]
    async with bus_database.connect(DatabaseSettings(url=database), schema="scorer") as pool:
        for number, one in enumerate(stored):
            await Store(pool).keep(one.model_copy(update={"sha256": f"{number:064x}"}))
    stricter = tmp_path / "gate.toml"
    stricter.write_text('[[gate]]\ndimension = "alignment"\npass_at = 0.9\ndoubt_at = 0.5\n')
    asked = {"a": "now", "b": str(stricter), "since_h": 1}
    found = await whatif.compared(asked, None, database)
    heroes = await whatif.compared({**asked, "asset_type": "hero"}, None, database)

    assert found["acceptance"] == [
        {"asset_type": "generic", "images": 3, "a": 0.6667, "b": 0.3333},
        {"asset_type": "hero", "images": 1, "a": 1.0, "b": 1.0},
    ]
    assert (found["newly_refused"], found["newly_approved"]) == ([{"dimension": "alignment", "count": 1}], [])
    assert [one["candidate_id"] for one in found["changes"]] == [str(stored[1].candidate_id)]
    assert (heroes["looked_at"], heroes["changes"]) == (1, [])
    assert found["a"]["version"] != found["b"]["version"]
