"""Amazon Bedrock's InvokeModel for Nova Canvas, Titan and Stability, from
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html,
https://docs.aws.amazon.com/nova/latest/userguide/image-gen-req-resp-structure.html, …/image-gen-errors.html and
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-diffusion-3-5-large.html."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from tests.lab.desk import Desk
from tests.lab.state import Job, Lab

REGION = "us-east-1"
SECRETS = {"AKIALAB0123456789": "lab+secret/0123456789abcdef"}
PRICE_USD = Decimal("0.04")
BLOCKED_TEXT = (
    "This request has been blocked by our content filters. Please adjust your text prompt to submit a new request."
)
BLOCKED_IMAGES = "All of the generated images have been blocked by our content filters."
OWN: dict[str, tuple[int, Any]] = {
    "revoked": (
        403,
        {"__type": "UnrecognizedClientException", "message": "The security token included in the request is invalid."},
    ),
    "no-credit": (
        403,
        {
            "__type": "AccessDeniedException",
            "message": "Model access is denied due to INVALID_PAYMENT_INSTRUMENT:A valid payment instrument must be "
            "provided.",
        },
    ),
    "refused": (400, {"__type": "ValidationException", "message": BLOCKED_TEXT}),
    "throttled": (429, {"__type": "ThrottlingException", "message": "Too many requests, please wait."}),
    "model-error": (424, {"__type": "ModelErrorException", "message": "The request failed while processing."}),
    "model-timeout": (408, {"__type": "ModelTimeoutException", "message": "The request took too long."}),
}
LIMITS = {"amazon.nova-canvas-v1:0": (1024, 858_993_459), "amazon.titan-image-generator-v2:0": (512, 2_147_483_646)}
STABILITY_SIZES = {"1:1": (1024, 1024), "16:9": (1344, 768), "3:2": (1216, 832), "2:3": (832, 1216)}


def application(lab: Lab) -> web.Application:
    desk, app = Desk(lab, "bedrock", OWN), web.Application()

    async def invoke(request: web.Request) -> web.StreamResponse:
        return await desk.answer(request, "submit", lambda: _invoke(lab, request))

    app.router.add_post("/model/{id}/invoke", invoke)
    return app


def _refusal(kind: str, message: str, status: int = 400) -> web.Response:
    return web.json_response({"message": message}, status=status, headers={"x-amzn-errortype": kind})


async def _invoke(lab: Lab, request: web.Request) -> web.Response:
    if not request.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 Credential="):
        return _refusal("MissingAuthenticationToken", "Missing Authentication Token", 403)
    if not _is_signed(request, await request.read()):
        return _refusal("InvalidSignatureException", "The request signature we calculated does not match", 403)
    name, said = request.match_info["id"], await request.json()
    if name.startswith("stability."):
        return _stability(lab, said)
    if name not in LIMITS:
        return _refusal("ResourceNotFoundException", "Could not resolve the foundation model", 404)
    wrong = _wrong(said, *LIMITS[name])
    if wrong:
        return _refusal("ValidationException", f"Malformed input request: {wrong}")
    config, text = said["imageGenerationConfig"], said["textToImageParams"]["text"]
    size, usd = (config["width"], config["height"]), lab.price("bedrock", PRICE_USD)
    job = lab.begin(Job("bedrock", text, *size, config["seed"], key=None, usd=usd))
    if job.look == "unsafe":
        return web.json_response({"images": [], "error": BLOCKED_IMAGES})
    if job.look == "nothing":
        return web.json_response({"images": [], "error": None})
    return web.json_response({"images": [base64.b64encode(lab.picture(job)).decode()], "error": None})


def _is_signed(request: web.Request, body: bytes) -> bool:
    """Whether the signature is that of the request as it arrived; only the keys that the lab knows are checked."""
    told = request.headers["Authorization"]
    secret = SECRETS.get(told.partition("Credential=")[2].partition("/")[0])
    if secret is None:
        return True
    signer = SigV4Auth(ReadOnlyCredentials("", secret, None), "bedrock", REGION)
    signed = {name: request.headers[name] for name in ("Content-Type", "X-Amz-Date")}
    url = f"http://{request.headers['Host']}{request.raw_path}"
    arrived = AWSRequest(request.method, url, headers=signed, data=body)
    arrived.context["timestamp"] = request.headers["X-Amz-Date"]
    signature = signer.signature(signer.string_to_sign(arrived, signer.canonical_request(arrived)), arrived)
    return told.endswith(f"Signature={signature}")


def _stability(lab: Lab, said: dict[str, Any]) -> web.Response:
    known = {"prompt", "mode", "aspect_ratio", "seed", "output_format", "negative_prompt"}
    if set(said) - known or not 0 <= said.get("seed", 0) <= 4_294_967_294:
        return _refusal("ValidationException", "Malformed input request")
    size = STABILITY_SIZES[said.get("aspect_ratio", "1:1")]
    usd = lab.price("bedrock", PRICE_USD)
    job = lab.begin(Job("bedrock", said["prompt"], *size, said.get("seed", 0), key=None, usd=usd))
    if job.look == "unsafe":
        return web.json_response({"finish_reasons": ["Filter reason: prompt"]})
    image = base64.b64encode(lab.picture(job)).decode()
    return web.json_response({"seeds": [job.seed], "finish_reasons": [None], "images": [image]})


def _wrong(said: Any, text_max: int, seed_max: int) -> str | None:
    """What is not as it is documented."""
    if set(said) != {"taskType", "textToImageParams", "imageGenerationConfig"} or said["taskType"] != "TEXT_IMAGE":
        return "required key not found"
    texts, config = said["textToImageParams"], said["imageGenerationConfig"]
    if set(texts) - {"text", "negativeText"} or not all(1 <= len(text) <= text_max for text in texts.values()):
        return "#/textToImageParams"
    if set(config) - {"width", "height", "quality", "cfgScale", "seed", "numberOfImages"}:
        return "#/imageGenerationConfig: extraneous key"
    sides = (config["width"], config["height"])
    fits = all(320 <= side <= 4096 and side % 16 == 0 for side in sides) and sides[0] * sides[1] <= 4_194_304
    if not fits or config["quality"] not in {"standard", "premium"} or config["numberOfImages"] != 1:
        return "#/imageGenerationConfig"
    if not (1.1 <= config["cfgScale"] <= 10 and 0 <= config["seed"] <= seed_max):
        return "#/imageGenerationConfig/seed"
    return None
