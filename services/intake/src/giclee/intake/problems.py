"""Everything that is not the answer asked for: RFC 9457 problems, and the id that finds them in the logs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from giclee.bus import telemetry
from giclee.bus.errors import Poison, Transient
from giclee.intake import bodies
from giclee.schemas import reasons
from giclee.schemas.strict import ERRORS_MAX, FieldError, InvalidInput, pointer

MEDIA_TYPE = "application/problem+json"
TYPE = "https://giclee.dev/problems/{code}"
"""An identifier, not a promise that something answers there."""
RETRY_AFTER_S = "2"
HEADER = "X-Request-Id"
ID_MAX_CHARS = 128

log = telemetry.logger(__name__)


class Problem(Exception):
    """An answer that is no success; `code` is a row of `reasons.TABLE`, whose sentence is the default detail."""

    def __init__(self, status: int, code: str, detail: str | None = None, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail or reasons.TABLE[code])
        self.status = status
        self.code = code
        self.errors = errors

    def answer(self, request: Request) -> JSONResponse:
        """The problem as a response to `request`."""
        own_id = id_of(request.scope)
        body = bodies.Problem(
            type=TYPE.format(code=self.code),
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=str(self),
            code=self.code,
            errors=[{"pointer": e.pointer, "detail": e.detail, "code": e.code} for e in self.errors],
            request_id=own_id,
        )
        headers = {HEADER: own_id}
        if self.status in (429, 503) or self.code == "idempotency_in_flight":
            headers["Retry-After"] = RETRY_AFTER_S
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(body.model_dump(), self.status, headers, media_type=MEDIA_TYPE)


# ---- the id of a call ---------------------------------------------------------------------------


def id_of(scope: Scope) -> str:
    """The X-Request-Id of a call: the caller's, where it can be echoed, else one of ours."""
    found = scope.setdefault("state", {}).get("http_request_id")
    if found is None:
        given = Headers(scope=scope).get(HEADER, "")
        usable = 0 < len(given) <= ID_MAX_CHARS and given.isascii() and given.isprintable()
        found = scope["state"]["http_request_id"] = given if usable else str(uuid.uuid4())
    return str(found)


class EchoId:
    """ASGI middleware: every answer carries the X-Request-Id, and every log line made under it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own_id = id_of(scope)

        async def echoing(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = own_id
            await send(message)

        with telemetry.bound(http_request_id=own_id):
            await self._app(scope, receive, echoing)


# ---- which error is which problem ---------------------------------------------------------------

_UNREADABLE = {"not_json": 400, "not_utf8": 400}
_UNROUTED = {404: "not_found", 405: "method_not_allowed"}


def invalid(error: InvalidInput) -> Problem:
    """A body that the strict door refuses: 400 when it cannot be read, 413 when it is too long, else 422."""
    codes = {one.code for one in error.errors}
    code = error.errors[0].code if len(codes) == 1 else "invalid_field"
    whole = len(error.errors) == 1 and error.errors[0].pointer == ""
    status = 413 if whole and code == "too_large" else _UNREADABLE.get(code, 422)
    return Problem(status, code, str(error), error.errors)


def answer_problems(app: FastAPI) -> None:
    """Make every error of this application a problem; what nobody foresaw is 500 and says nothing but its id."""

    def refused(request: Request, error: Any) -> JSONResponse:
        return error.answer(request)  # type: ignore[no-any-return]

    def malformed(request: Request, error: Any) -> JSONResponse:
        return invalid(error).answer(request)

    def bad_query(request: Request, error: Any) -> JSONResponse:
        rows = [_query_error(row) for row in error.errors()][:ERRORS_MAX]
        names = ", ".join(dict.fromkeys(row.pointer[1:].partition("/")[0] for row in rows))
        detail = f"query parameters cannot be used: {names[:500]}"
        return Problem(400, "unsupported_query", detail, rows).answer(request)

    def unrouted(request: Request, error: Any) -> JSONResponse:
        answer = Problem(error.status_code, _UNROUTED.get(error.status_code, "invalid_field")).answer(request)
        answer.headers.update(error.headers or {})
        return answer

    def away(request: Request, error: Any) -> JSONResponse:
        log.warning("a part is away", error=str(error))
        return Problem(503, "unavailable").answer(request)

    def unstorable(request: Request, error: Any) -> JSONResponse:
        log.error("a value could not be stored", error=str(error))
        return Problem(422, "invalid_field", "a value of this request cannot be stored").answer(request)

    def broken(request: Request, _: Any) -> JSONResponse:
        return Problem(500, "internal").answer(request)

    app.exception_handlers |= {
        Problem: refused,
        InvalidInput: malformed,
        RequestValidationError: bad_query,
        HTTPException: unrouted,
        Transient: away,
        Poison: unstorable,
        Exception: broken,
    }
    app.add_middleware(EchoId)


def _query_error(row: Any) -> FieldError:
    unknown = row["type"] == "extra_forbidden"
    detail = "is not a query parameter of this route" if unknown else str(row["msg"]).removeprefix("Value error, ")
    return FieldError(pointer(tuple(row["loc"][1:])), detail, "unsupported_query")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says about the problems of a route: those of every route, and these."""
    every = (400, 401, 404, 405, 500, 503)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    declared = sorted({*every, *statuses})
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in declared}
