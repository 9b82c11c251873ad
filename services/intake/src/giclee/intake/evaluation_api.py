"""HTTP: pictures made elsewhere, judged as the line judges. Decides nothing."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel

from giclee.bus import telemetry
from giclee.intake import call, evaluation, multipart
from giclee.intake import store as stored
from giclee.intake.ask_scorer import Busy, ScorerAway
from giclee.intake.bodies import NoQuery
from giclee.intake.evaluation import Evaluating, Evaluator
from giclee.intake.problems import Problem, responses
from giclee.intake.store import Key, Store
from giclee.schemas import parts
from giclee.schemas.parts import Score

ROUTE = "POST /v1/evaluations"

log = telemetry.logger(__name__)


class Evaluation(BaseModel):
    """The judgement on one picture. Without pixels there is no fingerprint and no size; `seconds` of the scorer."""

    evaluation_id: UUID
    verdict: str
    scores: dict[str, Score]
    gate_version: str
    asset_type: str
    sha256: str
    size_bytes: int
    phash: str | None
    width: int | None
    height: int | None
    seconds: float
    stored: bool


class Kept(Evaluation):
    """One that was asked to be stored."""

    prompt: str
    evaluated_at: datetime


def routes(app: FastAPI, store: Store, evaluator: Evaluator, tenant: str) -> None:
    """Add them to the requests API."""

    @app.post(
        "/v1/evaluations",
        responses=responses(408, 409, 413, 415, 422, 429),
        openapi_extra={"requestBody": _BODY},
    )
    async def post_evaluation(request: Request, response: Response, _: Annotated[NoQuery, Query()]) -> Evaluation:
        """Judge a picture made elsewhere as the line would. Nothing is stored unless asked."""
        key = call.key(request)
        if evaluator.slots.locked():
            raise Problem(429, "busy")
        async with evaluator.slots:
            asked = await _read(request, tenant)
            named = Key(tenant, ROUTE, key, await asyncio.to_thread(asked.fingerprint)) if key is not None else None
            found, replayed = await _answer(evaluator, asked, tenant, named)
        if replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return Evaluation.model_validate(found)

    @app.get("/v1/evaluations/{evaluation_id}", responses=responses())
    async def get_evaluation(evaluation_id: str, _: Annotated[NoQuery, Query()]) -> Kept:
        """An evaluation that was asked to be stored."""
        row = await store.evaluation(tenant, UUID(evaluation_id)) if parts.is_uuid(evaluation_id) else None
        if row is None:
            detail = f"no evaluation {evaluation_id[:64]} is stored; one is where `store` was true"
            raise Problem(404, "not_found", detail)
        return Kept.model_validate({**row["answer"], "prompt": row["prompt"], "evaluated_at": row["evaluated_at"]})


async def _read(request: Request, tenant: str) -> Evaluating:
    """Errors: Problem, InvalidInput."""
    kind = request.headers.get("content-type", "")
    if multipart.is_form(kind):
        raw = await call.raw(request, evaluation.FORM_MAX_BYTES)
        parts_found = multipart.parts_of(raw, kind)
        if (file := parts_found.get("file")) and len(file.body) > evaluation.FILE_MAX_BYTES:
            raise Problem(413, "too_large", f"a picture is at most {evaluation.FILE_MAX_BYTES} bytes")
        return evaluation.of_form(parts_found)
    if not call.is_json(kind):
        detail = "the body must be multipart/form-data with a part `file`, or application/json that names a blob"
        raise Problem(415, "unsupported_media_type", detail)
    return evaluation.of_json(await call.body(request), tenant)


async def _answer(evaluator: Evaluator, asked: Evaluating, tenant: str, key: Key | None) -> tuple[dict[str, Any], bool]:
    try:
        return await evaluator.answer(asked, tenant, key)
    except stored.KeyInFlight:
        raise Problem(409, "idempotency_in_flight") from None
    except stored.KeyMismatch:
        raise Problem(422, "idempotency_mismatch") from None
    except Busy:
        raise Problem(429, "busy") from None
    except ScorerAway as error:
        log.warning("no verdict", error=str(error))
        raise Problem(503, "scorer_unavailable") from None


_FORM = {
    "type": "object",
    "required": ["file", "prompt"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "PNG, JPEG or WebP, at most 20 MiB."},
        "prompt": {"type": "string", "minLength": 1, "maxLength": 4000},
        "asset_type": {"type": "string", "default": "generic"},
        "store": {"type": "string", "enum": ["true", "false"], "default": "false"},
    },
    "additionalProperties": False,
}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "application/json": {"schema": {"$ref": "#/components/schemas/EvaluationAsked"}},
    },
}
