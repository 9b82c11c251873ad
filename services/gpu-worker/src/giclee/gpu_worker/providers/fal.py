"""Images by fal's queue: submit, poll, take the result; a request can be asked for by its id after a crash.

https://fal.ai/docs/documentation/model-apis/inference/queue · https://fal.ai/docs/inference-api/queue/result
https://fal.ai/docs/documentation/model-apis/common-parameters (headers) · …/model-apis/errors, request-errors, faq
https://fal.ai/docs/model-api-reference/image-generation-api/flux-dev (the default input)

fal documents no idempotency key, and says in no answer what a call cost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from giclee.gpu_worker import template
from giclee.gpu_worker.attempt import BY_STATUS, Access, Attempt, Failed, Pace, Ruling, Rulings, ruled
from giclee.gpu_worker.http import Caller, Reply
from giclee.gpu_worker.provider import Capabilities, Made, ModelUnusable
from giclee.gpu_worker.template import Template
from giclee.schemas.models import Model

BASE_URL = "https://queue.fal.run"
START_MIN_S = 1.1
"""fal's own client sends no less than a second."""
KEPT_S = 24 * 3600
"""How long fal keeps the picture at its public address: a day, for jobs that are looked up late, instead of a week."""

INPUT: dict[str, Any] = {
    "prompt": "{prompt}",
    "negative_prompt": "{negative_prompt}",
    "image_size": {"width": "{width}", "height": "{height}"},
    "num_inference_steps": "{steps}",
    "guidance_scale": "{guidance_scale}",
    "seed": "{seed}",
    "num_images": 1,
    "output_format": "png",
}

RULINGS: Rulings = {
    **BY_STATUS,
    # by `type` of a model's error, `error_type` of a request's error (no server error is ever charged, the FAQ says)
    "content_policy_violation": Ruling("refused-content"),
    "no_media_generated": Ruling("unusable"),
    "downstream_service_error": Ruling("transient"),  # comes as a 400, and is no fault of the request
    "generation_timeout": Ruling("timeout", billed=False),
    "request_timeout": Ruling("timeout", billed=False),
    "startup_timeout": Ruling("transient", billed=False),
    "client_cancelled": Ruling("transient"),
    "bad_request": Ruling("invalid", billed=False),
    "exhausted balance": Ruling("budget", billed=False),
    # by status
    408: Ruling("timeout"),
    422: Ruling("invalid"),  # "may still be charged if a runner spent GPU time"
    499: Ruling("transient"),
    500: Ruling("transient", billed=False),
}


class Fal:
    """fal.ai. A row's `location` is an endpoint (`fal-ai/flux/dev`), or a JSON file `{"endpoint": …, "input": {…}}`."""

    name, needs_key = "fal", True
    capabilities = Capabilities(
        seed=True,
        negative_prompt=True,
        steps=True,
        guidance=True,
        reference_image=False,
        concurrency=16,  # what is over an account's own limit waits in fal's queue
        lookup=True,
        data_terms="Prompts and results are stored with the account; pictures lie at a public address for a day.",
    )

    def __init__(self, access: Access) -> None:
        self.caller = Caller(BASE_URL, access, headers={"authorization": f"Key {access.key}"})

    def where(self, model: Model) -> str:
        return _sheet(model)[0]

    async def one(self, attempt: Attempt) -> Made:
        endpoint, sent = _sheet(attempt.model)
        template.tell_dropped(attempt, sent.takes, endpoint)
        result = None
        if attempt.earlier is not None:
            result = await self._found(attempt, _urls_of(self.caller.base_url, endpoint, attempt.earlier))
        if result is None:
            urls = await self._submitted(attempt, endpoint, sent)
            result = await self._result(attempt, urls)
        return await self._image(attempt, endpoint, result)

    async def _submitted(self, attempt: Attempt, endpoint: str, sent: Template) -> Mapping[str, str]:
        headers = {
            # not a limit of the whole request, but of its start: what nobody waits for any more need not begin
            "x-fal-request-timeout": f"{max(START_MIN_S, attempt.left_s):.1f}",
            "x-fal-object-lifecycle-preference": json.dumps({"expiration_duration_seconds": KEPT_S}),
        }
        attempt.pays()
        reply = await self.caller.ask("POST", endpoint, body=sent.filled(attempt.ask), headers=headers, paying=True)
        if not reply.good:
            raise _failure(reply)
        job = reply.text("request_id")
        if job is None:
            raise Failed("transient", f"no request_id in the answer: {reply.said}")
        await attempt.note(job)
        # "Do not build these URLs yourself": an id alone is what an earlier try left, here they are told
        known = _urls_of(self.caller.base_url, endpoint, job)
        return {name: reply.text(name) or url for name, url in known.items()}

    async def _found(self, attempt: Attempt, urls: Mapping[str, str]) -> Reply | None:
        """The earlier job's result; None where there is no image in it any more, or never was."""
        try:
            return await self._result(attempt, urls)
        except _Unknown:
            attempt.lost(billed=True)
        except Failed as error:
            # over, for a reason that another request need not meet. A deadline never comes this way
            if not (isinstance(error, _Ended) and error.passing):
                raise
            attempt.lost(billed=error.billed is not False)
        return None

    async def _result(self, attempt: Attempt, urls: Mapping[str, str]) -> Reply:
        """The result of a request, waited for. Errors: Failed, among them _Unknown and _Ended."""
        pace = Pace()
        while True:
            reply = await self._polled(urls["status_url"])
            if reply is not None and reply.good and reply.text("status") == "COMPLETED":
                reply = await self._polled(urls["response_url"])
                if reply is not None and reply.good:
                    return reply
            await pace.wait(reply.retry_after_s if reply else None)

    async def _polled(self, url: str) -> Reply | None:
        """An answer about a request that is paid for: a good one, or one after which it is worth asking again. None: no
        answer. Errors: Failed."""
        try:
            reply = await self.caller.ask("GET", url)
        except Failed as error:
            if error.passing:
                return None
            raise
        if reply.good and isinstance(reply.data, dict):
            return reply
        if reply.status == 404:
            raise _Unknown("transient", "fal does not know the request (any more)")
        # a server error that names its type is the model's own answer, any other is fal's trouble with the question
        named = reply.text("error_type") or reply.text("detail", 0, "type")
        if reply.good or reply.status == 429 or (reply.status >= 500 and named is None):
            return reply if not reply.good else None
        failure = _failure(reply)
        if failure.outcome in {"auth", "budget"}:  # we may not ask; that says nothing of what the request cost
            raise Failed(failure.outcome, str(failure))
        raise _Ended(failure.outcome, str(failure), billed=failure.billed)

    async def _image(self, attempt: Attempt, endpoint: str, result: Reply) -> Made:
        if result.told("has_nsfw_concepts", 0) is True:
            raise Failed("refused-content", f"{endpoint} marked its picture as unsafe")
        url = result.text("images", 0, "url")
        if url is None:
            raise Failed("unusable", f"a result without an image: {result.said}")
        body = await self.caller.image(url, left_s=lambda: attempt.left_s)
        picture = await attempt.received(body)
        return attempt.made(picture, how=f"fal {endpoint}")

    async def give_up(self, attempt: Attempt) -> bool:
        endpoint, _ = _sheet(attempt.model)
        urls = _urls_of(self.caller.base_url, endpoint, attempt.job or "")
        reply = await self.caller.ask("PUT", urls["cancel_url"])
        # 200 OK: removed from the queue. 202: a runner was told, and may finish all the same
        return not (reply.status == 200 and reply.text("status") == "OK")


class _Unknown(Failed):
    """fal cannot tell what became of a request."""


class _Ended(Failed):
    """The request is over, without an image."""


def _sheet(model: Model) -> tuple[str, Template]:
    """The endpoint of a row and what it is sent. Errors: ModelUnusable."""
    told = template.in_file(model)
    if told is None:
        left_out = {"negative_prompt"} - ({"negative_prompt"} if model.takes_negative_prompt else set())
        left_out |= set() if model.takes_guidance else {"guidance_scale"}
        return model.location.strip("/"), template.of(
            {name: one for name, one in INPUT.items() if name not in left_out}
        )
    endpoint, sent = told.get("endpoint"), template.of(told.get("input"))
    if not isinstance(endpoint, str) or "prompt" not in sent.takes:
        raise ModelUnusable(f'model {model.name}: {model.location} needs "endpoint" and an "input" with {{prompt}}')
    return endpoint.strip("/"), sent


def _urls_of(base_url: str, endpoint: str, job: str) -> dict[str, str]:
    """Where a request is asked about: below owner and app, without the endpoint's further path, as fal's own client
    builds them from an id (fal_client, `SyncRequestHandle.from_request_id`)."""
    owner_and_app = "/".join(endpoint.split("/")[:2])
    there = f"{base_url}/{owner_and_app}/requests/{job}"
    return {"status_url": f"{there}/status", "response_url": there, "cancel_url": f"{there}/cancel"}


def _failure(reply: Reply) -> Failed:
    detail = reply.told("detail")
    said = detail if isinstance(detail, str) else reply.text("detail", 0, "msg") or reply.said
    codes = [reply.text("detail", 0, "type"), reply.text("error_type"), reply.headers.get("x-fal-error-type")]
    if "exhausted balance" in said.lower():  # an account that ran out is locked: 403, told apart by its words alone
        codes.insert(0, "exhausted balance")
    return ruled(RULINGS, reply.status, codes, said, retry_after_s=reply.retry_after_s)
