"""Each hosted provider against the lab, and its requests and answers against the provider's published examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from giclee.gpu_worker import providers
from giclee.gpu_worker.provider import ModelUnusable, Provider
from giclee.gpu_worker.providers import replicate
from giclee.schemas import models
from giclee.schemas.models import Model
from tests.contract.hosted_suite import SHORT_S, HostedSuite, JobSuite
from tests.contract.provider_suite import PROMPTS, ask, call, made, not_made
from tests.kit.candidates import model
from tests.kit.lab import KEYS, Lab

VERSION = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
"""The version of stability-ai/sdxl that Replicate's examples run."""


def row_of(name: str, location: str, **fields: Any) -> Model:
    said = {"provider": name, "location": location, "pool": "hosted", "size_max": 2048, "price_usd": "0.03", **fields}
    return model(f"{name}-row", **said)


class TestFal(JobSuite):
    """https://fal.ai/docs/documentation/model-apis/inference/queue"""

    name = "fal"
    refusal = ("result", "refused", {}, "refused-content")

    @pytest.fixture
    def row(self) -> Model:
        return row_of("fal", "fal-ai/flux/dev")

    async def test_a_request_is_as_published(self, lab: Lab, provider: Provider, row: Model) -> None:
        """The input of https://fal.ai/docs/model-api-reference/image-generation-api/flux-dev, under the whole endpoint;
        status and result below owner and app (https://docs.fal.ai/model-endpoints/queue), with `Authorization: Key`."""
        made((await provider.make(row, [ask(row, call=call())], 1))[0])
        (submitted,) = await lab.seen("fal", "submit")
        assert submitted["path"] == "/fal/fal-ai/flux/dev"
        assert submitted["headers"]["authorization"] == f"Key {KEYS['fal']}"
        assert submitted["body"] == {
            "prompt": PROMPTS[0],
            "image_size": {"width": 64, "height": 64},
            "num_inference_steps": 8,
            "guidance_scale": 2.0,
            "seed": 7,
            "num_images": 1,
            "output_format": "png",
        }
        lifecycle = json.loads(submitted["headers"]["x-fal-object-lifecycle-preference"])
        assert lifecycle == {"expiration_duration_seconds": 86400}
        assert 0 < float(submitted["headers"]["x-fal-request-timeout"]) <= 30
        (status,), (result,) = await lab.seen("fal", "status"), await lab.seen("fal", "result")
        assert status["path"] == f"{result['path']}/status"
        assert result["path"].startswith("/fal/fal-ai/flux/requests/")

    async def test_a_picture_marked_unsafe_is_a_refusal(self, lab: Lab, provider: Provider, row: Model) -> None:
        """`has_nsfw_concepts` of the output's schema; the black picture beside it is not even fetched."""
        await lab.inject("fal", "make", "unsafe")
        assert not_made((await provider.make(row, [ask(row)], 1))[0]).outcome == "refused-content"
        assert await lab.seen("fal", "image") == []

    async def test_a_request_that_failed_is_not_charged_and_made_anew(self, lab: Lab, row: Model) -> None:
        """Server errors are never charged (https://docs.fal.ai/faq): the new one is no second payment."""
        await lab.inject("fal", "make", "failed", times=1)
        first = not_made(await self.tried(self.built(lab), row, ask(row, call=call())))
        assert first.outcome == "transient"
        assert first.paid_usd == 0
        second = made(await self.tried(self.built(lab), row, ask(row, call=call(job=first.job))))
        assert (second.again, len(await lab.bill("fal"))) == (False, 1)

    async def test_the_key_goes_nowhere_an_answer_leads(self, lab: Lab, provider: Provider, row: Model) -> None:
        """A status address at another origin is not called at all."""
        await lab.inject("fal", "make", "astray")
        answer = not_made((await provider.make(row, [ask(row, call=call())], 1))[0])
        assert (answer.outcome, answer.paid_usd) == ("unusable", row.price_usd)
        assert (await lab.told())["trapped"] == 0

    async def test_a_file_says_what_another_endpoint_takes(self, lab: Lab, provider: Provider, tmp_path: Path) -> None:
        """What has no placeholder is told as left out."""
        file = tmp_path / "schnell.json"
        sheet = {"endpoint": "fal-ai/flux/schnell", "input": {"prompt": "in ink: {prompt}", "output_format": "jpeg"}}
        file.write_text(json.dumps(sheet))
        row = row_of("fal", str(file))
        answer = made((await provider.make(row, [ask(row, "{seed} of {prompt}", steps=3)], 1))[0])
        (submitted,) = await lab.seen("fal", "submit")
        assert submitted["path"] == "/fal/fal-ai/flux/schnell"
        assert submitted["body"] == {"prompt": "in ink: {seed} of {prompt}", "output_format": "jpeg"}
        assert {one.field for one in answer.adjustments} == {"seed", "steps", "size"}


class TestReplicate(JobSuite):
    """https://replicate.com/docs/reference/http#predictions.create"""

    name = "replicate"
    grade = "perceptual"
    tells_cost = True
    refusal = ("make", "failed", {"error": "NSFW content detected. Try running it again."}, "refused-content")

    @pytest.fixture
    def row(self, tmp_path: Path) -> Model:
        sheet = {"input": replicate.INPUT, "usd_per_second": "0.000725"}
        (tmp_path / "sdxl.json").write_text(json.dumps(sheet))
        return row_of("replicate", str(tmp_path / "sdxl.json"), revision=VERSION)

    async def test_a_request_is_as_published(self, lab: Lab, provider: Provider, row: Model) -> None:
        """Version and input of https://replicate.com/docs/reference/http#predictions.create, the input's names of
        https://replicate.com/stability-ai/sdxl/api/schema, and Cancel-After as
        https://replicate.com/changelog/2025-10-16-prediction-deadlines writes a duration."""
        made((await provider.make(row, [ask(row, negative_prompt="red", call=call())], 1))[0])
        (created,) = await lab.seen("replicate", "submit")
        assert created["path"] == "/replicate/v1/predictions"
        assert created["headers"]["authorization"] == f"Bearer {KEYS['replicate']}"
        assert created["headers"]["cancel-after"] == "27s"  # of 30, three are kept for giving up
        assert created["body"] == {
            "version": VERSION,
            "input": {
                "prompt": PROMPTS[0],
                "negative_prompt": "red",
                "width": 64,
                "height": 64,
                "num_inference_steps": 8,
                "guidance_scale": 2.0,
                "seed": 7,
            },
        }
        (polled,) = await lab.seen("replicate", "status")
        assert polled["path"].startswith("/replicate/v1/predictions/")

    async def test_a_throttled_call_says_how_long(self, lab: Lab, provider: Provider, row: Model) -> None:
        """The sentence of https://replicate.com/docs/topics/predictions/rate-limits, for want of a header."""
        await lab.inject("replicate", "submit", "throttled")
        answer = not_made((await provider.make(row, [ask(row)], 1))[0])
        assert (answer.outcome, answer.retry_after_s) == ("rate", 30.0)

    async def test_outputs_that_were_removed_are_made_again(self, lab: Lab, row: Model) -> None:
        """After an hour a prediction has no output any more: that is told as a second payment."""
        await lab.inject("replicate", "make", "removed", times=1)
        first = not_made(await self.tried(self.built(lab), row, ask(row, call=call())))
        second = made(await self.tried(self.built(lab), row, ask(row, call=call(job=first.job))))
        assert second.again

    async def test_a_version_must_be_pinned(self, provider: Provider, row: Model) -> None:
        """A model's name alone is whatever its owner pushed last."""
        with pytest.raises(ModelUnusable, match="64 hex digits"):
            await provider.describe(row.model_copy(update={"revision": "latest"}))


class TestOpenai(HostedSuite):
    """https://platform.openai.com/docs/api-reference/images/create"""

    name = "openai"
    tells_cost = True

    @pytest.fixture
    def row(self) -> Model:
        return row_of("openai", "gpt-image-2-2026-04-21/medium", width=256, height=256)

    async def test_a_request_is_as_published(self, lab: Lab, provider: Provider, row: Model) -> None:
        """The fields of https://platform.openai.com/docs/api-reference/images/create, one image as PNG, and no header
        that is not documented."""
        made((await provider.make(row, [ask(row, call=call())], 1))[0])
        (created,) = await lab.seen("openai", "submit")
        assert created["path"] == "/openai/v1/images/generations"
        assert created["headers"]["authorization"] == f"Bearer {KEYS['openai']}"
        assert "idempotency-key" not in created["headers"]
        assert created["body"] == {
            "model": "gpt-image-2-2026-04-21",
            "prompt": PROMPTS[0],
            "size": "256x256",
            "quality": "medium",
            "n": 1,
            "output_format": "png",
        }

    @pytest.mark.parametrize(
        ("asked", "used"), [((512, 512), (1024, 1024)), ((1024, 512), (1536, 1024)), ((512, 1024), (1024, 1536))]
    )
    async def test_older_models_make_three_sizes(
        self, lab: Lab, provider: Provider, asked: tuple[int, int], used: tuple[int, int]
    ) -> None:
        """The nearest in shape is asked for, and the difference told."""
        row = row_of("openai", "gpt-image-1-mini/low")
        answer = made((await provider.make(row, [ask(row, width=asked[0], height=asked[1])], 1))[0])
        assert (answer.width, answer.height) == used
        (told,) = [one for one in answer.adjustments if one.field == "size"]
        assert (told.asked, told.used) == tuple(f"{width}x{height}" for width, height in (asked, used))
        sized = ask(row, width=asked[0], height=asked[1], asked=frozenset({"prompt", "size"}), strict=True)
        assert "size" in not_made((await provider.make(row, [sized], 1))[0]).message
        assert len(await lab.bill("openai")) == 1

    async def test_a_quality_left_open_has_no_price(self, provider: Provider, row: Model) -> None:
        """`auto` may cost fifteen times as much as `low`."""
        with pytest.raises(ModelUnusable, match="MODEL/QUALITY"):
            await provider.describe(row.model_copy(update={"location": "gpt-image-2-2026-04-21"}))


class TestBedrock(HostedSuite):
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html"""

    name = "bedrock"
    grade = "perceptual"

    @pytest.fixture
    def row(self) -> Model:
        return row_of("bedrock", "amazon.nova-canvas-v1:0/standard", width=320, height=320)

    async def test_a_request_is_as_published(self, lab: Lab, provider: Provider, row: Model) -> None:
        """https://docs.aws.amazon.com/nova/latest/userguide/image-gen-req-resp-structure.html, signed with the key."""
        made((await provider.make(row, [ask(row, negative_prompt="red", call=call())], 1))[0])
        (invoked,) = await lab.seen("bedrock", "submit")
        assert invoked["path"] == "/bedrock/model/amazon.nova-canvas-v1%3A0/invoke"
        signed = f"AWS4-HMAC-SHA256 Credential={KEYS['bedrock'].split(':')[0]}/"
        assert invoked["headers"]["authorization"].startswith(signed)
        assert "/us-east-1/bedrock/aws4_request" in invoked["headers"]["authorization"]
        assert invoked["body"] == {
            "taskType": "TEXT_IMAGE",
            "textToImageParams": {"text": PROMPTS[0], "negativeText": "red"},
            "imageGenerationConfig": {
                "width": 320,
                "height": 320,
                "quality": "standard",
                "cfgScale": 2.0,
                "seed": 7,
                "numberOfImages": 1,
            },
        }

    async def test_a_missing_key_is_said_before_anything_is_called(self, lab: Lab, row: Model) -> None:
        """Without a key AWS's own chain of credentials is asked; one without any is no payment."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
                patch.delenv(name, raising=False)
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            patch.setenv("AWS_CONFIG_FILE", "/nowhere")
            patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
            answer = not_made(await self.tried(self.built(lab, keys={}), row, ask(row, call=call())))
            assert answer.outcome == "auth"
            assert answer.paid_usd == 0
            assert await lab.seen("bedrock", "submit") == []
            patch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFTHECHAIN")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-chain")
            made(await self.tried(self.built(lab, keys={}), row, ask(row, call=call())))
        (invoked,) = await lab.seen("bedrock", "submit")
        assert "Credential=AKIAOFTHECHAIN/" in invoked["headers"]["authorization"]

    async def test_what_titan_does_not_take_is_told(self, lab: Lab, provider: Provider) -> None:
        """https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-image.html: 512 characters, seeds
        up to 2147483646, scales from 1.1 to 10, no steps."""
        row = row_of("bedrock", "amazon.titan-image-generator-v2:0/premium", width=320, height=320)
        long = ask(row, "red " * 200, seed=2**32 - 1, guidance_scale=0.0, steps=3)
        answer = made((await provider.make(row, [long], 1))[0])
        (invoked,) = await lab.seen("bedrock", "submit")
        assert {one.field: one.used for one in answer.adjustments} == {
            "prompt": "512 characters",
            "seed": str((2**32 - 1) % 2_147_483_647),
            "guidance_scale": "1.1",
            "steps": "left out",
        }
        assert len(invoked["body"]["textToImageParams"]["text"]) == 512

    async def test_stability_makes_a_megapixel_in_the_nearest_shape(self, lab: Lab, provider: Provider) -> None:
        """https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-diffusion-3-5-large.html"""
        row = row_of("bedrock", "stability.stable-image-core-v1:1", width=960, height=640, takes_guidance=False)
        answer = made((await provider.make(row, [ask(row, call=call())], 1))[0])
        (invoked,) = await lab.seen("bedrock", "submit")
        assert invoked["body"] == {
            "prompt": PROMPTS[0],
            "mode": "text-to-image",
            "aspect_ratio": "3:2",
            "seed": 7,
            "output_format": "png",
        }
        assert {one.field: one.used for one in answer.adjustments} == {"size": "1216x832"}
        strictly = not_made((await provider.make(row, [ask(row, strict=True, call=call())], 1))[0])
        assert "size" in strictly.message and len(await lab.bill("bedrock")) == 1

    @pytest.mark.parametrize(
        ("location", "outcome"), [("amazon.nova-canvas-v1:0/standard", "refused-content"), ("stability.x-v1:0", "")]
    )
    async def test_a_picture_that_is_blocked_after_it_was_made_is_a_refusal(
        self, lab: Lab, provider: Provider, location: str, outcome: str
    ) -> None:
        """200 with `error` (https://docs.aws.amazon.com/nova/latest/userguide/image-gen-errors.html), or with a finish
        reason."""
        row = row_of("bedrock", location, width=320, height=320)
        await lab.inject("bedrock", "make", "unsafe")
        assert not_made((await provider.make(row, [ask(row)], 1))[0]).outcome == (outcome or "refused-content")

    @pytest.mark.parametrize(
        ("fault", "outcome", "billed"),
        [("throttled", "rate", False), ("model-error", "transient", True), ("model-timeout", "timeout", True)],
    )
    async def test_errors_of_the_service_by_their_names(
        self, lab: Lab, provider: Provider, row: Model, fault: str, outcome: str, billed: bool
    ) -> None:
        """https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html"""
        await lab.inject("bedrock", "submit", fault)
        answer = not_made((await provider.make(row, [ask(row)], 1))[0])
        assert (answer.outcome, answer.paid_usd > 0) == (outcome, billed)


class TestComfyui(JobSuite):
    """https://docs.comfy.org/development/comfyui-server/comms_routes"""

    name = "comfyui"
    refusal = ("submit", "refused", {}, "invalid")

    @pytest.fixture
    def row(self, tmp_path: Path) -> Model:
        (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
        return row_of("comfyui", str(tmp_path / "workflow.json"))

    async def test_a_request_is_as_published(self, lab: Lab, provider: Provider, row: Model) -> None:
        """The workflow in the form of
        https://github.com/comfyanonymous/ComfyUI/blob/master/script_examples/basic_api_example.py, filled in with
        numbers as numbers, under an id of ours."""
        answer = made((await provider.make(row, [ask(row, negative_prompt="red", call=call())], 1))[0])
        (queued,) = await lab.seen("comfyui", "submit")
        assert queued["path"] == "/comfyui/prompt"
        assert queued["body"]["prompt_id"] == answer.job
        sampler = queued["body"]["prompt"]["sampler"]["inputs"]
        assert (sampler["seed"], sampler["steps"], sampler["cfg"]) == (7, 8, 2.0)
        texts = [queued["body"]["prompt"][node]["inputs"]["text"] for node in ("wanted", "unwanted")]
        assert texts == [PROMPTS[0], "red"]
        (viewed,) = await lab.seen("comfyui", "image")
        assert viewed["path"] == f"/comfyui/view?filename={answer.job}.png&subfolder=&type=output"

    async def test_a_missing_key_is_said_before_anything_is_called(self, lab: Lab, row: Model) -> None:
        """None is needed on a host of the user's own."""
        made(await self.tried(self.built(lab, keys={}), row, ask(row, call=call())))
        (queued,) = await lab.seen("comfyui", "submit")
        assert "authorization" not in queued["headers"]

    async def test_an_answer_that_was_lost_is_found(self, lab: Lab, row: Model) -> None:
        """The run was queued and the worker died before it heard so: the id was noted before."""
        noted: list[str] = []

        async def note(job: str) -> None:
            noted.append(job)

        await lab.inject("comfyui", "submit", "gone", times=1)
        not_made(await self.tried(self.built(lab), row, ask(row, call=call(note=note))))
        found = made(await self.tried(self.built(lab), row, ask(row, call=call(job=noted[0]))))
        assert (found.again, len(await lab.bill("comfyui"))) == (False, 1)

    async def test_an_older_server_chooses_the_id(self, lab: Lab, row: Model) -> None:
        """It is noted as soon as it is told."""
        noted: list[str] = []

        async def note(job: str) -> None:
            noted.append(job)

        await lab.inject("comfyui", "old-server", "yes")
        answer = made(await self.tried(self.built(lab), row, ask(row, call=call(note=note))))
        assert answer.job == noted[-1] == (await lab.bill("comfyui"))[0]["job"]

    async def test_a_server_that_forgot_a_run_is_told_apart_from_one_that_is_busy(self, lab: Lab, row: Model) -> None:
        """Neither in the queue nor in the history: the process was started again."""
        await lab.inject("comfyui", "make", "running", times=1)
        late = not_made(await self.tried(self.built(lab, deadline_s=SHORT_S), row, ask(row, call=call())))
        await lab.forget("comfyui")
        assert made(await self.tried(self.built(lab), row, ask(row, call=call(job=late.job)))).again

    async def test_a_workflow_without_a_place_for_the_prompt_is_unusable(
        self, provider: Provider, row: Model, tmp_path: Path
    ) -> None:
        """Said when the worker starts."""
        (tmp_path / "empty.json").write_text("{}")
        with pytest.raises(ModelUnusable, match="prompt"):
            await provider.describe(row.model_copy(update={"location": str(tmp_path / "empty.json")}))


@pytest.mark.parametrize(
    ("path", "body", "headers", "fields"),
    [
        # https://docs.fal.ai/model-endpoints/queue
        (
            "fal/fal-ai/flux/dev",
            {"prompt": "a cat"},
            {"Authorization": "Key x"},
            {"request_id", "response_url", "status_url", "cancel_url"},
        ),
        # https://sdks.replicate.com/resources/predictions/models/prediction
        (
            "replicate/v1/predictions",
            {"version": VERSION, "input": {"prompt": "a cat"}},
            {"Authorization": "Bearer x", "Cancel-After": "1m"},
            {
                "id",
                "model",
                "version",
                "input",
                "logs",
                "output",
                "error",
                "status",
                "created_at",
                "urls",
                "data_removed",
            },
        ),
        # https://platform.openai.com/docs/api-reference/images/object
        (
            "openai/v1/images/generations",
            {"model": "gpt-image-1-mini", "prompt": "a cat", "n": 1, "size": "1024x1024"},
            {"Authorization": "Bearer x"},
            {"created", "data", "background", "output_format", "size", "quality", "usage"},
        ),
        # https://docs.aws.amazon.com/nova/latest/userguide/image-gen-req-resp-structure.html
        (
            "bedrock/model/amazon.nova-canvas-v1:0/invoke",
            {
                "taskType": "TEXT_IMAGE",
                "textToImageParams": {"text": "a cat"},
                "imageGenerationConfig": {
                    "width": 512,
                    "height": 512,
                    "quality": "standard",
                    "cfgScale": 6.5,
                    "seed": 0,
                    "numberOfImages": 1,
                },
            },
            {"Authorization": "AWS4-HMAC-SHA256 Credential=x"},
            {"images", "error"},
        ),
    ],
)
async def test_the_lab_answers_published_requests_with_the_published_fields(
    lab: Lab, path: str, body: dict[str, Any], headers: dict[str, str], fields: set[str]
) -> None:
    """The lab is no mirror of our adapters: it takes the provider's own examples, and refuses what they do not have."""
    url = f"http://127.0.0.1:{lab.port}/{path}"
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.post(url, json=body, headers=headers)
        assert answer.is_success
        assert fields <= set(answer.json())
        assert not (await client.post(url, json={**body, "misspelt": 1}, headers=headers)).is_success
        assert not (await client.post(url, json=body, headers={})).is_success


async def test_the_rows_in_the_docs_can_be_used(lab: Lab, tmp_path: Path) -> None:
    """As they stand: read, described and made with."""
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
    (tmp_path / "giclee.toml").write_text(page.partition("```toml")[2].partition("```")[0])
    rows, _ = models.load(str(tmp_path / "giclee.toml"), ())
    assert {row.provider for row in rows.values()} == providers.HOSTED - {"comfyui"}
    for row in rows.values():
        built = providers.TABLE[row.provider](lab.kit())
        assert (await built.describe(row)).where
        answer = made((await built.make(row, [ask(row, call=call())], 1))[0])
        assert (answer.width, answer.height) == (row.width, row.height)


WORKFLOW: dict[str, Any] = {
    "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
    "wanted": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["model", 1], "text": "{prompt}"}},
    "unwanted": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["model", 1], "text": "{negative_prompt}"}},
    "size": {
        "class_type": "EmptyLatentImage",
        "inputs": {"batch_size": 1, "width": "{width}", "height": "{height}"},
    },
    "sampler": {
        "class_type": "KSampler",
        "inputs": {
            "seed": "{seed}",
            "steps": "{steps}",
            "cfg": "{guidance_scale}",
            "denoise": 1,
            "sampler_name": "euler",
            "scheduler": "normal",
            "model": ["model", 0],
            "positive": ["wanted", 0],
            "negative": ["unwanted", 0],
            "latent_image": ["size", 0],
        },
    },
    "pixels": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["model", 2]}},
    "saved": {"class_type": "SaveImage", "inputs": {"filename_prefix": "giclee", "images": ["pixels", 0]}},
}
