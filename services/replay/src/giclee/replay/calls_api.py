"""What calls at providers that bill came to, over HTTP: the workers' ledger, asked of a worker. Decides nothing."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query
from pydantic import AwareDatetime

from giclee.replay.ask import Neighbours

State = Literal["open", "lost", "again", "untold", "differs"]


def routes(app: FastAPI, neighbours: Neighbours) -> None:
    """The ledger, added to the operators' API."""

    @app.get("/v1/calls")
    async def listed(
        provider: Annotated[str | None, Query(max_length=64)] = None,
        request: uuid.UUID | None = None,
        candidate: uuid.UUID | None = None,
        state: State | None = None,
        since: AwareDatetime | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> dict[str, Any]:
        """The newest calls that fit, and what all calls since then cost (of that provider, if one is named)."""
        named = {"provider": provider, "request_id": request, "candidate_id": candidate, "state": state, "since": since}
        asked = {name: str(one) for name, one in named.items() if one is not None}
        found = await neighbours.calls({**asked, "limit": limit})
        if found is None:
            raise HTTPException(503, "no worker answers; GICLEE_REPLAY_WORKER_URLS names those that are asked")
        return {"items": found["calls"], "spent": found["spent"]}
