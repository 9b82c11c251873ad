"""Everything that is not the answer asked for, as RFC 9457 problems; and queries that cannot be meant."""

from __future__ import annotations

import uuid

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from giclee.bus import telemetry
from giclee.bus.errors import Transient
from giclee.publisher.review_queue import Conflict
from giclee.schemas import reasons, strict

PAGE = 50
PAGE_MAX = 200

log = telemetry.logger(__name__)


class Problem(Exception):
    """An answer that is not what was asked for; `code` is a row of `reasons.TABLE`."""

    def __init__(self, status: int, code: str, detail: str | None = None, *, pointer: str | None = None) -> None:
        super().__init__(detail or reasons.TABLE[code])
        self.status = status
        self.code = code
        self.errors = [] if pointer is None else [{"pointer": pointer, "detail": str(self)}]

    @classmethod
    def of_body(cls, error: RequestValidationError) -> Problem:
        """A body or a header that cannot be understood, with every field that is wrong."""
        found = cls(422, "invalid_field", "the request cannot be understood")
        found.errors = [
            {"pointer": strict.pointer(tuple(one["loc"][1:])), "detail": one["msg"]} for one in error.errors()
        ]
        return found

    def answer(self) -> JSONResponse:
        """The problem as RFC 9457 has it."""
        body = {
            "type": "about:blank",
            "title": self.code.replace("_", " "),
            "status": self.status,
            "code": self.code,
            "detail": str(self),
            "errors": self.errors,
            "request_id": str(uuid.uuid4()),
        }
        headers = {"Retry-After": "2"} if self.status == 503 else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status >= 500:
            log.error("a request failed", http_request_id=body["request_id"], detail=str(self))
        return JSONResponse(body, self.status, headers, media_type="application/problem+json")


def answer_problems(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def refused(_: Request, problem: Problem) -> JSONResponse:
        return problem.answer()

    @app.exception_handler(HTTPException)
    async def unrouted(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_field")
        return Problem(error.status_code, code).answer()

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        return Problem.of_body(error).answer()

    @app.exception_handler(Conflict)
    async def conflicting(_: Request, conflict: Conflict) -> JSONResponse:
        return Problem(409, conflict.code, str(conflict)).answer()

    @app.exception_handler(Transient)
    async def away(_: Request, error: Transient) -> JSONResponse:
        log.warning("a part is away", error=str(error))
        return Problem(503, "unavailable").answer()

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        return Problem(500, "internal").answer()


def only(request: Request, known: tuple[str, ...]) -> None:
    """Errors: Problem for a query parameter that would otherwise be ignored."""
    for name in request.query_params:
        if name not in known:
            says = f"knows only {', '.join(known)}" if known else "takes none"
            raise Problem(400, "unsupported_query", f"{name[:64]} is no query parameter here; this {says}", pointer="")


def bad_query(name: str, detail: str) -> Problem:
    return Problem(400, "unsupported_query", f"{name} {detail}", pointer=f"/{name}")


def limit_of(text: str | None) -> int:
    """How many rows a page has. Errors: Problem."""
    limit = text or str(PAGE)
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= PAGE_MAX):
        raise bad_query("limit", f"must be 1 to {PAGE_MAX}")
    return int(limit)
