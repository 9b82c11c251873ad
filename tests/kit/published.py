"""What tests of published examples share: the pages, in which fields we differ and why, and a server that answers."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import SecretStr

from giclee.gpu_worker.provider import Answer, Ask
from giclee.gpu_worker.providers import TABLE, Kit
from giclee.schemas.models import Model
from tests.kit.candidates import model
from tests.kit.ops_stub import OpsStub

FAL_QUEUE = "https://docs.fal.ai/model-apis/model-endpoints/queue"
FAL_WEBHOOKS = "https://docs.fal.ai/model-apis/model-endpoints/webhooks"
FAL_ERRORS = "https://docs.fal.ai/model-apis/errors"
FAL_REQUEST_ERRORS = "https://docs.fal.ai/documentation/model-apis/request-errors"
_CASSETTES = (
    "https://github.com/replicate/replicate-python/blob/0110c2c5639763a44e73d69011eaec28a15334f7/tests/cassettes"
)
REPLICATE_RUN = f"{_CASSETTES}/run.yaml"
REPLICATE_CANCEL = f"{_CASSETTES}/predictions-cancel.yaml"
REPLICATE_TOKEN = f"{_CASSETTES}/run__invalid-token.yaml"
REPLICATE_RATE = "https://replicate.com/docs/topics/predictions/rate-limits"
OPENAI = "https://github.com/openai/openai-openapi/blob/f85dbe223d40e1a31cba812ab2d755c7e98a92a3/openapi.yaml"
OPENAI_ERRORS = "https://developers.openai.com/docs/guides/error-codes"
_AWS = "https://github.com/awsdocs/aws-doc-sdk-examples/blob/main/python/example_code/bedrock-runtime/models"
NOVA = f"{_AWS}/amazon_nova/amazon_nova_canvas/invoke_model.py"
NOVA_ERRORS = "https://docs.aws.amazon.com/nova/latest/userguide/image-gen-errors.html"
TITAN = f"{_AWS}/amazon_titan_image_generator/invoke_model.py"
STABILITY = "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-diffusion-3-5-large.html"
INVOKE_MODEL = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html"
_COMFYUI = "https://github.com/Comfy-Org/ComfyUI/blob/master"
COMFYUI = f"{_COMFYUI}/script_examples/basic_api_example.py"
COMFYUI_HISTORY = f"{_COMFYUI}/script_examples/websockets_api_example.py"
COMFYUI_SERVER, COMFYUI_EXECUTION = f"{_COMFYUI}/server.py", f"{_COMFYUI}/execution.py"
PAGES = sorted(one for name, one in globals().items() if name.isupper() and name[0] != "_" and "://" in str(one))

DIFFERS: dict[str, dict[str, str]] = {
    "fal": {
        "image_size.width": "a request has a size",
        "image_size.height": "a request has a size",
        "num_inference_steps": "the row's, or what was asked",
        "guidance_scale": "the row's, or what was asked",
        "seed": "ours, so that an image can be made again",
        "num_images": "one call is one candidate: the default, said aloud",
        "output_format": "PNG loses nothing; the default is JPEG",
    },
    "replicate": {},
    "openai": {
        "quality": "left open it may cost fifteen times as much",
        "output_format": "the default, said aloud",
    },
    "nova": {"imageGenerationConfig.cfgScale": "the row's, or what was asked"},
    "titan": {},
    "stability": {
        "mode": "the default, said aloud",
        "aspect_ratio": "the nearest to the size that was asked",
        "seed": "ours, so that an image can be made again",
        "output_format": "PNG loses nothing",
    },
    "comfyui": {"prompt_id": "an id of ours finds the run after a crash"},
}
KEY = "key-id-0123456789:key-secret-0123456789"


def differing(published: Any, sent: Any, path: str = "") -> set[str]:
    """The paths of the fields in which two bodies differ, or that one of them lacks."""
    if isinstance(published, dict) and isinstance(sent, dict):
        names = published.keys() | sent.keys()
        return set().union(*(differing(published.get(n), sent.get(n), f"{path}.{n}".strip(".")) for n in names))
    if published is None and isinstance(sent, dict):
        return differing({}, sent, path)
    return set() if published == sent else {path}


def png() -> bytes:
    found = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).save(found, "PNG")
    return found.getvalue()


PNG = png()
TEXT = base64.b64encode(PNG).decode()


def here(service: OpsStub, published: Any) -> Any:
    """An example whose addresses lead to the server."""
    return json.loads(re.sub(r'https://[^/"]+', service.url, json.dumps(published)))


def row_of(provider: str, location: str | Path, **fields: Any) -> Model:
    said = {"provider": provider, "location": str(location), "pool": "hosted", "price_usd": "0.03", "width": 512}
    return model(f"{provider}-row", **{**said, "height": 512, "size_max": 2048, **fields})


async def answered(service: OpsStub, row: Model, one: Ask, *, deadline_s: float = 10.0) -> Answer:
    """What the adapter makes of the server's answers."""
    name = row.provider
    base = service.url + ("/v1" if name in {"replicate", "openai"} else "")
    built = TABLE[name](Kit(keys={name: SecretStr(KEY)}, base_urls={name: base}, deadline_s=deadline_s))
    try:
        return (await built.make(row, [one], 1))[0]
    finally:
        await built.close()
