"""OpenAI's images/generations, from https://platform.openai.com/docs/api-reference/images/create,
https://platform.openai.com/docs/guides/error-codes and https://developers.openai.com/api/docs/pricing."""

from __future__ import annotations

import base64
import re
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.lab.desk import Desk, problem
from tests.lab.state import Job, Lab

PRICES = {
    "gpt-image-2-2026-04-21": (Decimal("0.000005"), Decimal("0.00003")),
    "gpt-image-1-mini": (Decimal("0.000002"), Decimal("0.000008")),
}
"""US dollars a token: text in, image out."""
OUTPUT_TOKENS = {"low": 272, "medium": 1056, "high": 4160}
BUCKETS = {"1024x1024", "1536x1024", "1024x1536"}
TAKES = {"model", "prompt", "size", "quality", "n", "output_format", "background", "moderation", "user"}


def _error(message: str, kind: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


OWN: dict[str, tuple[int, Any]] = {
    "revoked": (
        401,
        _error(
            "Incorrect API key provided: sk-lab-****. Find it at https://platform.openai.com.",
            "invalid_request_error",
            "invalid_api_key",
        ),
    ),
    "no-credit": (
        429,
        _error(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "credit_balance_exhausted",
        ),
    ),
    "refused": (
        400,
        _error("Your request was rejected by the safety system.", "image_generation_user_error", "moderation_blocked"),
    ),
}


def application(lab: Lab) -> web.Application:
    desk, app = Desk(lab, "openai", OWN), web.Application()

    async def create(request: web.Request) -> web.StreamResponse:
        return await desk.answer(request, "submit", lambda: _create(lab, request))

    app.router.add_post("/v1/images/generations", create)
    return app


async def _create(lab: Lab, request: web.Request) -> web.Response:
    said = await request.json()
    if not request.headers.get("Authorization", "").startswith("Bearer "):
        return problem(401, **OWN["revoked"][1])
    if set(said) - TAKES or not isinstance(said.get("prompt"), str) or said.get("model") not in PRICES:
        wrong = sorted(set(said) - TAKES) or ["model"]
        return problem(400, **_error(f"Unknown parameter: '{wrong[0]}'.", "invalid_request_error", "unknown_parameter"))
    size, quality = said.get("size", "1024x1024"), said.get("quality", "medium")
    if not _takes(said["model"], size) or quality not in OUTPUT_TOKENS:
        return problem(400, **_error(f"Invalid value: '{size}'.", "invalid_request_error", "invalid_value"))
    width, height = map(int, size.split("x"))
    tokens_in = max(1, len(said["prompt"]) // 4)
    tokens_out = int(OUTPUT_TOKENS[quality] * lab.factor["openai"])
    price_in, price_out = PRICES[said["model"]]
    usd = tokens_in * price_in + tokens_out * price_out
    key = request.headers.get("Idempotency-Key")
    # no seed: every image is another one
    seed = len(lab.jobs) + 1
    job = lab.begin(Job("openai", said["prompt"], width, height, seed, key=key, usd=usd))
    images = [] if job.look == "nothing" else [{"b64_json": base64.b64encode(lab.picture(job)).decode()}]
    return web.json_response(
        {
            "created": 1713833628,
            "data": images,
            "background": "opaque",
            "output_format": said.get("output_format", "png"),
            "size": size,
            "quality": quality,
            "usage": {
                "total_tokens": tokens_in + tokens_out,
                "input_tokens": tokens_in,
                "output_tokens": tokens_out,
                "input_tokens_details": {"text_tokens": tokens_in, "image_tokens": 0},
            },
        }
    )


def _takes(model: str, size: str) -> bool:
    """gpt-image-2 takes any multiple of 16 within 1:3 and 3:1, the others three sizes."""
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", size)
    if found is None:
        return False
    width, height = int(found[1]), int(found[2])
    any_size = model.startswith("gpt-image-2") and not (width % 16 or height % 16) and 1 / 3 <= width / height <= 3
    return size in BUCKETS or (any_size and max(width, height) <= 3840)
