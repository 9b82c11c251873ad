"""A price that is set while the line runs: over HTTP, at a router, in the history; providers beside their switches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx2
import pytest

from giclee.bus.layers import codec
from giclee.bus.table import Table
from giclee.replay import price_api
from giclee.router.choose import Known, choose
from giclee.router.handle import now
from giclee.router.prices import Prices
from giclee.schemas.events import PriceSet, ProviderHealth
from tests.kit.ops import WHO, Ops, client, is_problem, working
from tests.kit.wait import until
from tests.unit.router.builders import SDXL, request, told

pytestmark = pytest.mark.real
ROW = {"provider": "own-gpu", "unit": "image", "usd": "0.02"}


@pytest.fixture
async def market(ops: Ops) -> AsyncIterator[tuple[httpx2.AsyncClient, Prices]]:
    """The API, and the prices of a router elsewhere."""
    here: Table[PriceSet] = Table(PriceSet, ops.transport)
    there: Table[PriceSet] = Table(PriceSet, ops.transport)
    health: Table[ProviderHealth] = Table(ProviderHealth, ops.transport)
    price_api.routes(ops.app, here, ops.store, ops.writer.send)
    price_api.provider_routes(ops.app, health, ops.table)
    async with working(here.follow, there.follow, health.follow, ops.table.follow), client(ops.app) as http:
        await asyncio.wait_for(there.caught_up.wait(), 10)
        yield http, Prices((), there.rows)


def asks(prices: Prices) -> Decimal:
    (hop,) = choose(
        request(closes_by=datetime.now(UTC) + timedelta(days=1)), Decimal(1), [SDXL], Known(prices=prices), now_s=now()
    ).chain
    return hop.price_usd


async def test_a_price_is_in_force_at_the_router_and_told_in_the_history(
    market: tuple[httpx2.AsyncClient, Prices],
) -> None:
    """Set, set again, taken back; who, why, and what it was before."""
    http, prices = market
    assert asks(prices) == SDXL.model.price_usd
    for usd in ("0.02", "0.03"):
        assert (await http.put("/v1/prices", json={**WHO, "row": {**ROW, "usd": usd}})).status_code == 200
    await until(lambda: asks(prices) == Decimal("0.03"))
    listed = (await http.get("/v1/prices")).json()["items"]
    assert (await http.put("/v1/prices", json={**WHO, "place": listed[0]["place"]})).status_code == 200
    await until(lambda: asks(prices) == SDXL.model.price_usd)
    history = (await http.get("/v1/prices/history")).json()["items"]

    assert [one["place"] for one in listed] == ["own-gpu/any/any/any"]
    assert [one["action"] for one in history] == ["price clear", "price set", "price set"]
    assert (history[0]["before"]["usd"], history[0]["after"], history[-1]["before"]) == ("0.03", None, None)


@pytest.mark.parametrize(
    "body",
    [
        {"row": {**ROW, "usd": "-1"}},
        {"row": {**ROW, "usd": "50"}},
        {"row": {**ROW, "unit": "token"}},
        {"row": {**ROW, "until": "2020-01-01T00:00:00Z"}},
        {"row": ROW, "place": "somewhere/else/any/any"},
        {},
    ],
)
async def test_nonsense_is_refused(market: tuple[httpx2.AsyncClient, Prices], body: dict[str, object]) -> None:
    """Negative, absurd, of no unit, over already, about another place, about nothing: 422, nothing is set."""
    http, _ = market
    is_problem(await http.put("/v1/prices", json={**WHO, **body}), 422)
    assert (await http.get("/v1/prices")).json()["items"] == []


async def test_providers_are_shown_beside_their_switch(market: tuple[httpx2.AsyncClient, Prices], ops: Ops) -> None:
    """As health tells of them, and what stops them; an unknown one is 404."""
    http, _ = market
    await ops.writer.send([codec.encode(told(SDXL, datetime.now(UTC), streak=2), source="test")])

    async def known() -> list[dict[str, object]]:
        found: list[dict[str, object]] = (await http.get("/v1/providers")).json()["items"]
        return found

    (row,) = await until(known, within_s=10)
    assert row["provider"] == "own-gpu" and row["switch"] is None
    await http.put("/v1/switches/provider:own-gpu", json={**WHO, "mode": "hold"})

    async def held() -> bool:
        return bool((await http.get("/v1/providers/own-gpu")).json()["switch"])

    await until(held, within_s=10)
    is_problem(await http.get("/v1/providers/nobody"), 404)
