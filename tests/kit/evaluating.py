"""Intake and scorer as evaluations need them: real HTTP between them, a real database, a real decoder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from fastapi import FastAPI

from giclee.bus import probes
from giclee.bus.settings import ProcessSettings
from giclee.intake import evaluation_api
from giclee.intake.ask_scorer import ScorerCalls
from giclee.intake.problems import answer_problems
from giclee.scorer.decode import Decoder
from giclee.scorer.evaluate import PATH, Evaluations
from giclee.scorer.handle import Scorer
from giclee.scorer.judge import Judge
from tests.integration.test_scorer_images import scorer
from tests.kit.pictures import file_of, rendered
from tests.unit.intake.desk import Answer, Desk, opened

PROMPT = "a large red square on a blue background"
PROCESS = ProcessSettings(health_port=0, bind_host="127.0.0.1", log_level="info")
Judging = Callable[[dict[str, Any], bytes | None], Awaitable[dict[str, Any]]]


@dataclass
class Line:
    """The two services; `by` is the scorer whose lanes both its doors use."""

    desk: Desk
    by: Scorer

    async def post(self, body: bytes | None = None, *, key: str | None = None, **values: Any) -> Answer:
        """POST /v1/evaluations with a file, or with a blob reference as `image`."""
        headers = {"Idempotency-Key": key} if key else {}
        asked = {"prompt": PROMPT, **{name: value for name, value in values.items() if value is not None}}
        kind = asked.pop("content_type", "application/octet-stream")
        if body is None:
            return await self.desk.http.post("/v1/evaluations", json=asked, headers=headers)
        files = {"file": ("picture", body, kind)}
        return await self.desk.http.post("/v1/evaluations", data=asked, files=files, headers=headers)

    async def kept(self) -> dict[str, int]:
        """Rows that evaluations could have left behind."""
        tables = ("evaluations", "idempotency", "requests", "outbox")
        return {name: await self.desk.pool.fetchval(f"SELECT count(*) FROM intake.{name}") for name in tables}


@asynccontextmanager
async def line(
    database: str,
    *,
    judging: Judging | None = None,
    deadline_s: float = 30.0,
    at_once: int = 2,
    decoder: str = "giclee.scorer.decode_child",
    **dimensions: Any,
) -> AsyncIterator[Line]:
    """Both services. `judging` stands in for the scorer's end of the call where a test holds it up, `decoder` for
    the module that decodes what evaluations bring."""
    own = Decoder(module=decoder)
    async with scorer(**dimensions) as by:
        judge = Judge(decoder=own, lanes=by.judge.lanes, gates=by.judge.gates)
        door = Evaluations(judge, by.blobs).door(at_once=at_once)
        if judging is not None:
            door = probes.Upload(handle=judging, file_max_bytes=door.file_max_bytes, at_once=at_once, within_s=10)
        async with probes.serving(PROCESS, checks={}, alive={}, internal={PATH: door}) as port:
            calls = ScorerCalls(f"http://127.0.0.1:{port}", deadline_s)
            try:
                async with opened(database, scorer=calls) as desk:
                    yield Line(desk, by)
            finally:
                await own.stop()


@asynccontextmanager
async def of_tenant(made: Line, tenant: str) -> AsyncIterator[httpx2.AsyncClient]:
    """The evaluation routes as another tenant's key would have them."""
    app = FastAPI()
    answer_problems(app)
    evaluation_api.routes(app, made.desk.store, made.desk.evaluator, tenant)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://intake") as http:
        yield http


GOOD = file_of(rendered())
"""What PROMPT says, as WebP of 64 x 64."""


def answered() -> dict[str, Any]:
    """A pass as the scorer's door gives it."""
    size = {"width": 64, "height": 64, "size_bytes": 1}
    named = {"gate_version": "g", "sha256": "0" * 64, "phash": None}
    return {"verdict": "pass", "scores": {}, "seconds": 0.1} | size | named


class HeldUp:
    """A scorer's end that answers when told to, and counts who came."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, values: dict[str, Any], file: bytes | None) -> dict[str, Any]:
        self.asked.append(values)
        await self.go.wait()
        return answered()
