"""Hosted adapters that answer with the image against their providers' published examples, by link; see
test_published_jobs.py. Base64 is ours."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader

from giclee.gpu_worker.providers import HOSTED
from tests.contract.provider_suite import ask, call, made, not_made
from tests.kit import ops_stub
from tests.kit.ops_stub import OpsStub
from tests.kit.published import DIFFERS, KEY, PAGES, PNG, TEXT, answered, differing, row_of

ROBOT = "A stylized picture of a cute old steampunk robot."


@pytest.fixture
def service() -> Iterator[OpsStub]:
    with ops_stub.running() as stub:
        yield stub


# ---- OpenAI -------------------------------------------------------------------------------------

OTTER = {"model": "gpt-image-1.5", "prompt": "A cute baby sea otter", "n": 1, "size": "1024x1024"}
OTTER_ANSWER = {
    "created": 1713833628,
    "data": [{"b64_json": TEXT}],
    "usage": {
        "total_tokens": 100,
        "input_tokens": 50,
        "output_tokens": 50,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    },
}


@pytest.mark.parametrize(("name", "cost"), [("gpt-image-1.5", None), ("gpt-image-1", Decimal("0.00245"))])
async def test_openai(service: OpsStub, name: str, cost: Decimal | None) -> None:
    """OPENAI, `/images/generations`, example "Generate image". The example's model has text in its output, which has a
    price of its own, so it does not tell its cost; the same tokens of one that has none: 10 x 5 + 40 x 10 + 50 x 40."""
    service.answers = {"POST /v1/images/generations": [OTTER_ANSWER]}
    row = row_of("openai", f"{name}/medium", width=1024, height=1024)
    answer = made(await answered(service, row, ask(row, "A cute baby sea otter", call=call())))
    assert (answer.body, answer.cost_usd) == (PNG, cost)
    (asked,) = service.asked
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert differing({**OTTER, "model": name}, asked.body) == DIFFERS["openai"].keys()


@pytest.mark.parametrize(
    ("status", "kind", "code", "outcome", "billed"),
    [
        (401, "invalid_request_error", "invalid_api_key", "auth", False),
        (403, "request_forbidden", "unsupported_country_region_territory", "auth", False),
        (429, "requests", "rate_limit_exceeded", "rate", False),
        (429, "insufficient_quota", "insufficient_quota", "budget", False),
        (429, "insufficient_quota", "credit_balance_exhausted", "budget", False),
        (500, "server_error", None, "transient", True),
        (503, "service_unavailable_error", "server_is_overloaded", "transient", False),
        (503, "service_unavailable_error", "slow_down", "rate", False),
        (400, "image_generation_user_error", "moderation_blocked", "refused-content", True),
    ],
)
async def test_errors_of_openai(
    service: OpsStub, status: int, kind: str, code: str | None, outcome: str, billed: bool
) -> None:
    """The body as OPENAI's schema `ErrorResponse` has it; statuses and codes of OPENAI_ERRORS. No page shows a body."""
    error = {"type": kind, "message": "see the guide", "param": None, "code": code}
    service.answers = {"POST /v1/images/generations": [(status, {"error": error})]}
    row = row_of("openai", "gpt-image-2/medium", width=1024, height=1024)
    answer = not_made(await answered(service, row, ask(row, call=call())))
    assert (answer.outcome, answer.paid_usd > 0) == (outcome, billed)


# ---- Amazon Bedrock -----------------------------------------------------------------------------

CONFIG = {"seed": 42, "quality": "standard", "height": 512, "width": 512, "numberOfImages": 1}
NOVA_REQUEST = {
    "taskType": "TEXT_IMAGE",
    "textToImageParams": {"text": ROBOT},
    "imageGenerationConfig": CONFIG,
}
TITAN_REQUEST = {**NOVA_REQUEST, "imageGenerationConfig": {**CONFIG, "cfgScale": 8.0}}
STABILITY_ANSWER = {"seeds": [2130420379], "finish_reasons": [None], "images": [TEXT]}


@pytest.mark.parametrize(
    ("family", "location", "request_", "response"),
    [
        ("nova", "amazon.nova-canvas-v1:0/standard", NOVA_REQUEST, {"images": [TEXT]}),
        ("titan", "amazon.titan-image-generator-v1/standard", TITAN_REQUEST, {"images": [TEXT]}),
        ("stability", "stability.sd3-5-large-v1:0", {"prompt": ROBOT}, STABILITY_ANSWER),
    ],
)
async def test_bedrock(service: OpsStub, family: str, location: str, request_: Any, response: Any) -> None:
    """NOVA, TITAN (their seeds are drawn; here it is 42) and STABILITY. The path, `:` escaped in it, is that
    of INVOKE_MODEL."""
    path = f"/model/{location.partition('/')[0].replace(':', '%3A')}/invoke"
    service.answers = {f"POST {path}": [response]}
    row = row_of("bedrock", location, guidance_scale=8)
    answer = made(await answered(service, row, ask(row, ROBOT, seed=42, call=call())))
    assert answer.body == PNG
    (asked,) = service.asked
    assert asked.headers["content-type"] == "application/json"
    assert differing(request_, asked.body) == DIFFERS[family].keys()


@pytest.mark.parametrize(
    ("location", "status", "body", "outcome", "billed"),
    [
        ("amazon.nova-canvas-v1:0/standard", 400,
         {"message": "This request has been blocked by our content filters. "
                     "Please adjust your text prompt to submit a new request."}, "refused-content", False),
        ("amazon.nova-canvas-v1:0/standard", 200,
         {"images": [], "error": "All of the generated images have been blocked by our content filters."},
         "refused-content", True),
        ("stability.sd3-5-large-v1:0", 200, {"finish_reasons": ["Filter reason: prompt"]}, "refused-content", True),
        ("stability.sd3-5-large-v1:0", 200, {"finish_reasons": ["Filter reason: output image"]},
         "refused-content", True),
        ("stability.sd3-5-large-v1:0", 200, {"finish_reasons": ["Inference error"]}, "transient", True),
    ],
)  # fmt: skip
async def test_pictures_that_bedrock_does_not_make(
    service: OpsStub, location: str, status: int, body: Any, outcome: str, billed: bool
) -> None:
    """NOVA_ERRORS and STABILITY, "Model invocation responses"."""
    path = f"/model/{location.partition('/')[0].replace(':', '%3A')}/invoke"
    named = {"x-amzn-errortype": "ValidationException"} if status == 400 else {}
    service.answers = {f"POST {path}": [(status, body, named)]}
    row = row_of("bedrock", location)
    answer = not_made(await answered(service, row, ask(row, ROBOT, call=call())))
    assert (answer.outcome, answer.paid_usd > 0) == (outcome, billed)


EXCEPTIONS = {
    "AccessDeniedException": ("auth", False),
    "InternalServerException": ("transient", True),
    "ModelErrorException": ("transient", True),
    "ModelNotReadyException": ("transient", False),
    "ModelTimeoutException": ("timeout", True),
    "ResourceNotFoundException": ("invalid", False),
    "ServiceQuotaExceededException": ("rate", False),
    "ServiceUnavailableException": ("transient", False),
    "ThrottlingException": ("rate", False),
    "ValidationException": ("invalid", False),
}


async def test_errors_of_bedrock(service: OpsStub) -> None:
    """Every error of INVOKE_MODEL, with the status that AWS's own description of the service (in botocore) gives it: a
    new one must be ruled on here first."""
    described = Loader().load_service_model("bedrock-runtime", "service-2")
    names = [one["shape"] for one in described["operations"]["InvokeModel"]["errors"]]
    row, found = row_of("bedrock", "amazon.nova-canvas-v1:0/standard"), {}
    for name in names:
        status = described["shapes"][name]["error"]["httpStatusCode"] if "error" in described["shapes"][name] else 500
        answer = (status, {"message": "see the page"}, {"x-amzn-errortype": f"{name}:http://internal.amazon.com/"})
        service.answers = {"POST /model/amazon.nova-canvas-v1%3A0/invoke": [answer]}
        said = not_made(await answered(service, row, ask(row, ROBOT, call=call())))
        found[name] = (said.outcome, said.paid_usd > 0)
    assert found == EXCEPTIONS


# ---- what people read ---------------------------------------------------------------------------


def test_the_docs_name_every_page_and_every_field_that_differs() -> None:
    """What was compared with what, in one table."""
    page = (Path(__file__).parents[3] / "docs" / "providers.md").read_text()
    assert [link for link in PAGES if f"({link})" not in page] == []
    told = {f"`{path.rpartition('.')[2]}`" for fields in DIFFERS.values() for path in fields}
    assert [field for field in sorted(told) if field not in page] == []
    assert all(f"| `{name}` |" in page for name in HOSTED)
