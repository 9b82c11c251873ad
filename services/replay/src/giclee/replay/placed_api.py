"""What an operator sets at a place, a threshold or a price: asked, noted, told, and what it was before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field

from giclee.bus.layers import codec
from giclee.bus.transport import Send
from giclee.replay.api import Reason
from giclee.replay.store import Note, Store
from giclee.schemas.events import PlacedEvent


class Row(Protocol):
    """A row that stands at a place."""

    def place(self) -> str: ...


class Words(BaseModel):
    """Why, and by whom; absent: who calls."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Reason
    actor: Annotated[str, Field(min_length=1, max_length=128)] | None = None


def place_of(row: Row | None, place: str | None, rows: Mapping[str, PlacedEvent], listing: str) -> str:
    """Where it is set or taken back. Errors: HTTPException; `listing` is the command that shows what is set."""
    found = row.place() if row is not None else place
    if found is None or (row is not None and place not in (None, found)):
        raise HTTPException(422, "say row, or the place of the row that is taken back")
    if row is None and (found not in rows or rows[found].row is None):
        raise HTTPException(404, f"nothing is set at {found}; `{listing}` shows what is")
    return found


async def told(event: PlacedEvent, rows: Mapping[str, PlacedEvent], deed: str, store: Store, send: Send) -> None:
    """Note who set what and what it was before, then tell it."""
    before = rows[event.place].row if event.place in rows else None
    details = {"place": event.place, "before": _plain(before), "after": _plain(event.row)}
    await store.note(Note(event.actor, deed, event.reason), details)
    await send([codec.encode(event, source="giclee/replay")])


async def history(store: Store, deeds: tuple[str, ...], limit: int) -> dict[str, Any]:
    """Who set what, and what it was before, newest first."""
    rows = await store.deeds(deeds, limit)
    return {"items": [{**dict(row["details"]), "at": row["at"].isoformat(), "actor": row["actor"],
                       "action": row["action"], "reason": row["reason"]} for row in rows]}  # fmt: skip


def _plain(row: BaseModel | None) -> dict[str, Any] | None:
    return None if row is None else row.model_dump(mode="json", exclude_none=True)
