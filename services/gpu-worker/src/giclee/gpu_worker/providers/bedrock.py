"""Images by Amazon Bedrock's InvokeModel: one call waits for the image, which comes as Base64 in the answer.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html (errors)
https://docs.aws.amazon.com/nova/latest/userguide/image-gen-req-resp-structure.html, …/image-gen-errors.html
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-image.html, …-diffusion-3-5-large.html

No job id, no client token, no word of a cost. AWS set an end to Nova Canvas (2026-09-30), as to Titan before it: who
keeps access uses the same bodies, everybody else has Stability's models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias
from urllib.parse import quote

from aiobotocore.session import get_session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError

from giclee.gpu_worker import template
from giclee.gpu_worker.attempt import BY_STATUS, Access, Attempt, Failed, Ruling, Rulings, ruled
from giclee.gpu_worker.http import ANSWER_MAX_BYTES, Caller, Reply
from giclee.gpu_worker.provider import Capabilities, Made, ModelUnusable
from giclee.gpu_worker.received import Unusable, from_base64
from giclee.schemas.models import Model

BASE_URL = "https://bedrock-runtime.us-east-1.amazonaws.com"
_REGION = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")

QUALITIES = ("standard", "premium")
CFG_MIN, CFG_MAX = 1.1, 10.0
ASPECTS = ("1:1", "3:2", "2:3", "5:4", "4:5", "16:9", "9:16", "21:9", "9:21")

RULINGS: Rulings = {
    **BY_STATUS,
    # words of a ValidationException about content, and of a denial about money
    "content filters": Ruling("refused-content", billed=False),
    "INVALID_PAYMENT_INSTRUMENT": Ruling("budget", billed=False),
    # by exception
    "AccessDeniedException": Ruling("auth", billed=False),
    "UnrecognizedClientException": Ruling("auth", billed=False),
    "InvalidClientTokenId": Ruling("auth", billed=False),
    "InvalidSignatureException": Ruling("auth", billed=False),
    "ExpiredTokenException": Ruling("auth", billed=False),
    "ThrottlingException": Ruling("rate", billed=False),
    "ServiceQuotaExceededException": Ruling("rate", billed=False),
    "ModelNotReadyException": Ruling("transient", billed=False),
    "ServiceUnavailableException": Ruling("transient", billed=False),
    "ModelTimeoutException": Ruling("timeout"),
    "ModelErrorException": Ruling("transient"),
    "ValidationException": Ruling("invalid", billed=False),
    "ResourceNotFoundException": Ruling("invalid", billed=False),
    # by status
    408: Ruling("timeout"),
}
_WORDS = ("content filters", "INVALID_PAYMENT_INSTRUMENT")


CAPABILITIES = Capabilities(
    seed=True,
    negative_prompt=True,
    steps=False,
    guidance=True,
    reference_image=False,
    concurrency=8,
    data_terms="Prompts and images are not stored, not used to train and not shared with model providers.",
)


class Bedrock:
    """Amazon Bedrock. A row's `location` is a model id, with a quality where the model has them:
    `amazon.nova-canvas-v1:0/standard`, `stability.stable-image-core-v1:1`. The key is `ACCESS_KEY_ID:SECRET`, else the
    default credential chain; the region is that of the base address."""

    name, needs_key, give_up = "bedrock", False, None

    def __init__(self, access: Access) -> None:
        self._access = access
        self.caller = Caller(BASE_URL, access, headers={})
        found = _REGION.search(self.caller.base_url)
        self._region = found[1] if found else "us-east-1"
        self.capabilities = replace(CAPABILITIES, region=self._region)
        self._answer_max_bytes = access.image_max_bytes * 4 // 3 + ANSWER_MAX_BYTES
        self._chain: Any = None

    def where(self, model: Model) -> str:
        if self._access.key is not None and ":" not in self._access.key:
            raise ModelUnusable(f"model {model.name}: the key of bedrock must be ACCESS_KEY_ID:SECRET")
        return f"{_named(model)[0]} in {self._region}"

    async def one(self, attempt: Attempt) -> Made:
        if attempt.earlier is not None:
            attempt.lost(billed=True)  # there is no job to ask for
        name, body_of = _named(attempt.model)
        path = f"model/{quote(name, safe='')}/invoke"
        body = json.dumps(body_of(attempt)).encode()
        headers = await self._signed(path, body)
        attempt.pays()
        reply = await self.caller.ask(
            "POST",
            path,
            body=body,
            headers=headers,
            answer_max_bytes=self._answer_max_bytes,
            within_s=attempt.left_s,
            paying=True,
        )
        if not reply.good:
            raise _failure(reply)
        picture = await attempt.received(_image(reply))
        return attempt.made(picture, how=f"bedrock {name}", pinned=True)

    async def _signed(self, path: str, body: bytes) -> dict[str, str]:
        """The headers of a call, with its signature: botocore's own signer, and not the calls around it, which follow
        redirects. Errors: Failed without credentials."""
        try:
            credentials = await self._credentials()
        except (BotoCoreError, OSError) as error:
            raise Failed("auth", f"no AWS credentials: {type(error).__name__}", billed=False) from error
        sent = {"content-type": "application/json"}
        request = AWSRequest("POST", f"{self.caller.base_url}/{path}", headers=sent, data=body)
        SigV4Auth(credentials, "bedrock", self._region).add_auth(request)
        return {name.lower(): text for name, text in request.headers.items()}

    async def _credentials(self) -> ReadOnlyCredentials:
        """Errors: Failed, BotoCoreError, OSError."""
        if self._access.key is not None:
            key, _, secret = self._access.key.partition(":")
            return ReadOnlyCredentials(key, secret, None)
        if self._chain is None:
            self._chain = await get_session().get_credentials()
        if self._chain is None:
            raise Failed("auth", "there are no AWS credentials", billed=False)
        found: ReadOnlyCredentials = await self._chain.get_frozen_credentials()  # renewed in time where they expire
        return found


# ---- what each family of models is sent ---------------------------------------------------------

Body: TypeAlias = Callable[[Attempt], dict[str, Any]]


def _amazon(quality: str, *, text_max: int, seed_max: int, who: str) -> Body:
    """Nova Canvas and Titan differ in two limits: characters of a text, and the largest seed."""

    def body(attempt: Attempt) -> dict[str, Any]:
        ask, shape = attempt.ask, attempt.ask.shape
        template.tell_dropped(attempt, frozenset({"seed", "negative_prompt", "guidance_scale", "width", "height"}), who)
        texts = {"text": _shortened(attempt, "prompt", ask.prompt, text_max)}
        if ask.negative_prompt and shape.negative:
            texts["negativeText"] = _shortened(attempt, "negative_prompt", ask.negative_prompt, text_max)
        scale = min(max(shape.guidance_scale, CFG_MIN), CFG_MAX)
        if scale != shape.guidance_scale:
            attempt.adjust("guidance_scale", f"{shape.guidance_scale:g}", f"{scale:g}", f"{who} takes 1.1 to 10")
        config = {
            "width": shape.width,
            "height": shape.height,
            "quality": quality,
            "cfgScale": scale,
            "seed": _seed(attempt, 0, seed_max, who),
            "numberOfImages": 1,
        }
        return {"taskType": "TEXT_IMAGE", "textToImageParams": texts, "imageGenerationConfig": config}

    return body


def _stability(attempt: Attempt) -> dict[str, Any]:
    """Stable Image and Stable Diffusion 3.5: one megapixel in one of nine shapes."""
    ask, shape, who = attempt.ask, attempt.ask.shape, "Stability's model"
    template.tell_dropped(attempt, frozenset({"seed", "negative_prompt"}), who)
    ratio = shape.width / shape.height
    body = {
        "prompt": _shortened(attempt, "prompt", ask.prompt, 10_000),
        "mode": "text-to-image",
        "aspect_ratio": min(ASPECTS, key=lambda one: abs(_ratio(one) - ratio)),
        "seed": _seed(attempt, 1, 4_294_967_294, who),  # 0 is a random one
        "output_format": "png",
    }
    if ask.negative_prompt and shape.negative:
        body["negative_prompt"] = _shortened(attempt, "negative_prompt", ask.negative_prompt, 10_000)
    return body


def _named(model: Model) -> tuple[str, Body]:
    """The model id of a row and how its body is made. Errors: ModelUnusable."""
    name, _, quality = model.location.partition("/")
    if "stability." in name and not quality:
        return name, _stability
    if quality in QUALITIES and "amazon.nova-canvas" in name:
        return name, _amazon(quality, text_max=1024, seed_max=858_993_459, who="Nova Canvas")
    if quality in QUALITIES and "amazon.titan-image" in name:
        return name, _amazon(quality, text_max=512, seed_max=2_147_483_646, who="Titan Image Generator")
    known = "amazon.nova-canvas…/QUALITY, amazon.titan-image…/QUALITY (standard or premium) or stability.…"
    raise ModelUnusable(f"model {model.name}: location must be {known}")


def _shortened(attempt: Attempt, field: str, text: str, chars_max: int) -> str:
    if len(text) > chars_max:
        attempt.adjust(field, f"{len(text)} characters", f"{chars_max} characters", "the model reads no more")
    return text[:chars_max]


def _seed(attempt: Attempt, least: int, most: int, who: str) -> int:
    """The seed, folded into the model's range where it is outside."""
    seed = attempt.ask.seed
    if least <= seed <= most:
        return seed
    used = attempt.seed = least + seed % (most - least + 1)
    attempt.adjust("seed", str(seed), str(used), f"{who} takes {least} to {most}")
    return used


def _ratio(text: str) -> float:
    width, _, height = text.partition(":")
    return int(width) / int(height)


# ---- what comes back ----------------------------------------------------------------------------


def _image(reply: Reply) -> bytes:
    """Errors: Failed for an answer without an image: blocked, failed or empty."""
    blocked = reply.text("error") or reply.text("finish_reasons", 0)
    if blocked is not None:
        refused = "content filters" in blocked or blocked.startswith("Filter reason")
        raise Failed("refused-content" if refused else "transient", blocked)
    text = reply.text("images", 0)
    if text is None:
        raise Failed("unusable", f"an answer without an image: {reply.said}")
    try:
        return from_base64(text)
    except Unusable as error:
        raise Failed("unusable", str(error)) from error


def _failure(reply: Reply) -> Failed:
    """An error is named by a header, `x-amzn-errortype: NAME:address`, or by `__type` in the body."""
    kind = reply.headers.get("x-amzn-errortype") or reply.text("__type") or ""
    kind = kind.partition(":")[0].rpartition("#")[2]
    said = reply.text("message") or reply.text("Message") or reply.said
    codes = [*(word for word in _WORDS if word in said), kind]
    return ruled(RULINGS, reply.status, codes, f"{kind}: {said}", retry_after_s=reply.retry_after_s)
