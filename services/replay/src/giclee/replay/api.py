"""The operators' API: dead letters listed, shown and put back; switches listed and set. Decides nothing."""

from __future__ import annotations

import base64
import hmac
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Body, Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from giclee.bus.errors import Poison, Transient
from giclee.bus.layers import codec
from giclee.replay import selection
from giclee.replay.runs import Runs
from giclee.replay.selection import Selection
from giclee.replay.store import Store, record_of
from giclee.replay.switches import Switches
from giclee.schemas import strict
from giclee.schemas.events import SwitchSet

CODES = {401: "unauthenticated", 404: "not_found", 405: "method_not_allowed", 422: "invalid_field", 503: "unavailable"}


class ReplayAsked(BaseModel):
    """Put dead letters back: those named, or those selected; all of them only where `everything` says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: Annotated[list[uuid.UUID], Field(max_length=1000)] = []
    selection: Selection = Selection()
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    actor: Annotated[str, Field(min_length=1, max_length=128)]
    everything: bool = False
    dry_run: bool = False
    again: bool = False


class SwitchAsked(BaseModel):
    """Set or clear a switch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["hold", "refuse", "clear"]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    actor: Annotated[str, Field(min_length=1, max_length=128)]
    expires_at: AwareDatetime | None = None


def problem(status: int, detail: str, errors: list[dict[str, str]] | None = None) -> JSONResponse:
    """An RFC 9457 answer."""
    code = CODES.get(status, "invalid_field" if status < 500 else "internal")
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": code.replace("_", " "),
        "status": status,
        "detail": detail,
        "code": code,
    }
    body |= {"errors": errors or [], "request_id": str(uuid.uuid4())}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


def application(store: Store, runs: Runs, switches: Switches, *, api_key: str) -> FastAPI:
    """The ASGI application; `api_key` is the bearer key that every route asks for."""

    async def authenticated(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), api_key.encode()):
            raise HTTPException(401, "send Authorization: Bearer <key>")

    app = FastAPI(title="Giclee operations", version="1.0.0", dependencies=[Depends(authenticated)])
    _answer_problems(app)
    _dead_letter_routes(app, store, runs)
    _switch_routes(app, switches)
    return app


def _answer_problems(app: FastAPI) -> None:
    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        rows = [{"pointer": strict.pointer(tuple(one["loc"][1:])), "detail": one["msg"]} for one in error.errors()]
        return problem(422, "the request cannot be understood", rows)

    @app.exception_handler(Transient)
    async def away(_: Request, error: Transient) -> JSONResponse:
        answer = problem(503, "a part that this needs is away; try again shortly")
        answer.headers["Retry-After"] = "2"
        return answer

    @app.exception_handler(Poison)
    async def impossible(_: Request, error: Poison) -> JSONResponse:
        return problem(422, "a value cannot be stored or looked for; NUL is not allowed in texts")


def _dead_letter_routes(app: FastAPI, store: Store, runs: Runs) -> None:
    @app.get("/v1/dead-letters")
    async def listed(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str | None, Query()] = None,
    ) -> dict[str, Any]:
        """A page of dead letters, newest first, with counts of everything selected."""
        wanted = _selection_from(request)
        try:
            rows = await store.page(wanted, cursor, limit)
        except ValueError as error:
            raise HTTPException(422, f"cursor {error}") from error
        more = selection.cursor_text(rows[-1]["died_at"], rows[-1]["dlq_id"]) if len(rows) == limit else None
        return {"items": [summary(row) for row in rows], "next_cursor": more, "counts": await store.counts(wanted)}

    @app.get("/v1/dead-letters/{dlq_id}")
    async def shown(dlq_id: uuid.UUID) -> dict[str, Any]:
        """One dead letter with its bytes, decoded where they are JSON."""
        row = await store.one(dlq_id)
        if row is None:
            raise HTTPException(404, f"there is no dead letter {dlq_id}")
        return {**summary(row), **_payload(row)}

    @app.post("/v1/dead-letters/replay")
    async def replayed(asked: Annotated[ReplayAsked, Body()]) -> dict[str, Any]:
        """Put dead letters back, or with `dry_run` only say what that would do."""
        rows = await _chosen(store, asked)
        verdicts = [one.as_json() for one in runs.verdicts(rows, again=asked.again)]
        if asked.dry_run:
            return {"run_id": None, "replayed": 0, "dry_run": True, "items": verdicts}
        run_id, count = await runs.replay(rows, actor=asked.actor, reason=asked.reason, again=asked.again)
        return {"run_id": str(run_id), "replayed": count, "dry_run": False, "items": verdicts}


async def _chosen(store: Store, asked: ReplayAsked) -> list[Any]:
    if asked.ids:
        found = await store.some(asked.ids)
        missing = set(asked.ids) - {row["dlq_id"] for row in found}
        if missing:
            raise HTTPException(404, f"there is no dead letter {missing.pop()}")
        return found
    if asked.selection.is_everything() and not (asked.everything or asked.dry_run):
        raise HTTPException(422, "name dead letters, narrow the selection, or say everything: true")
    return await store.page(asked.selection, None, asked.limit)


def _selection_from(request: Request) -> Selection:
    named = {name: value for name, value in request.query_params.items() if name not in ("limit", "cursor")}
    try:
        return Selection.model_validate(named)
    except ValidationError as error:
        first = error.errors()[0]
        raise HTTPException(422, f"query parameter {first['loc'][0]}: {first['msg']}") from error


def summary(row: Any) -> dict[str, Any]:
    """What a list shows of a dead letter."""
    text = ("stage", "error_type", "message", "fingerprint", "tenant", "provider", "model", "state", "service_version")
    return {
        "dlq_id": str(row["dlq_id"]),
        "class": row["dead_class"],
        **{name: row[name] for name in text},
        "request_id": str(row["request_id"]) if row["request_id"] else None,
        "candidate_id": str(row["candidate_id"]) if row["candidate_id"] else None,
        "paid_usd": str(row["paid_usd"]) if row["paid_usd"] is not None else None,
        "attempts": row["attempts"],
        "replay_count": row["replay_count"],
        "original": _place(row, "original"),
        "dead_letter": _place(row, "dlq"),
        "died_at": row["died_at"].isoformat(),
    }


def _place(row: Any, prefix: str) -> dict[str, Any]:
    return {name: row[f"{prefix}_{name}"] for name in ("topic", "partition", "offset")}


def _payload(row: Any) -> dict[str, Any]:
    raw = row["value"] or b""
    decoded = codec.peek(row["value"])
    shown = {"value": decoded} if decoded else {"value_base64": base64.b64encode(raw).decode()}
    key = (row["key"] or b"").decode(errors="replace") if row["key"] is not None else None
    headers = [[name, text.decode(errors="replace")] for name, text in record_of(row, row["dlq_topic"]).headers]
    return {**shown, "size_bytes": len(raw), "key": key, "headers": headers}


def _switch_routes(app: FastAPI, switches: Switches) -> None:
    @app.get("/v1/switches")
    async def listed() -> dict[str, Any]:
        """Every switch that is set, and how many records wait under it."""
        return {"items": await switches.listed()}

    @app.put("/v1/switches/{scope}")
    async def set_one(scope: str, asked: Annotated[SwitchAsked, Body()]) -> dict[str, Any]:
        """Set or clear a switch; every stage honours it within two seconds."""
        try:
            switch = SwitchSet(scope=scope, set_at=datetime.now(UTC), **asked.model_dump())
        except ValidationError as error:
            raise HTTPException(422, f"scope {scope}: {error.errors()[0]['msg']}") from error
        await switches.set(switch)
        return switch.model_dump(mode="json", exclude_none=True)
