"""Prices and providers over HTTP: what was set, by whom and why, and how everybody does. Decides nothing.

A price is an event on a compacted topic that every router follows; the audit has it first. How providers do is read
from their health; who is held or refused is a switch.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Query
from pydantic import Field, ValidationError

from giclee.bus.layers.switches import stops
from giclee.bus.table import Table
from giclee.bus.transport import Send
from giclee.replay import placed_api
from giclee.replay.api import NOBODY, Actor
from giclee.replay.placed_api import Words, place_of, told
from giclee.replay.store import Store
from giclee.schemas.events import PriceSet, ProviderHealth, SwitchSet
from giclee.schemas.prices import PriceRow

SET, CLEAR = "price set", "price clear"


class PriceAsked(Words):
    """A price, or the place of one that is taken back."""

    row: PriceRow | None = None
    place: Annotated[str, Field(min_length=1, max_length=160)] | None = None


def routes(app: FastAPI, table: Table[PriceSet], store: Store, send: Send) -> None:
    """Prices, added to the operators' API."""

    @app.get("/v1/prices")
    async def listed() -> dict[str, Any]:
        """What is set now, also what is past its time; everything else is as in the operator's file."""
        rows = [one for _, one in sorted(table.rows.items()) if one.row is not None]
        return {"items": [one.model_dump(mode="json", exclude_none=True) for one in rows]}

    @app.put("/v1/prices")
    async def set_one(asked: Annotated[PriceAsked, Body()], actor: Actor = NOBODY) -> dict[str, Any]:
        """Set a price or take one back; in force for what is routed from then on, until its `until`."""
        place, now = place_of(asked.row, asked.place, table.rows, "giclee price ls"), datetime.now(UTC)
        if asked.row is not None and asked.row.until is not None and asked.row.until <= now:
            raise HTTPException(422, f"until {asked.row.until.isoformat()} is over")
        try:
            event = PriceSet(place=place, row=asked.row, reason=asked.reason, actor=asked.actor or actor, set_at=now)
        except ValidationError as error:
            raise HTTPException(422, f"place {place}: {error.errors()[0]['msg']}") from error
        await told(event, table.rows, SET if asked.row else CLEAR, store, send)
        return event.model_dump(mode="json", exclude_none=True)

    @app.get("/v1/prices/history")
    async def history(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        """Who set what, and what it was before, newest first."""
        return await placed_api.history(store, (SET, CLEAR), limit)


def provider_routes(app: FastAPI, health: Table[ProviderHealth], switches: Table[SwitchSet]) -> None:
    """How providers do, added to the operators' API."""

    @app.get("/v1/providers")
    async def listed() -> dict[str, Any]:
        """Every provider that was ever heard of, with its models and the switch that stops it."""
        return {"items": [_provider(row, switches) for _, row in sorted(health.rows.items())]}

    @app.get("/v1/providers/{name}")
    async def shown(name: str) -> dict[str, Any]:
        """One of them."""
        if name not in health.rows:
            raise HTTPException(404, f"nobody has heard of provider {name}; `giclee providers ls` shows whom we know")
        return _provider(health.rows[name], switches)


def _provider(row: ProviderHealth, switches: Table[SwitchSet]) -> dict[str, Any]:
    switch, now = switches.rows.get(f"provider:{row.provider}"), datetime.now(UTC)
    stopped = switch if switch is not None and stops(switch, now) else None
    return {
        **row.model_dump(mode="json", exclude_none=True),
        "age_s": round((now - row.at).total_seconds(), 1),
        "switch": None if stopped is None else stopped.model_dump(mode="json", exclude_none=True),
        "released_at": switch.set_at.isoformat() if switch is not None and switch.mode == "clear" else None,
    }
