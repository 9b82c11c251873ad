"""The gate over HTTP: what was set over the built-in table and the operator's file, by whom and why. Decides nothing.

A threshold is an event on a compacted topic that every scorer follows; the audit has it first.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from giclee.bus.layers import codec
from giclee.bus.table import Table
from giclee.bus.transport import Send
from giclee.replay.api import NOBODY, Actor, Reason
from giclee.replay.store import Note, Store
from giclee.schemas.events import GateSet
from giclee.schemas.gates import GateRow

SET, CLEAR = "gate set", "gate clear"


class GateAsked(BaseModel):
    """A threshold, or the place of one that is taken back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row: GateRow | None = None
    place: Annotated[str, Field(min_length=1, max_length=80)] | None = None
    reason: Reason
    actor: Annotated[str, Field(min_length=1, max_length=128)] | None = None


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
        place = asked.row.place() if asked.row is not None else asked.place
        if place is None or (asked.row is not None and asked.place not in (None, place)):
            raise HTTPException(422, "say row, or the place of the row that is taken back")
        if asked.row is None and (place not in table.rows or table.rows[place].row is None):
            raise HTTPException(404, f"nothing is set at {place}; `giclee gate ls` shows what is")
        try:
            event = GateSet(
                place=place, row=asked.row, reason=asked.reason, actor=asked.actor or actor, set_at=datetime.now(UTC)
            )
        except ValidationError as error:
            raise HTTPException(422, f"place {place}: {error.errors()[0]['msg']}") from error
        before = table.rows[place].row if place in table.rows else None
        details = {"place": place, "before": _plain(before), "after": _plain(asked.row)}
        await store.note(Note(event.actor, SET if asked.row else CLEAR, asked.reason), details)
        await send([codec.encode(event, source="giclee/replay")])
        return event.model_dump(mode="json")

    @app.get("/v1/gate/history")
    async def history(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        """Who set what, and what it was before, newest first."""
        rows = await store.deeds((SET, CLEAR), limit)
        return {"items": [{**dict(row["details"]), "at": row["at"].isoformat(), "actor": row["actor"],
                           "action": row["action"], "reason": row["reason"]} for row in rows]}  # fmt: skip


def _plain(row: GateRow | None) -> dict[str, Any] | None:
    return None if row is None else row.model_dump(mode="json", exclude_none=True)
