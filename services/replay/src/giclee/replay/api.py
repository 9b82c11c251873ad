"""The operators' API: dead letters listed, shown, put back and set aside; switches listed and set. Decides nothing."""

from __future__ import annotations

import hmac
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Body, Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from giclee.replay import export, problems, selection, shapes
from giclee.replay.desk import Desk
from giclee.replay.ledger import Order
from giclee.replay.patch import Operation
from giclee.replay.selection import Selection
from giclee.replay.switches import Switches
from giclee.schemas.events import SwitchSet
from giclee.schemas.parts import Usd

Actor = Annotated[str, Header(alias="X-Giclee-Actor", min_length=1, max_length=128)]
NOBODY = "api-key"
Reason = Annotated[str, Field(min_length=1, max_length=500)]


class Which(BaseModel):
    """The letters a body means: those named, or those selected; all of them only where `all` says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: Annotated[list[uuid.UUID], Field(max_length=1000)] = []
    selection: Selection = Selection()
    all: bool = False
    limit: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000_000

    def named(self) -> list[uuid.UUID] | None:
        return self.ids or None

    def insist(self) -> None:
        """Errors: HTTPException where nothing was narrowed."""
        if not self.ids and not self.all and self.selection.is_everything():
            raise HTTPException(422, "name dead letters, narrow the selection, or say all: true")


class Preflighted(Which):
    """What a dry run asks."""

    again: bool = False
    max_cost_usd: Usd | None = None
    patch: Annotated[list[Operation], Field(max_length=100)] | None = None

    def order(self, **more: Any) -> Order:
        """The run that would be started."""
        patch = [one.model_dump(mode="json", by_alias=True, exclude_none=False) for one in self.patch or ()]
        return Order(
            selection=self.selection, ids=self.named(), limit=self.limit, again=self.again,
            max_cost_usd=self.max_cost_usd, patch=patch or None, **more,
        )  # fmt: skip


class RunAsked(Preflighted):
    """A replay run."""

    reason: Reason
    canary: Annotated[int, Field(ge=0, le=1000)] = 0
    rate_per_s: Annotated[float, Field(gt=0, le=100_000)] | None = None


class Deed(Which):
    """Something done to letters, for a reason."""

    reason: Reason


class Why(BaseModel):
    """The reason for steering a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Reason


class SwitchAsked(BaseModel):
    """Set or clear a switch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["hold", "refuse", "clear"]
    reason: Reason
    actor: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    expires_at: AwareDatetime | None = None


def application(desk: Desk, switches: Switches, *, api_key: str) -> FastAPI:
    """The ASGI application; `api_key` is the bearer key that every route asks for."""

    async def authenticated(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), api_key.encode()):
            raise HTTPException(401, "send Authorization: Bearer <key>")

    app = FastAPI(title="Giclee operations", version="1.0.0", dependencies=[Depends(authenticated)])
    problems.answer_problems(app)
    _looking_routes(app, desk)
    _letter_routes(app, desk)
    _doing_routes(app, desk)
    _run_routes(app, desk)
    _switch_routes(app, switches)
    return app


def _looking_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/v1/dead-letters")
    async def listed(
        request: Request,
        limit: Annotated[int, Query(ge=0, le=200)] = 50,
        cursor: Annotated[str | None, Query()] = None,
    ) -> dict[str, Any]:
        """A page of dead letters, newest first, with counts of everything selected."""
        wanted = _selection_from(request)
        try:
            rows = await desk.store.page(wanted, cursor, limit) if limit else []
        except ValueError as error:
            raise HTTPException(422, f"cursor {error}") from error
        more = selection.cursor_text(rows[-1]["died_at"], rows[-1]["dlq_id"]) if rows and len(rows) == limit else None
        counts = await desk.store.counts(wanted)
        return {
            "counts": counts or [],
            "counts_partial": counts is None,
            "items": [shapes.letter(row) for row in rows],
            "next_cursor": more,
        }

    @app.get("/v1/dead-letters/stats")
    async def clusters(request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> dict[str, Any]:
        """Dead letters by cause, most first."""
        found = await desk.store.clusters(_selection_from(request), limit)
        return {"items": [shapes.cluster(row) for row in found or ()], "partial": found is None}

    @app.get("/v1/dead-letters/export")
    async def exported(
        request: Request,
        form: Annotated[Literal["jsonl", "records", "csv"], Query()] = "jsonl",
        limit: Annotated[int, Query(ge=1, le=1_000_000)] = 1_000_000,
    ) -> StreamingResponse:
        """A stream of everything selected, oldest first."""
        lines = export.lines(desk.store, desk.preflight, _selection_from(request), form=form, limit=limit)
        kind = "text/csv; charset=utf-8" if form == "csv" else "application/x-ndjson"
        return StreamingResponse(lines, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})

    @app.get("/v1/audit")
    async def audited(
        dlq_id: uuid.UUID | None = None,
        run: uuid.UUID | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        """Who did what, newest first."""
        rows = await desk.store.audited(dlq_id, [run] if run else None, limit)
        return {"items": [shapes.deed(row) for row in rows]}


def _letter_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/v1/dead-letters/{dlq_id}")
    async def shown(dlq_id: uuid.UUID) -> dict[str, Any]:
        """One dead letter with its bytes, decoded where they are JSON, and its history."""
        found = await desk.in_full(dlq_id)
        if found is None:
            raise HTTPException(404, f"there is no dead letter {dlq_id}")
        return found

    @app.post("/v1/dead-letters/preflight")
    async def preflighted(asked: Annotated[Preflighted, Body()]) -> dict[str, Any]:
        """What a run would do, without doing it."""
        return await desk.dry_run(asked.order())


def _doing_routes(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/dead-letters/park")
    async def park(asked: Annotated[Deed, Body()], actor: Actor = NOBODY) -> dict[str, Any]:
        """Set open letters aside; ends nothing."""
        asked.insist()
        return await desk.set_aside("park", asked.selection, asked.named(), asked.limit, by=(actor, asked.reason))

    @app.post("/v1/dead-letters/release")
    async def release(asked: Annotated[Deed, Body()], actor: Actor = NOBODY) -> dict[str, Any]:
        """Open parked letters again."""
        asked.insist()
        return await desk.set_aside("release", asked.selection, asked.named(), asked.limit, by=(actor, asked.reason))

    @app.post("/v1/dead-letters/discard", status_code=202)
    async def discard(asked: Annotated[Deed, Body()], actor: Actor = NOBODY) -> dict[str, Any]:
        """Give letters up: the stage that failed decides what that ends."""
        asked.insist()
        order = Order(action="discard", selection=asked.selection, ids=asked.named(), limit=asked.limit)
        return await desk.start(order, actor, asked.reason)


def _run_routes(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/runs", status_code=202)
    async def started(asked: Annotated[RunAsked, Body()], actor: Actor = NOBODY) -> dict[str, Any]:
        """Put letters back: what is selected now is frozen, and sent from now on."""
        asked.insist()
        order = asked.order(canary=asked.canary, rate_per_s=asked.rate_per_s)
        return await desk.start(order, actor, asked.reason)

    @app.get("/v1/runs")
    async def listed(
        state: Annotated[str | None, Query(max_length=16)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    ) -> dict[str, Any]:
        """Runs, newest first."""
        rows = await desk.ledger.page(state, cursor, limit)
        more = str(rows[-1]["number"]) if len(rows) == limit else None
        return {"items": [shapes.run(row) for row in rows], "next_cursor": more}

    @app.get("/v1/runs/{run_id}")
    async def shown(run_id: uuid.UUID) -> dict[str, Any]:
        """A run as it stands."""
        return await _run_of(desk, run_id)

    @app.post("/v1/runs/{run_id}/{verb}")
    async def steered(
        run_id: uuid.UUID,
        verb: Literal["pause", "resume", "abort"],
        asked: Annotated[Why, Body()],
        actor: Actor = NOBODY,
    ) -> dict[str, Any]:
        """Pause, resume or abort a run."""
        before = await _run_of(desk, run_id)
        if not await desk.runs.steer(run_id, verb, actor, asked.reason):
            raise HTTPException(409, f"cannot {verb}: the run is {before['state']}")
        return await _run_of(desk, run_id)


async def _run_of(desk: Desk, run_id: uuid.UUID) -> dict[str, Any]:
    row = await desk.ledger.one(run_id)
    if row is None:
        raise HTTPException(404, f"there is no run {run_id}")
    return shapes.run(row)


def _selection_from(request: Request) -> Selection:
    own = ("limit", "cursor", "form")
    named = {name: value for name, value in request.query_params.items() if name not in own}
    try:
        return Selection.model_validate(named)
    except ValidationError as error:
        first = error.errors()[0]
        raise HTTPException(422, f"query parameter {first['loc'][0]}: {first['msg']}") from error


def _switch_routes(app: FastAPI, switches: Switches) -> None:
    @app.get("/v1/switches")
    async def listed() -> dict[str, Any]:
        """Every switch that is set, and how many records wait under it."""
        return {"items": await switches.listed()}

    @app.put("/v1/switches/{scope}")
    async def set_one(scope: str, asked: Annotated[SwitchAsked, Body()], actor: Actor = NOBODY) -> dict[str, Any]:
        """Set or clear a switch; every stage honours it within two seconds."""
        named = {**asked.model_dump(), "actor": asked.actor or actor}
        try:
            switch = SwitchSet(scope=scope, set_at=datetime.now(UTC), **named)
        except ValidationError as error:
            raise HTTPException(422, f"scope {scope}: {error.errors()[0]['msg']}") from error
        await switches.set(switch)
        return switch.model_dump(mode="json", exclude_none=True)
