"""What waits under switches, over HTTP. Decides nothing."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query

from giclee.bus import database
from giclee.bus.database import Pool
from giclee.replay import selection

QUERIES = database.Queries(Path(__file__).with_name("held.sql"))


def routes(app: FastAPI, pool: Pool) -> None:
    """Add `/v1/held` to the operators' API; authentication and problems are the application's."""

    @app.get("/v1/held")
    async def held(
        scope: Annotated[str | None, Query(max_length=200)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str | None, Query()] = None,
    ) -> dict[str, Any]:
        """A page of held records, those first that wait longest."""
        try:
            after = selection.read_cursor(cursor)
        except ValueError as error:
            raise HTTPException(422, f"cursor {error}") from error
        with database.translated():
            rows = await pool.fetch(QUERIES.held_page, scope, *after, limit)
        more = selection.cursor_text(rows[-1]["held_at"], rows[-1]["held_id"]) if len(rows) == limit else None
        return {"items": [_shown(dict(row)) for row in rows], "next_cursor": more}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    named = {pair[0]: pair[1] for pair in row.pop("headers")}
    request_id = named.get("held-request-id") or named.get("ce_subject")
    shown: dict[str, Any] = {name: str(one) if isinstance(one, uuid.UUID) else one for name, one in row.items()}
    return {**shown, "held_at": row["held_at"].isoformat(), "request_id": request_id}
