"""The gate over HTTP: what was set over the built-in table and the operator's file, by whom and why. Decides nothing.

A threshold is an event on a compacted topic that every scorer follows; the audit has it first.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Query
from pydantic import Field, ValidationError

from giclee.bus.table import Table
from giclee.bus.transport import Send
from giclee.replay import placed_api
from giclee.replay.api import NOBODY, Actor
from giclee.replay.placed_api import Words, place_of, told
from giclee.replay.store import Store
from giclee.schemas.events import GateSet
from giclee.schemas.gates import GateRow

SET, CLEAR = "gate set", "gate clear"


class GateAsked(Words):
    """A threshold, or the place of one that is taken back."""

    row: GateRow | None = None
    place: Annotated[str, Field(min_length=1, max_length=80)] | None = None


def routes(app: FastAPI, table: Table[GateSet], store: Store, send: Send) -> None:
    """Add them to the operators' API."""

    @app.get("/v1/gate")
    async def listed() -> dict[str, Any]:
        """What is set now; everything else is as built in or in the operator's file."""
        rows = [one for _, one in sorted(table.rows.items()) if one.row is not None]
        return {"items": [one.model_dump(mode="json") for one in rows]}

    @app.put("/v1/gate")
    async def set_one(asked: Annotated[GateAsked, Body()], actor: Actor = NOBODY) -> dict[str, Any]:
        """Set a threshold or take one back; in force for images scored from then on."""
        place = place_of(asked.row, asked.place, table.rows, "giclee gate ls")
        try:
            event = GateSet(
                place=place, row=asked.row, reason=asked.reason, actor=asked.actor or actor, set_at=datetime.now(UTC)
            )
        except ValidationError as error:
            raise HTTPException(422, f"place {place}: {error.errors()[0]['msg']}") from error
        await told(event, table.rows, SET if asked.row else CLEAR, store, send)
        return event.model_dump(mode="json")

    @app.get("/v1/gate/history")
    async def history(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        """Who set what, and what it was before, newest first."""
        return await placed_api.history(store, (SET, CLEAR), limit)
