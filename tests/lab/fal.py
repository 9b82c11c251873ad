"""fal's queue, from https://fal.ai/docs/documentation/model-apis/inference/queue, …/errors, …/request-errors, and
https://fal.ai/docs/inference-api/queue/{submit,status,result,cancel}; input as fal-ai/flux/dev documents it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.lab.desk import Desk, png, problem
from tests.lab.state import Job, Lab

PRICE_USD = Decimal("0.025")
_POLICY = {
    "loc": ["body", "prompt"],
    "msg": "The content could not be processed because it contained material flagged by a content checker.",
    "type": "content_policy_violation",
    "url": "https://docs.fal.ai/errors#content_policy_violation",
}
OWN: dict[str, tuple[int, Any]] = {
    "revoked": (401, {"detail": "Cannot access application. Authentication is required to access this application."}),
    "no-credit": (
        403,
        {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."},
    ),
    "refused": (422, {"detail": [_POLICY]}),
    "expired": (404, {"detail": "Request not found"}),
}
TAKES = {
    "prompt": str,
    "negative_prompt": str,
    "image_size": dict,
    "num_inference_steps": int,
    "seed": int,
    "guidance_scale": (int, float),
    "num_images": int,
    "enable_safety_checker": bool,
    "output_format": str,
}


def application(lab: Lab) -> web.Application:
    desk, app = Desk(lab, "fal", OWN), web.Application()
    calls = Calls(lab)

    def at(call: str, method: str, path: str, good: Any) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await desk.answer(request, call, lambda: good(request))

        app.router.add_route(method, path, handle)

    known = "/{owner}/{app}/requests/{id}"
    at("status", "GET", known + "/status", calls.status)
    at("result", "GET", known, calls.result)
    at("cancel", "PUT", known + "/cancel", calls.cancel)
    at("image", "GET", "/files/{id}.png", calls.image)
    at("submit", "POST", "/{owner}/{app}", calls.submit)
    at("submit", "POST", "/{owner}/{app}/{path:.+}", calls.submit)
    return app


class Calls:
    """What fal answers when nothing is wrong."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    async def submit(self, request: web.Request) -> web.Response:
        said = await request.json()
        wrong = _wrong(said)
        if not request.headers.get("Authorization", "").startswith("Key "):
            return problem(401, detail=OWN["revoked"][1]["detail"])
        if wrong:
            row = {
                "loc": ["body", wrong],
                "msg": "not valid",
                "type": "value_error",
                "url": "https://docs.fal.ai/errors",
            }
            return problem(422, detail=[row])
        size = said.get("image_size", {"width": 1024, "height": 768})
        sides, usd = (size["width"], size["height"]), self._lab.price("fal", PRICE_USD)
        job = self._lab.begin(Job("fal", said["prompt"], *sides, said.get("seed", 42), key=None, usd=usd))
        root = str(request.url.origin()) + request.path.split("/fal/")[0] + "/fal"
        there = f"{root}/{request.match_info['owner']}/{request.match_info['app']}/requests/{job.id}"
        told = {"status_url": f"{there}/status", "response_url": there, "cancel_url": f"{there}/cancel"}
        if job.look == "astray":
            told["status_url"] = f"{request.app['trap_url']}status"
        return web.json_response(
            {"status": "IN_QUEUE", "request_id": job.id, "queue_position": 0, **told, "logs": None}
        )

    async def status(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job is None:
            return problem(404, detail="Request not found")
        self._lab.asked(job)
        there = str(request.url).removesuffix("/status")
        common = {"request_id": job.id, "response_url": there, "logs": None}
        if job.state == "waiting":
            return web.json_response({"status": "IN_QUEUE", "queue_position": 12654, **common}, status=202)
        if job.state == "running":
            return web.json_response({"status": "IN_PROGRESS", **common}, status=202)
        told: dict[str, Any] = {"status": "COMPLETED", **common, "metrics": {"inference_time": 1.5}}
        if job.state in {"failed", "canceled"}:
            told |= {"error": job.error or "canceled", "error_type": "runner_server_error"}
        return web.json_response(told)

    async def result(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job is None:
            return problem(404, detail="Request not found")
        if job.state == "canceled":
            return problem(499, detail="Request was cancelled", error_type="client_cancelled")
        if job.state == "failed":
            return problem(500, detail=job.error, error_type="runner_server_error")
        if job.state != "done":
            return problem(400, detail="Request is still in progress")
        url = str(request.url).split("/fal/")[0] + f"/fal/files/{job.id}.png"
        image = {"url": url, "width": job.width, "height": job.height, "content_type": "image/png"}
        images = [] if job.look == "nothing" else [image]
        return web.json_response(
            {
                "images": images,
                "timings": {"inference": 1.5},
                "seed": job.seed,
                "has_nsfw_concepts": [job.look == "unsafe"] * len(images),
                "prompt": job.prompt,
            }
        )

    async def cancel(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job is None:
            return web.json_response({"status": "NOT_FOUND"}, status=404)
        if job.state == "waiting":
            job.state = "canceled"
            return web.json_response({"status": "OK"})
        if job.state == "running":  # the runner is told, and goes on
            return web.json_response({"status": "CANCELLATION_REQUESTED"}, status=202)
        return web.json_response({"status": "ALREADY_COMPLETED"}, status=400)

    async def image(self, request: web.Request) -> web.Response:
        job = self._job(request)
        return png(self._lab.picture(job)) if job is not None else web.Response(status=404)

    def _job(self, request: web.Request) -> Job | None:
        return self._lab.jobs.get(request.match_info["id"])


def _wrong(said: Any) -> str | None:
    """The field that is not as it is documented."""
    if not isinstance(said, dict) or "prompt" not in said:
        return "prompt"
    for name, value in said.items():
        if name not in TAKES or not isinstance(value, TAKES[name]):  # type: ignore[arg-type]
            return str(name)
    size = said.get("image_size")
    if size is not None and {name for name, value in size.items() if isinstance(value, int)} != {"width", "height"}:
        return "image_size"
    return (
        None if said.get("num_images", 1) == 1 and said.get("output_format", "png") in {"png", "jpeg"} else "num_images"
    )
