"""Hosted adapters whose jobs have an id against their providers' published examples, by link: a server gives the
published answers, and what it was sent is compared with the published request field by field.

Of an example nothing is changed but the hosts of its addresses, which are the server's. `tests/kit/published.py` has
the pages by name and says every field in which we differ, and why. Pictures are ours.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from giclee.gpu_worker.provider import Ask
from giclee.gpu_worker.providers import comfyui
from giclee.schemas.models import Model
from tests.contract.provider_suite import ask, call, made, not_made
from tests.kit import ops_stub
from tests.kit.ops_stub import OpsStub
from tests.kit.published import DIFFERS, KEY, PNG, answered, differing, here, row_of


@pytest.fixture
def service() -> Iterator[OpsStub]:
    with ops_stub.running() as stub:
        yield stub


# ---- fal ----------------------------------------------------------------------------------------

FAL_JOB = "80e732af-660e-45cd-bd63-580e4f2a94cc"
FAL_THERE = f"/fal-ai/fast-sdxl/requests/{FAL_JOB}"
FAL_SUBMITTED = {
    "request_id": FAL_JOB,
    "response_url": f"https://queue.fal.run{FAL_THERE}",
    "status_url": f"https://queue.fal.run{FAL_THERE}/status",
    "cancel_url": f"https://queue.fal.run{FAL_THERE}/cancel",
}
FAL_QUEUED = {"status": "IN_QUEUE", "queue_position": 0, "response_url": FAL_SUBMITTED["response_url"]}
FAL_COMPLETED = {"status": "COMPLETED", **FAL_SUBMITTED, "logs": [], "metrics": {"inference_time": 17.795265674591064}}
FAL_PICTURE = {"url": "https://url.to/image.png", "content_type": "image/png", "file_name": "image.png"}
FAL_OUTPUT: dict[str, Any] = {
    "images": [{**FAL_PICTURE, "file_size": 1824075, "width": 1024, "height": 1024}],
    "seed": 196619188014358660,
}


def fal(service: OpsStub, *statuses: Any, result: Any) -> None:
    service.answers = {
        "POST /fal-ai/fast-sdxl": [here(service, FAL_SUBMITTED)],
        f"GET {FAL_THERE}/status": [here(service, one) for one in statuses],
        f"GET {FAL_THERE}": [result],
        "GET /image.png": [PNG],
    }


async def test_fal(service: OpsStub) -> None:
    """FAL_QUEUE: "Submit a request", "Request status", "Streaming status" (the last line); the output of a model as in
    FAL_WEBHOOKS, "Successful result". The queue page wraps a result in `response`, its newer reference
    (https://fal.ai/docs/inference-api/queue/result: "the body that the model returned") and fal's own client do not."""
    fal(service, FAL_QUEUED, FAL_COMPLETED, result=here(service, FAL_OUTPUT))
    row = row_of("fal", "fal-ai/fast-sdxl")
    answer = made(await answered(service, row, ask(row, "a cat", call=call())))
    assert (answer.job, answer.body, answer.cost_usd) == (FAL_JOB, PNG, None)
    submitted = service.asked[0]
    assert (submitted.headers["authorization"], submitted.headers["content-type"]) == (f"Key {KEY}", "application/json")
    assert differing({"prompt": "a cat"}, submitted.body) == DIFFERS["fal"].keys()
    assert [one.path for one in service.asked[1:]] == [f"{FAL_THERE}/status"] * 2 + [FAL_THERE, "/image.png"]


def _model_error(kind: str, msg: str, **more: Any) -> dict[str, Any]:
    where = {"loc": ["body"], "url": f"https://docs.fal.ai/errors/#{kind}", "input": {"prompt": "a cat"}}
    return {"detail": [{**where, "msg": msg, "type": kind, **more}]}


@pytest.mark.parametrize(
    ("status", "body", "outcome", "billed"),
    [
        (422, _model_error("content_policy_violation", "flagged", loc=["body", "prompt"]), "refused-content", True),
        (500, _model_error("internal_server_error", "Internal server error"), "transient", False),
        (504, _model_error("generation_timeout", "Generation timeout"), "timeout", False),
        (400, _model_error("downstream_service_error", "Downstream service error"), "transient", True),
        (500, _model_error("downstream_service_unavailable", "Downstream service unavailable"), "transient", False),
        (422, _model_error("greater_than", "Input should be greater than 0", ctx={"gt": 0}), "invalid", True),
        (422, {"detail": [{"loc": ["body", "prompt"], "msg": "field required", "type": "value_error.missing"}]},
         "invalid", True),
        (504, {"detail": "Request timed out", "error_type": "request_timeout"}, "timeout", False),
    ],
)  # fmt: skip
async def test_errors_of_fal(service: OpsStub, status: int, body: Any, outcome: str, billed: bool) -> None:
    """FAL_ERRORS, each where it may end an image; FAL_WEBHOOKS, "Response errors"; FAL_REQUEST_ERRORS. What they cost:
    https://docs.fal.ai/faq says no server error is charged, others may be."""
    fal(service, FAL_COMPLETED, result=(status, body))
    row = row_of("fal", "fal-ai/fast-sdxl")
    answer = not_made(await answered(service, row, ask(row, "a cat", call=call())))
    assert (answer.outcome, answer.paid_usd > 0) == (outcome, billed)


@pytest.mark.parametrize(("status", "said"), [(202, "CANCELLATION_REQUESTED"), (400, "ALREADY_COMPLETED")])
async def test_cancelling_at_fal(service: OpsStub, status: int, said: str) -> None:
    """FAL_QUEUE, "Cancelling a request": neither says that nothing will be charged."""
    fal(service, FAL_QUEUED, result={})
    service.answers[f"PUT {FAL_THERE}/cancel"] = [(status, {"status": said})]
    row = row_of("fal", "fal-ai/fast-sdxl")
    answer = not_made(await answered(service, row, ask(row, "a cat", call=call()), deadline_s=0.4))
    assert (answer.outcome, answer.paid_usd, answer.job) == ("timeout", row.price_usd, FAL_JOB)
    assert service.asked[-1].method == "PUT"


# ---- Replicate ----------------------------------------------------------------------------------

SDXL = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
REPLICATE_JOB = "azaq55dbukgxg6kubr4k6g3pby"
REPLICATE_REQUEST: dict[str, Any] = {
    "input": {"prompt": "a studio photo of a rainbow colored corgi", "width": 512, "height": 512, "seed": 42069},
    "version": SDXL,
}
REPLICATE_STARTED = {
    "id": REPLICATE_JOB,
    "model": "stability-ai/sdxl",
    **REPLICATE_REQUEST,
    "logs": "",
    "error": None,
    "status": "starting",
    "created_at": "2023-11-16T11:46:16.064900134Z",
    "urls": {
        "cancel": f"https://api.replicate.com/v1/predictions/{REPLICATE_JOB}/cancel",
        "get": f"https://api.replicate.com/v1/predictions/{REPLICATE_JOB}",
    },
}
REPLICATE_RUNNING = {**REPLICATE_STARTED, "status": "processing", "started_at": "2023-11-16T11:46:16.539915Z"}
REPLICATE_DONE: dict[str, Any] = {
    **REPLICATE_RUNNING,
    "output": ["https://replicate.delivery/pbxt/gDoc64M9pRaQNdZb0evCRgm57WZJ5BKi0T5kzV6qm2tGmd8IA/out-0.png"],
    "status": "succeeded",
    "completed_at": "2023-11-16T11:46:22.064427Z",
    "metrics": {"predict_time": 5.524512},
}
REPLICATE_CANCELED = {**REPLICATE_STARTED, "status": "canceled", "output": None, "metrics": {"predict_time": 0.128148}}


@pytest.fixture
def sdxl(tmp_path: Path) -> Model:
    """The row of a file that names what the example names."""
    names = {name: f"{{{name}}}" for name in REPLICATE_REQUEST["input"]}
    (tmp_path / "sdxl.json").write_text(json.dumps({"input": names, "usd_per_second": "0.000725"}))
    return row_of("replicate", tmp_path / "sdxl.json", revision=SDXL)


def corgi(row: Model) -> Ask:
    return ask(row, "a studio photo of a rainbow colored corgi", seed=42069, call=call())


async def test_replicate(service: OpsStub, sdxl: Model) -> None:
    """REPLICATE_RUN: create, two questions and the output, as Replicate's own client sent and got them. It costs its
    seconds; Cancel-After is ours (https://replicate.com/changelog/2025-10-16-prediction-deadlines)."""
    service.answers = {
        "POST /v1/predictions": [(201, here(service, REPLICATE_STARTED))],
        f"GET /v1/predictions/{REPLICATE_JOB}": [here(service, one) for one in (REPLICATE_RUNNING, REPLICATE_DONE)],
        REPLICATE_DONE["output"][0].replace("https://replicate.delivery", "GET "): [PNG],
    }
    answer = made(await answered(service, sdxl, corgi(sdxl)))
    assert (answer.job, answer.body, answer.cost_usd) == (REPLICATE_JOB, PNG, Decimal("0.004006"))
    created = service.asked[0]
    assert created.headers["authorization"] == f"Bearer {KEY}"
    assert differing(REPLICATE_REQUEST, created.body) == DIFFERS["replicate"].keys()


async def test_a_canceled_prediction_is_paid_for_the_time_it_ran(service: OpsStub, sdxl: Model) -> None:
    """REPLICATE_CANCEL: the answer to a cancel; as somebody else's cancel ends a prediction that we wait for."""
    service.answers = {
        "POST /v1/predictions": [(201, here(service, REPLICATE_STARTED))],
        f"GET /v1/predictions/{REPLICATE_JOB}": [here(service, REPLICATE_CANCELED)],
    }
    answer = not_made(await answered(service, sdxl, corgi(sdxl)))
    assert (answer.outcome, answer.paid_usd) == ("transient", sdxl.price_usd)


@pytest.mark.parametrize(
    ("status", "body", "outcome", "wait_s"),
    [
        (401, {"title": "Unauthenticated", "detail": "You did not pass a valid authentication token", "status": 401},
         "auth", None),
        (429, {"detail": "Request was throttled. Your rate limit resets in ~30s."}, "rate", 30.0),
    ],
)  # fmt: skip
async def test_errors_of_replicate(
    service: OpsStub, sdxl: Model, status: int, body: Any, outcome: str, wait_s: float | None
) -> None:
    """REPLICATE_TOKEN and REPLICATE_RATE, "API response"."""
    service.answers = {"POST /v1/predictions": [(status, body)]}
    answer = not_made(await answered(service, sdxl, corgi(sdxl)))
    assert (answer.outcome, answer.retry_after_s, answer.paid_usd) == (outcome, wait_s, Decimal(0))


# ---- ComfyUI ------------------------------------------------------------------------------------

COMFYUI_WORKFLOW: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "cfg": 8,
            "denoise": 1,
            "latent_image": ["5", 0],
            "model": ["4", 0],
            "negative": ["7", 0],
            "positive": ["6", 0],
            "sampler_name": "euler",
            "scheduler": "normal",
            "seed": 5,
            "steps": 20,
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 1, "height": 512, "width": 512}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "masterpiece best quality man"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "bad hands"}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
}
COMFYUI_HOLES = {
    ("3", "cfg"): "{guidance_scale}",
    ("3", "seed"): "{seed}",
    ("3", "steps"): "{steps}",
    ("5", "height"): "{height}",
    ("5", "width"): "{width}",
    ("6", "text"): "{prompt}",
    ("7", "text"): "{negative_prompt}",
}
RUN = str(uuid.uuid5(comfyui.NAMESPACE, "candidate-0"))
COMFYUI_PICTURE = {"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}


@pytest.fixture
def workflow(tmp_path: Path) -> Model:
    """The row of the example's own workflow, its values replaced by placeholders as the docs say."""
    told = json.loads(json.dumps(COMFYUI_WORKFLOW))
    for (node, name), hole in COMFYUI_HOLES.items():
        told[node]["inputs"][name] = hole
    (tmp_path / "workflow.json").write_text(json.dumps(told))
    return row_of("comfyui", tmp_path / "workflow.json", steps=20, guidance_scale=8)


def man(row: Model) -> Ask:
    return ask(row, "masterpiece best quality man", negative_prompt="bad hands", seed=5, call=call())


def queued(service: OpsStub, *history: Any) -> None:
    service.answers = {
        "POST /prompt": [{"prompt_id": RUN, "number": 0, "node_errors": {}}],
        "GET /queue": [{"queue_running": [], "queue_pending": []}],
        f"GET /history/{RUN}": [{}, {}, *history],
        "GET /view": [PNG],
    }


async def test_comfyui(service: OpsStub, workflow: Model) -> None:
    """COMFYUI: the workflow and its request; COMFYUI_SERVER, `post_prompt`: the answer, and the form of an id;
    COMFYUI_HISTORY: where the history names a picture, and how it is fetched. `client_id` is for a websocket."""
    queued(service, {RUN: {"outputs": {"9": {"images": [COMFYUI_PICTURE]}}}})
    answer = made(await answered(service, workflow, man(workflow)))
    assert (answer.job, answer.body) == (RUN, PNG)
    (sent,) = service.bodies("/prompt")
    assert differing({"prompt": COMFYUI_WORKFLOW}, sent) == DIFFERS["comfyui"].keys()
    assert str(uuid.UUID(sent["prompt_id"])) == sent["prompt_id"], "canonical, lower case, with hyphens"
    assert service.asked[-1].query == {"filename": "ComfyUI_00001_.png", "type": "output"}  # an empty one is left out


@pytest.mark.parametrize("kind", ["no_prompt", "invalid_prompt_id", "prompt_outputs_failed_validation"])
async def test_what_comfyui_does_not_queue(service: OpsStub, workflow: Model, kind: str) -> None:
    """COMFYUI_SERVER, `post_prompt`, and COMFYUI_EXECUTION, `validate_prompt`: 400, and nothing runs."""
    queued(service)
    error = {"type": kind, "message": "No prompt provided", "details": "No prompt provided", "extra_info": {}}
    service.answers["POST /prompt"] = [(400, {"error": error, "node_errors": {}})]
    answer = not_made(await answered(service, workflow, man(workflow)))
    assert (answer.outcome, answer.paid_usd) == ("invalid", Decimal(0))


@pytest.mark.parametrize(
    ("kind", "about", "outcome"),
    [
        ("execution_error", {"exception_message": "boom", "exception_type": "RuntimeError"}, "transient"),
        ("execution_error", {"exception_message": "no room", "exception_type": "torch.OutOfMemoryError"}, "invalid"),
        ("execution_interrupted", {}, "transient"),
    ],
)
async def test_runs_of_comfyui_that_fail(
    service: OpsStub, workflow: Model, kind: str, about: dict[str, Any], outcome: str
) -> None:
    """COMFYUI_EXECUTION, `handle_execution_error`: what a run's status says."""
    where = {"prompt_id": RUN, "node_id": "3", "node_type": "KSampler", "executed": ["4", "5"]}
    said = [["execution_start", {"prompt_id": RUN}], [kind, {**where, **about, "timestamp": 1763714000000}]]
    status = {"status_str": "error", "completed": False, "messages": said}
    queued(service, {RUN: {"outputs": {}, "status": status}})
    answer = not_made(await answered(service, workflow, man(workflow)))
    assert answer.outcome == outcome
    assert answer.paid_usd == workflow.price_usd
