"""The reconciler's report over HTTP, and the one repair that asks for a person. Decides nothing."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, FastAPI, Header
from pydantic import BaseModel, ConfigDict, Field

from giclee.replay.reconcile import Reconciler


class OrphansAsked(BaseModel):
    """Delete the objects that the newest looks found nothing to need."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, Field(min_length=1, max_length=500)]


def routes(app: FastAPI, reconciler: Reconciler) -> None:
    """Add `/v1/doctor` to the operators' API; authentication and problems are the application's."""

    @app.get("/v1/doctor")
    async def report() -> dict[str, Any]:
        """A look at everything now: the worst verdict and one line per check."""
        return await reconciler.look()

    @app.post("/v1/doctor/delete-orphans")
    async def delete_orphans(
        asked: Annotated[OrphansAsked, Body()],
        actor: Annotated[str, Header(alias="X-Giclee-Actor", min_length=1, max_length=128)] = "api-key",
    ) -> dict[str, Any]:
        """Delete what nothing needs; each object is asked about again just before."""
        deleted = await reconciler.delete_orphans(actor=actor, reason=asked.reason)
        return {"deleted": len(deleted), "keys": deleted[:1000]}
