"""HTTP: requests posted, shown, listed, followed and cancelled; evaluations. Decides nothing.

The bearer key decides the tenant; in this release there is one key, and its tenant is `default`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import uvicorn
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from sse_starlette import EventSourceResponse, ServerSentEvent

from giclee.bus import telemetry
from giclee.bus.errors import Transient
from giclee.intake import accept, bodies, call, evaluation_api
from giclee.intake import store as stored
from giclee.intake.bodies import Accepted, Linker, ListQuery, NoQuery, Page, PostQuery, Quote, Shown
from giclee.intake.evaluation import Asked, Evaluator
from giclee.intake.problems import Problem, answer_problems, responses
from giclee.intake.quote import Quoter
from giclee.intake.store import Store
from giclee.intake.stream import Bell, follow
from giclee.schemas import parts
from giclee.schemas.events import ImageRequested

TENANT = "default"
POST_ROUTE = "POST /v1/requests"
STREAMS_MAX = 500
"""Streams of one process; each asks the database about once a second."""
STREAM_ID_MAX = 2**31 - 1
PING_S = 15
STOP_S = 3

log = telemetry.logger(__name__)


@dataclass(slots=True)
class Desk:
    """What the routes need."""

    store: Store
    quoter: Quoter
    bell: Bell
    linker: Linker
    evaluator: Evaluator
    streams: int = 0

    def accepted(self, found: stored.Accepted) -> Accepted:
        return Accepted(request_id=found.request_id, state=found.state, links=self.linker.of(found.request_id))


def application(desk: Desk, *, api_key: str) -> FastAPI:
    """The ASGI application; every route asks for `api_key` before it reads anything else."""

    async def authenticated(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), api_key.encode())
        if scheme.lower() != "bearer" or not right:
            raise Problem(401, "unauthenticated")

    app = FastAPI(title="Giclee requests", version="1.0.0", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.router.dependencies.append(Depends(authenticated))
    answer_problems(app)
    _post_routes(app, desk)
    _get_routes(app, desk)
    _end_routes(app, desk)
    evaluation_api.routes(app, desk.store, desk.evaluator, TENANT)
    _describe(app)
    return app


def _post_routes(app: FastAPI, desk: Desk) -> None:
    declared: dict[int | str, dict[str, Any]] = {200: {"model": Quote, "description": "With dry_run"}}

    @app.post(
        "/v1/requests",
        status_code=202,
        response_model=Accepted | Quote,
        responses=declared | responses(409, 413, 415, 422),
        openapi_extra=_takes("ImageRequested"),
    )
    async def post_request(
        request: Request, response: Response, query: Annotated[PostQuery, Query()]
    ) -> Accepted | Quote:
        """Ask for approved images. With `dry_run=true` nothing is stored: verdict, expected cost and time."""
        raw = await call.body(request)
        if query.dry_run:
            response.status_code = 200
            return Quote(**await desk.quoter.quote(accept.request_of(raw, TENANT)))
        try:
            found = await accept.accept(desk.store, raw, tenant=TENANT, route=POST_ROUTE, key=call.key(request))
        except stored.KeyInFlight:
            raise Problem(409, "idempotency_in_flight") from None
        except stored.KeyMismatch:
            raise Problem(422, "idempotency_mismatch") from None
        except stored.IdConflict:
            raise Problem(409, "request_id_conflict") from None
        answer = desk.accepted(found)
        response.headers["Location"] = answer.links.self
        if found.replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return answer


def _get_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/v1/requests", responses=responses())
    async def list_requests(query: Annotated[ListQuery, Query()]) -> Page:
        """Requests, newest first."""
        rows = await desk.store.page(TENANT, query.filters(), query.limit + 1)
        more = bodies.cursor_of(rows[query.limit - 1]["number"]) if len(rows) > query.limit else None
        return Page(items=[bodies.summary(row, desk.linker) for row in rows[: query.limit]], next_cursor=more)

    @app.get("/v1/requests/{request_id}", responses=responses())
    async def get_request(request_id: str, _: Annotated[NoQuery, Query()]) -> Shown:
        """One request with everything that is known of it."""
        found = await desk.store.shown(TENANT, _id(request_id))
        if found is None:
            raise _unknown(request_id)
        return bodies.shown(*found, desk.linker)

    @app.get("/v1/requests/{request_id}/events", responses=responses(), response_class=EventSourceResponse)
    async def get_events(request: Request, request_id: str, _: Annotated[NoQuery, Query()]) -> EventSourceResponse:
        """What happens to a request, as server-sent events, from the start or after `Last-Event-ID`."""
        after = _after(request)
        row = await desk.store.request(TENANT, _id(request_id))
        if row is None:
            raise _unknown(request_id)
        if desk.streams >= STREAMS_MAX:
            raise Problem(503, "unavailable", f"{STREAMS_MAX} event streams are open; try again shortly")
        return EventSourceResponse(_told(desk, row["number"], after), ping=PING_S)


async def _told(desk: Desk, number: int, after: int) -> AsyncIterator[ServerSentEvent]:
    desk.streams += 1
    try:
        async for told in follow(desk.store, desk.bell, number, after):
            yield ServerSentEvent(data=told.document, event=told.event, id=str(told.id))
    except Transient as error:  # the answer has begun: the caller connects again with its Last-Event-ID
        log.warning("a stream broke off", error=str(error))
    finally:
        desk.streams -= 1


def _end_routes(app: FastAPI, desk: Desk) -> None:
    @app.post(
        "/v1/requests/{request_id}/cancel",
        status_code=202,
        responses=responses(409, 413, 415, 422),
        openapi_extra=_takes("Cancel", required=False),
    )
    async def cancel_request(request: Request, request_id: str, _: Annotated[NoQuery, Query()]) -> Accepted:
        """Ask for a request to end; `cancelled` follows unless it ends otherwise first."""
        note = accept.note_of(await call.body(request))
        try:
            found = await desk.store.cancel(TENANT, _id(request_id), note)
        except stored.Ended:
            raise Problem(409, "request_ended") from None
        if found is None:
            raise _unknown(request_id)
        return desk.accepted(found)

    @app.post("/v1/requests/{request_id}/retry", status_code=202, responses=responses(422))
    async def retry_request(request_id: str, _: Annotated[NoQuery, Query()]) -> Accepted:
        """Refused by name in this release."""
        raise Problem(422, "retry_unsupported")


# ---- reading a call -----------------------------------------------------------------------------


def _after(request: Request) -> int:
    text = request.headers.get("last-event-id", "").strip() or "0"
    if not (text.isascii() and text.isdigit()):
        raise Problem(400, "invalid_header", "Last-Event-ID must be an id of this stream")
    return min(int(text[:20]), STREAM_ID_MAX)


def _id(text: str) -> UUID:
    if not parts.is_uuid(text):
        raise _unknown(text)
    return UUID(text)


def _unknown(request_id: str) -> Problem:
    return Problem(404, "not_found", f"there is no request {request_id[:64]}")


# ---- OpenAPI ------------------------------------------------------------------------------------

_CANCEL = {
    "type": "object",
    "properties": {"note": {"type": "string", "maxLength": 1024}},
    "additionalProperties": False,
}


def _takes(schema: str, *, required: bool = True) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": required, "content": content}}


def _describe(app: FastAPI) -> None:
    """Bodies are read by the strict door, not by FastAPI, so their schemas are added by hand."""
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schema = ImageRequested.model_json_schema(ref_template="#/components/schemas/{model}")
    schema["required"] = []  # over HTTP a missing request_id is made
    named = schema.pop("$defs", {}) | {"ImageRequested": schema, "Cancel": _CANCEL}
    asked = Asked.model_json_schema(ref_template="#/components/schemas/{model}")
    named |= asked.pop("$defs", {}) | {"EvaluationAsked": asked | {"required": ["prompt", "image"]}}
    named["Problem"] = bodies.Problem.model_json_schema()
    components = found.setdefault("components", {})
    components["schemas"] = named | components.get("schemas", {})
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    found["security"] = [{"key": []}]
    app.openapi = lambda: found  # type: ignore[method-assign]


# ---- the server ---------------------------------------------------------------------------------


async def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until cancelled; then what is being answered gets STOP_S seconds."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=STOP_S,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]  # signals are the bus' matter
    serving = asyncio.create_task(server.serve())
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await asyncio.wait({serving}, timeout=STOP_S + 1)
