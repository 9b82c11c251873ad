"""Images by OpenAI's Images API: one call waits for the image, which comes as Base64 in the answer.

https://platform.openai.com/docs/api-reference/images/create · https://platform.openai.com/docs/guides/image-generation
https://platform.openai.com/docs/guides/error-codes · https://developers.openai.com/api/docs/pricing (tokens)

There is no job id, so nothing can be looked up, and no documented idempotency key: the official client has a place for
one and leaves it empty. What was asked and not answered may have been billed, and is counted so. No seed, no negative
prompt, no steps; older models make three sizes only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal

from giclee.gpu_worker import template
from giclee.gpu_worker.attempt import BY_STATUS, Access, Attempt, Failed, Ruling, Rulings, ruled
from giclee.gpu_worker.http import ANSWER_MAX_BYTES, Caller, Reply
from giclee.gpu_worker.provider import Capabilities, Made, ModelUnusable
from giclee.gpu_worker.received import Unusable, from_base64
from giclee.schemas.models import Model
from giclee.schemas.parts import USD_PLACES

BASE_URL = "https://api.openai.com/v1"
TAKES = frozenset({"prompt", "size"})
QUALITIES = ("low", "medium", "high")
BUCKETS = ((1024, 1024), (1536, 1024), (1024, 1536))
"""Pixels; all that models before gpt-image-2 make."""
ANY_SIZE = re.compile(r"^gpt-image-2(?!\d)")
"""Models that take WIDTHxHEIGHT: multiples of 16, at most 1:3 or 3:1, no side over 3840."""
SIDE_MULTIPLE, RATIO_MAX, SIDE_MAX = 16, 3.0, 3840

USD_PER_MILLION: Mapping[str, tuple[Decimal, Decimal, Decimal]] = {
    "gpt-image-1-mini": (Decimal("2"), Decimal("2.5"), Decimal("8")),
    "gpt-image-1": (Decimal("5"), Decimal("10"), Decimal("40")),
    "gpt-image-2": (Decimal("5"), Decimal("8"), Decimal("30")),
}
"""By model, snapshots included: text in, image in, image out. A model that is not here does not tell what it cost."""

RULINGS: Rulings = {
    **BY_STATUS,
    # by `error.code`, then `error.type`
    "moderation_blocked": Ruling("refused-content"),  # before the image is made or after: it does not say
    "content_policy_violation": Ruling("refused-content"),
    "image_generation_user_error": Ruling("invalid", billed=False),
    "insufficient_quota": Ruling("budget", billed=False),
    "billing_hard_limit_reached": Ruling("budget", billed=False),
    "credit_balance_exhausted": Ruling("budget", billed=False),
    "organization_spend_limit_exceeded": Ruling("budget", billed=False),
    "project_spend_limit_exceeded": Ruling("budget", billed=False),
    "organization_usage_limit_exceeded": Ruling("budget", billed=False),
    "rate_limit_exceeded": Ruling("rate", billed=False),
    "invalid_api_key": Ruling("auth", billed=False),
    "server_is_overloaded": Ruling("transient", billed=False),
    "slow_down": Ruling("rate", billed=False),
    # by status
    408: Ruling("timeout"),
}


class OpenaiImages:
    """OpenAI. A row's `location` is a model and a quality: `gpt-image-2-2026-04-21/medium`."""

    name, needs_key, give_up = "openai", True, None
    capabilities = Capabilities(
        seed=False,
        negative_prompt=False,
        steps=False,
        guidance=False,
        reference_image=False,
        concurrency=8,
        data_terms="API inputs and outputs are not trained on by default and are kept up to 30 days to detect abuse.",
    )

    def __init__(self, access: Access) -> None:
        self.caller = Caller(BASE_URL, access, headers={"authorization": f"Bearer {access.key}"})
        self._answer_max_bytes = access.image_max_bytes * 4 // 3 + ANSWER_MAX_BYTES

    def where(self, model: Model) -> str:
        return ", ".join(_named(model))

    async def one(self, attempt: Attempt) -> Made:
        if attempt.earlier is not None:
            attempt.lost(billed=True)  # there is no job to ask for
        name, quality = _named(attempt.model)
        template.tell_dropped(attempt, TAKES, name)
        asked = attempt.ask.shape
        width, height = _size(name, asked.width, asked.height)
        if (width, height) != (asked.width, asked.height):
            attempt.adjust(
                "size", f"{asked.width}x{asked.height}", f"{width}x{height}", f"{name} makes no other near it"
            )
        body = {
            "model": name,
            "prompt": attempt.ask.prompt,
            "size": f"{width}x{height}",
            "quality": quality,
            "n": 1,
            "output_format": "png",
        }
        attempt.pays()
        reply = await self.caller.ask(
            "POST",
            "images/generations",
            body=body,
            answer_max_bytes=self._answer_max_bytes,
            within_s=attempt.left_s,
            paying=True,
        )
        if not reply.good:
            raise _failure(reply)
        attempt.cost_usd = _cost(name, reply)
        picture = await attempt.received(_image(reply))
        return attempt.made(picture, how=f"openai {name}, {quality}")


def _named(model: Model) -> tuple[str, str]:
    """The model and the quality that a row names. Errors: ModelUnusable: a quality left open has no price."""
    name, _, quality = model.location.partition("/")
    if not name or quality not in QUALITIES:
        raise ModelUnusable(f"model {model.name}: location must be MODEL/QUALITY, with one of {', '.join(QUALITIES)}")
    return name, quality


def _size(name: str, width: int, height: int) -> tuple[int, int]:
    """The size to ask for: as asked where the model can, else the bucket nearest in shape, the larger of two."""
    ratio = width / height
    fits = not (width % SIDE_MULTIPLE or height % SIDE_MULTIPLE) and max(width, height) <= SIDE_MAX
    if ANY_SIZE.match(name) and fits and 1 / RATIO_MAX <= ratio <= RATIO_MAX:
        return width, height
    return min(BUCKETS, key=lambda one: (abs(one[0] / one[1] - ratio), -one[0] * one[1]))


def _image(reply: Reply) -> bytes:
    """Errors: Failed for an answer without an image, which is never an empty success."""
    text = reply.text("data", 0, "b64_json")
    if text is None:
        raise Failed("unusable", f"an answer without an image: {reply.said}")
    try:
        return from_base64(text)
    except Unusable as error:
        raise Failed("unusable", str(error)) from error


def _cost(name: str, reply: Reply) -> Decimal | None:
    """What the answer's tokens cost in US dollars; None where they or their prices are not told."""
    prices = next((row for known, row in USD_PER_MILLION.items() if re.match(rf"{known}(-\d|$)", name)), None)
    tokens = [
        reply.told("usage", "input_tokens_details", "text_tokens"),
        reply.told("usage", "input_tokens_details", "image_tokens"),
        reply.told("usage", "output_tokens"),
    ]
    if prices is None or not all(type(count) is int and count >= 0 for count in tokens):
        return None
    usd = sum((Decimal(count) * price for count, price in zip(tokens, prices, strict=True)), Decimal(0)) / 1_000_000
    return usd.quantize(Decimal(1).scaleb(-USD_PLACES), ROUND_CEILING)


def _failure(reply: Reply) -> Failed:
    said = reply.text("error", "message") or reply.said
    codes = [reply.text("error", "code"), reply.text("error", "type")]
    if codes[0] is None and "safety system" in said:  # refusals of older models have no code
        codes.insert(0, "moderation_blocked")
    return ruled(RULINGS, reply.status, codes, said, retry_after_s=reply.retry_after_s)
