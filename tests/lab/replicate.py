"""Replicate's predictions, from https://replicate.com/docs/reference/http, …/topics/predictions/lifecycle,
…/rate-limits and https://replicate.com/changelog/2025-10-16-prediction-deadlines; input as of stability-ai/sdxl."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.lab.desk import Desk, png
from tests.lab.state import Job, Lab

USD_PER_SECOND = Decimal("0.000725")
PREDICT_S = Decimal("2")
CREATED_AT = "2023-09-08T16:19:34.765994Z"
OWN: dict[str, tuple[int, Any]] = {
    "revoked": (
        401,
        {
            "title": "Unauthenticated",
            "detail": "You did not pass a valid authentication token",
            "status": 401,
        },
    ),
    "no-credit": (
        402,
        {
            "title": "Insufficient credit",
            "detail": "You have insufficient credit to run this model. Go to https://replicate.com/account/billing",
            "status": 402,
        },
    ),
    "throttled": (429, {"detail": "Request was throttled. Your rate limit resets in ~30s."}),
    "expired": (404, {"detail": "The requested resource could not be found.", "status": 404}),
}
TAKES = {
    "prompt": str,
    "negative_prompt": str,
    "width": int,
    "height": int,
    "num_inference_steps": int,
    "guidance_scale": (int, float),
    "seed": int,
}
_DURATION = re.compile(r"^(\d+h)?(\d+m)?(\d+s)?$")


def application(lab: Lab) -> web.Application:
    desk, app = Desk(lab, "replicate", OWN), web.Application()
    calls = Calls(lab)

    def at(call: str, method: str, path: str, good: Any) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await desk.answer(request, call, lambda: good(request))

        app.router.add_route(method, path, handle)

    at("submit", "POST", "/v1/predictions", calls.create)
    at("status", "GET", "/v1/predictions/{id}", calls.get)
    at("cancel", "POST", "/v1/predictions/{id}/cancel", calls.cancel)
    at("image", "GET", "/files/{id}.png", calls.image)
    return app


class Calls:
    """What Replicate answers when nothing is wrong."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    async def create(self, request: web.Request) -> web.Response:
        said = await request.json()
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            return _own("revoked")
        found = said.get("input")
        wrong = not isinstance(found, dict) or any(
            name not in TAKES or not isinstance(value, TAKES[name])  # type: ignore[arg-type]
            for name, value in found.items()
        )
        known = isinstance(said.get("version"), str) and re.fullmatch(r"[0-9a-f]{64}", said["version"])
        if wrong or not known or set(said) != {"version", "input"}:
            return _invalid("- input is not valid\n")
        if not _DURATION.match(request.headers.get("Cancel-After", "")):
            return _invalid("Cancel-After is no duration")
        job = Job(
            "replicate",
            found["prompt"],
            found.get("width", 1024),
            found.get("height", 1024),
            found.get("seed", 42),
            key=None,
            usd=self._lab.price("replicate", USD_PER_SECOND * PREDICT_S),
            extra={"version": said["version"], "input": found},
        )
        job.id = job.id.replace("-", "")[:26]
        job.extra["seconds"] = PREDICT_S * self._lab.factor["replicate"]
        self._lab.begin(job)
        return web.json_response(self._prediction(request, job, "starting"), status=201)

    async def get(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job is None:
            return _own("expired")
        self._lab.asked(job)
        return web.json_response(self._prediction(request, job))

    async def cancel(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job is None:
            return _own("expired")
        if job.state == "waiting":
            job.state = "aborted"
        return web.json_response(self._prediction(request, job))

    async def image(self, request: web.Request) -> web.Response:
        job = self._job(request)
        return png(self._lab.picture(job)) if job is not None else web.Response(status=404)

    def _job(self, request: web.Request) -> Job | None:
        return self._lab.jobs.get(request.match_info["id"])

    def _prediction(self, request: web.Request, job: Job, status: str | None = None) -> dict[str, Any]:
        names = {"waiting": "starting", "running": "processing", "done": "succeeded"}
        status = status or names.get(job.state, job.state)
        root = str(request.url).split("/replicate/")[0] + "/replicate"
        output = None
        if status == "succeeded" and job.look not in {"nothing", "removed"}:
            output = [f"{root}/files/{job.id}.png"]
        there = f"{root}/v1/predictions/{job.id}"
        return {
            "id": job.id,
            "model": "stability-ai/sdxl",
            "version": job.extra["version"],
            "input": job.extra["input"],
            "logs": "",
            "output": output,
            "data_removed": job.look == "removed",
            "error": job.error if status == "failed" else None,
            "status": status,
            "created_at": CREATED_AT,
            "started_at": CREATED_AT,
            "completed_at": CREATED_AT if status in {"succeeded", "failed"} else None,
            "metrics": {"predict_time": float(job.extra["seconds"])} if status == "succeeded" else {},
            "urls": {"get": there, "cancel": f"{there}/cancel", "web": f"https://replicate.com/p/{job.id}"},
        }


def _own(name: str) -> web.Response:
    status, said = OWN[name]
    return web.json_response(said, status=status)


def _invalid(detail: str) -> web.Response:
    return web.json_response({"title": "Input validation failed", "detail": detail, "status": 422}, status=422)
