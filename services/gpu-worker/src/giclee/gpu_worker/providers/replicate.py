"""Images by Replicate's predictions: create with a pinned version, poll, fetch the output; found by id after a crash.

https://replicate.com/docs/reference/http (predictions.create, get, cancel) · https://replicate.com/docs/topics/billing
https://replicate.com/docs/topics/predictions/lifecycle, …/rate-limits, …/output-files (outputs vanish after an hour)
https://replicate.com/changelog/2025-10-16-prediction-deadlines (Cancel-After, and who is charged)

Replicate documents no idempotency key. It tells how long a prediction ran; a second's price stands in the row's file.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any

from giclee.gpu_worker import template
from giclee.gpu_worker.attempt import BY_STATUS, Access, Attempt, Failed, Pace, Ruling, Rulings, ruled
from giclee.gpu_worker.http import Caller, Reply
from giclee.gpu_worker.provider import Capabilities, Made, ModelUnusable
from giclee.gpu_worker.template import Template
from giclee.schemas.models import Model
from giclee.schemas.parts import USD_PLACES

BASE_URL = "https://api.replicate.com/v1"
CANCEL_AFTER_MIN_S = 5
_VERSION = re.compile(r"^[0-9a-f]{64}$")
_RESETS = re.compile(r"(?:resets? in|available in) ~?(\d+) ?s", re.IGNORECASE)
"""How long to wait stands in the sentence of a 429, for want of a header."""

INPUT: dict[str, Any] = {
    "prompt": "{prompt}",
    "negative_prompt": "{negative_prompt}",
    "width": "{width}",
    "height": "{height}",
    "num_inference_steps": "{steps}",
    "guidance_scale": "{guidance_scale}",
    "seed": "{seed}",
}

RULINGS: Rulings = {
    **BY_STATUS,
    # words within a failed prediction's error, which has no code; time that it ran is charged
    "nsfw": Ruling("refused-content"),
    "flagged as sensitive": Ruling("refused-content"),
    "safety checker": Ruling("refused-content"),
    "out of memory": Ruling("invalid"),
    "failed": Ruling("transient"),
    # by a prediction's status
    "canceled": Ruling("transient", billed=True),
    "aborted": Ruling("transient", billed=False),
}
_WORDS = ("nsfw", "flagged as sensitive", "safety checker", "out of memory")


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a row says beside its version: the input, and US dollars for a second where it is told."""

    sent: Template
    usd_per_second: Decimal | None


class Replicate:
    """Replicate. A row's `revision` is the version's 64 hex digits, and its `location` the model's name, or a JSON file
    `{"input": {…}, "usd_per_second": "0.000725"}`: models differ in what they take."""

    name, needs_key = "replicate", True
    capabilities = Capabilities(
        seed=True,
        negative_prompt=True,
        steps=True,
        guidance=True,
        reference_image=False,
        concurrency=16,
        per_minute=600,  # predictions; "bursts above"
        lookup=True,
        data_terms="Inputs and outputs of API predictions are removed after an hour.",
    )

    def __init__(self, access: Access) -> None:
        self.caller = Caller(BASE_URL, access, headers={"authorization": f"Bearer {access.key}"})

    def where(self, model: Model) -> str:
        _sheet(model)
        return model.revision

    async def one(self, attempt: Attempt) -> Made:
        model, sheet = attempt.model, _sheet(attempt.model)
        template.tell_dropped(attempt, sheet.sent.takes, model.name)
        done = await self._found(attempt) if attempt.earlier is not None else None
        if done is None:
            await self._created(attempt, sheet.sent)
            done = await self._done(attempt)
        attempt.cost_usd = _cost(done, sheet.usd_per_second)
        url = _output(done)
        if url is None:
            raise Failed("unusable", f"a prediction without an image: {done.said}")
        body = await self.caller.image(url, left_s=lambda: attempt.left_s)
        picture = await attempt.received(body)
        how = f"replicate {model.revision[:12]}"
        return attempt.made(picture, how=how, pinned=True)

    async def _created(self, attempt: Attempt, sent: Template) -> None:
        body = {"version": attempt.model.revision, "input": sent.filled(attempt.ask)}
        # a prediction that nobody waits for ends by itself, even where this process dies
        headers = {"cancel-after": f"{max(CANCEL_AFTER_MIN_S, math.ceil(attempt.left_s))}s"}
        attempt.pays()
        reply = await self.caller.ask("POST", "predictions", body=body, headers=headers, paying=True)
        if not reply.good:
            raise _refusal(reply)
        job = reply.text("id")
        if job is None:
            raise Failed("transient", f"no id in the answer: {reply.said}")
        await attempt.note(job)

    async def _found(self, attempt: Attempt) -> Reply | None:
        """The earlier prediction, succeeded; None where there is no image in it any more, or never was."""
        try:
            done = await self._done(attempt)
        except _Unknown:
            attempt.lost(billed=True)
            return None
        except _Ended as error:
            if not error.passing:
                raise
            attempt.lost(billed=error.billed is not False)
            return None
        if _output(done) is None and done.told("data_removed") is True:
            attempt.lost(billed=True)
            return None
        return done

    async def _done(self, attempt: Attempt) -> Reply:
        """The prediction once it has succeeded. Errors: Failed, among them _Unknown and _Ended."""
        pace = Pace()
        while True:
            reply = await self._polled(attempt.job or "")
            status = reply.text("status") if reply is not None and reply.good else None
            if reply is not None and status == "succeeded":
                return reply
            if reply is not None and status in {"failed", "canceled", "aborted"}:
                raise _ended(reply, status)
            await pace.wait(reply.retry_after_s if reply is not None else None)

    async def _polled(self, job: str) -> Reply | None:
        """What Replicate says of a prediction; not good, or None: asking again may help. Errors: Failed."""
        try:
            reply = await self.caller.ask("GET", f"predictions/{job}")
        except Failed as error:
            if error.passing:
                return None
            raise
        if reply.good or reply.status == 429 or reply.status >= 500:
            return reply
        if reply.status == 404:
            raise _Unknown("transient", "Replicate does not know the prediction (any more)")
        failure = _refusal(reply)
        raise Failed(failure.outcome, str(failure))  # we may not ask; that says nothing of what the job cost

    async def give_up(self, attempt: Attempt) -> bool:
        reply = await self.caller.ask("POST", f"predictions/{attempt.job}/cancel")
        return reply.text("status") != "aborted"


class _Unknown(Failed):
    """Replicate cannot tell what became of a prediction."""


class _Ended(Failed):
    """The prediction is over, without an image."""


def _sheet(model: Model) -> Sheet:
    """What a row sends. Errors: ModelUnusable."""
    if not _VERSION.match(model.revision):
        raise ModelUnusable(f"model {model.name}: revision must be a version's 64 hex digits: a name alone moves")
    told = template.in_file(model)
    if told is None:
        left_out = set() if model.takes_negative_prompt else {"negative_prompt"}
        left_out |= set() if model.takes_guidance else {"guidance_scale"}
        return Sheet(template.of({name: one for name, one in INPUT.items() if name not in left_out}), None)
    sent, price = template.of(told.get("input")), told.get("usd_per_second")
    if "prompt" not in sent.takes:
        raise ModelUnusable(f'model {model.name}: {model.location} needs an "input" with {{prompt}}')
    try:
        usd = None if price is None else Decimal(str(price))
    except InvalidOperation:
        usd = Decimal("NaN")
    if usd is not None and not (usd.is_finite() and usd >= 0):
        raise ModelUnusable(f"model {model.name}: {model.location}: usd_per_second is no amount")
    return Sheet(sent, usd)


def _output(reply: Reply) -> str | None:
    """The address of the first image: an output is one address or a list of them."""
    return reply.text("output") or reply.text("output", 0)


def _cost(reply: Reply, usd_per_second: Decimal | None) -> Decimal | None:
    """What the prediction cost, where both its seconds and their price are known."""
    seconds = reply.told("metrics", "predict_time")
    if usd_per_second is None or isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    if not math.isfinite(seconds) or seconds < 0:
        return None
    return (Decimal(str(seconds)) * usd_per_second).quantize(Decimal(1).scaleb(-USD_PLACES), ROUND_CEILING)


def _ended(reply: Reply, status: str) -> _Ended:
    said = reply.text("error") or f"the prediction was {status}"
    words = [word for word in _WORDS if word in said.lower()] if status == "failed" else []
    found = ruled(RULINGS, reply.status, [*words, status], said)
    return _Ended(found.outcome, said, billed=found.billed)


def _refusal(reply: Reply) -> Failed:
    """An answer that is no prediction: `{"title", "detail", "status"}`."""
    said = reply.text("detail") or reply.text("title") or reply.said
    resets = _RESETS.search(said)
    wait = reply.retry_after_s if reply.retry_after_s is not None else float(resets[1]) if resets else None
    return ruled(RULINGS, reply.status, [], said, retry_after_s=wait)
