"""ComfyUI's server, from https://docs.comfy.org/development/comfyui-server/comms_routes and its own server.py: /prompt,
/queue, /history/{id}, /view. It reads the workflow of script_examples/basic_api_example.py."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.lab.desk import Desk, png, problem
from tests.lab.state import Job, Lab

PRICE_USD = Decimal("0.001")
"""What the user's own card costs for an image; nobody bills it, the lab counts it."""
_INVALID = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": ""}
OWN: dict[str, tuple[int, Any]] = {
    "refused": (400, {"error": {**_INVALID, "extra_info": {}}, "node_errors": {"3": {"errors": []}}}),
    # what a proxy in front of it says
    "no-credit": (402, {"error": "payment required"}),
    "revoked": (401, {"error": "unauthorized"}),
}


def application(lab: Lab) -> web.Application:
    desk, app = Desk(lab, "comfyui", OWN), web.Application()
    calls = Calls(lab)

    def at(call: str, method: str, path: str, good: Any) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await desk.answer(request, call, lambda: good(request))

        app.router.add_route(method, path, handle)

    at("submit", "POST", "/prompt", calls.prompt)
    at("status", "GET", "/history/{id}", calls.history)
    at("queue", "GET", "/queue", calls.queue)
    at("cancel", "POST", "/queue", calls.delete)
    at("image", "GET", "/view", calls.view)
    return app


class Calls:
    """What ComfyUI answers when nothing is wrong."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    async def prompt(self, request: web.Request) -> web.Response:
        said = await request.json()
        read = _read(said.get("prompt"))
        if read is None:
            return problem(400, error={**_INVALID, "extra_info": {}}, node_errors={})
        text, negative, width, height, sampler = read
        usd = self._lab.price("comfyui", PRICE_USD)
        job = Job("comfyui", text, width, height, sampler["seed"], key=said.get("prompt_id"), usd=usd)
        # servers before July 2025 know no prompt_id and choose one
        old = self._lab.take("comfyui", "old-server") is not None
        job.id = str(uuid.uuid4()) if old or "prompt_id" not in said else said["prompt_id"]
        job.extra = {"negative": negative, "steps": sampler["steps"], "cfg": sampler["cfg"]}
        self._lab.begin(job)
        return web.json_response({"prompt_id": job.id, "number": len(self._lab.jobs), "node_errors": {}})

    async def history(self, request: web.Request) -> web.Response:
        job = self._lab.jobs.get(request.match_info["id"])
        if job is None or job.state in {"waiting", "running"}:
            return web.json_response({})
        saved = {"filename": f"{job.id}.png", "subfolder": "", "type": "output"}
        outputs: dict[str, Any] = {} if job.look == "nothing" or job.state == "failed" else {"9": {"images": [saved]}}
        status = {"status_str": "success", "completed": True, "messages": [["execution_success", {}]]}
        if job.state == "failed":
            about = {"exception_message": job.error, "exception_type": job.extra.get("kind", "RuntimeError")}
            status = {"status_str": "error", "completed": False, "messages": [["execution_error", about]]}
        return web.json_response({job.id: {"prompt": [], "outputs": outputs, "status": status}})

    async def queue(self, request: web.Request) -> web.Response:
        rows: dict[str, list[Any]] = {"waiting": [], "running": []}
        for number, job in enumerate(list(self._lab.jobs.values())):
            if job.provider == "comfyui" and job.state in rows:
                rows[job.state].append([number, job.id, {}, {}, []])
                self._lab.asked(job)
        return web.json_response({"queue_running": rows["running"], "queue_pending": rows["waiting"]})

    async def delete(self, request: web.Request) -> web.Response:
        for job_id in (await request.json()).get("delete", ()):
            job = self._lab.jobs.get(job_id)
            if job is not None and job.state == "waiting":
                del self._lab.jobs[job_id]
        return web.Response(status=200)

    async def view(self, request: web.Request) -> web.Response:
        job = self._lab.jobs.get(request.query["filename"].removesuffix(".png"))
        return png(self._lab.picture(job)) if job is not None else web.Response(status=404)


def _read(workflow: Any) -> tuple[str, str, int, int, dict[str, Any]] | None:
    """What a workflow asks for, followed along its links; None for one that does not hold together."""
    try:
        sampler = next(node for node in workflow.values() if node["class_type"] == "KSampler")["inputs"]
        latent = workflow[sampler["latent_image"][0]]["inputs"]
        texts = [workflow[sampler[side][0]]["inputs"]["text"] for side in ("positive", "negative")]
        numbers = (latent["width"], latent["height"], sampler["seed"], sampler["steps"])
    except (AttributeError, KeyError, StopIteration, TypeError, IndexError):
        return None
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(number, int) for number in numbers):
        return None
    return texts[0], texts[1], latent["width"], latent["height"], sampler
