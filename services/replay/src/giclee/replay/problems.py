"""Everything that is not the answer asked for, as RFC 9457 problems."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from giclee.bus.errors import Poison, Transient
from giclee.schemas import strict
from giclee.schemas.strict import FieldError, InvalidInput

CODES = {
    401: "unauthenticated", 404: "not_found", 405: "method_not_allowed", 409: "conflict", 422: "invalid_field",
    503: "unavailable",
}  # fmt: skip


def problem(status: int, detail: str, errors: Sequence[dict[str, str]] = ()) -> JSONResponse:
    """An RFC 9457 answer."""
    code = CODES.get(status, "invalid_field" if status < 500 else "internal")
    body: dict[str, Any] = {
        "type": "about:blank", "title": code.replace("_", " "), "status": status, "detail": detail, "code": code,
        "errors": list(errors), "request_id": str(uuid.uuid4()),
    }  # fmt: skip
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


def fields(errors: Sequence[FieldError]) -> list[dict[str, str]]:
    """What is wrong with which field."""
    return [{"pointer": one.pointer, "detail": one.detail} for one in errors]


def answer_problems(app: FastAPI) -> None:
    """Have `app` answer what it raises as problems."""

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        rows = [{"pointer": strict.pointer(tuple(one["loc"][1:])), "detail": one["msg"]} for one in error.errors()]
        return problem(422, "the request cannot be understood", rows)

    @app.exception_handler(InvalidInput)
    async def invalid(_: Request, error: InvalidInput) -> JSONResponse:
        return problem(422, str(error), fields(error.errors))

    @app.exception_handler(Transient)
    async def away(_: Request, error: Transient) -> JSONResponse:
        answer = problem(503, "a part that this needs is away; try again shortly")
        answer.headers["Retry-After"] = "2"
        return answer

    @app.exception_handler(Poison)
    async def impossible(_: Request, error: Poison) -> JSONResponse:
        return problem(422, "a value cannot be stored or looked for; NUL is not allowed in texts")
