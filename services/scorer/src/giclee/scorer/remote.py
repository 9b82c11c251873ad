"""An evaluator of the operator's own, over HTTP: a picture is sent, signed, and a number comes back within a deadline.

Whatever is not a number in time is no value, and says why; nothing of it is ever a pass. It waits on the network, so
it has no thread and never ends the process: the deadline counts from when the picture arrives, its turn included.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import io
import json
import time
from typing import Annotated, Any

import httpx2
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from giclee.bus import telemetry
from giclee.schemas.parts import StrictPart
from giclee.scorer.dimension import Evaluator, Measured, Picture, versioned

ANSWER_MAX_BYTES = 64 * 1024
SECRET_MIN_CHARS = 16
REASON_MAX_CHARS = 200
LATE_MAX = 3
"""Deadlines missed in a row after which, for one deadline, no picture is made to wait: it would wait for nothing, and
pictures that ask for other dimensions would wait behind it."""

log = telemetry.logger(__name__)


class Endpoint(StrictPart):
    """Where to ask and how. `secret_env` names the variable of the signature's secret, at least 16 characters.

    `deadline_s` is for one picture, waiting for one of `at_once` turns included; a larger picture is sent scaled to
    `long_side_max_px`. `unit` and `blind_to` are shown beside the scores.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=2048)]
    secret_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
    deadline_s: Annotated[float, Field(gt=0, le=60, strict=False)] = 10.0
    at_once: Annotated[int, Field(ge=1, le=64)] = 4
    long_side_max_px: Annotated[int, Field(ge=64, le=4096)] = 1024
    unit: Annotated[str, Field(max_length=64)] = "as the evaluator says"
    blind_to: Annotated[str, Field(max_length=256)] = "what it does not answer for"

    @field_validator("url")
    @classmethod
    def _names_a_host_and_nobody(cls, url: str) -> str:
        try:
            parts = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise ValueError("is no URL") from error
        if not parts.host:
            raise ValueError("names no host")
        if parts.userinfo or "@" in url.partition("://")[2].partition("/")[0]:
            raise ValueError("must not carry a user or password: requests are signed with the secret of secret_env")
        return url

    @field_validator("secret_env")
    @classmethod
    def _is_not_a_setting(cls, name: str) -> str:
        if name.startswith("GICLEE_"):
            raise ValueError("must be a name of your own: names that start with GICLEE_ are settings")
        return name


class Answer(BaseModel):
    """What an evaluator says; other fields are passed over."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    value: float
    reason: Annotated[str, Field(max_length=10_000)] | None = None
    version: Annotated[str, Field(pattern=r"^[ -~]{1,64}$")] | None = None


class NoAnswer(Exception):
    """There is no value; `why` is a word for metrics, the message is for people."""

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why


class Remote:
    """One evaluator. `asset_types`: whose pictures are sent; None is all. `secret` signs."""

    def __init__(
        self, name: str, endpoint: Endpoint, *, secret: bytes, asset_types: frozenset[str] | None = None
    ) -> None:
        self.name = name
        version = versioned("1", endpoint)
        self.evaluator = Evaluator(f"http {name}", version, unit=endpoint.unit, blind_to=endpoint.blind_to)
        self._endpoint, self._secret, self._asset_types = endpoint, secret, asset_types
        self._turns = asyncio.Semaphore(endpoint.at_once)
        # no proxy, no .netrc: what is sent is what the row says; the deadline is ours, around the whole
        self._client = httpx2.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=endpoint.deadline_s,
            limits=httpx2.Limits(max_connections=endpoint.at_once),
        )
        self._late = 0
        self._asked_again_at = 0.0

    def is_for(self, asset_type: str) -> bool:
        return self._asset_types is None or asset_type in self._asset_types

    async def run(self) -> None:
        """Until cancelled; then the connections are closed."""
        try:
            await asyncio.Event().wait()
        finally:
            await self._client.aclose()

    async def measure(self, picture: Picture) -> Measured:
        """What the evaluator says of a picture; None and why where it says nothing that can be used. Raises nothing."""
        began = time.perf_counter()
        try:
            answer = await self._within(picture)
        except NoAnswer as error:
            telemetry.count("giclee_dimension_failures_total", dimension=self.name, why=error.why)
            log.warning("an evaluator did not answer", dimension=self.name, why=error.why)
            return Measured(None, certain=False, reason=str(error))
        finally:
            telemetry.observe("giclee_dimension_seconds", time.perf_counter() - began, dimension=self.name)
        version = f"{self.evaluator.version}+{answer.version}" if answer.version else None
        return Measured(answer.value, reason=_shown(answer.reason), version=version)

    async def _within(self, picture: Picture) -> Answer:
        """Errors: NoAnswer."""
        if time.monotonic() < self._asked_again_at:
            raise NoAnswer("away", f"not asked: {LATE_MAX} deadlines in a row were missed")
        try:
            async with asyncio.timeout(self._endpoint.deadline_s), self._turns:
                answer = await self._asked(await asyncio.to_thread(self._body, picture))
        except (TimeoutError, httpx2.TimeoutException):
            self._late += 1
            if self._late >= LATE_MAX:
                self._asked_again_at = time.monotonic() + self._endpoint.deadline_s
            raise NoAnswer("deadline", f"no answer within {self._endpoint.deadline_s:g} s") from None
        except NoAnswer:
            self._late = 0
            raise
        self._late = 0
        return answer

    async def _asked(self, body: bytes) -> Answer:
        """One answer. A connection that breaks is tried once more: a kept one may have been closed meanwhile."""
        try:
            return await self._once(body)
        except httpx2.TimeoutException:
            raise
        except httpx2.TransportError:
            pass
        try:
            return await self._once(body)
        except httpx2.TimeoutException:
            raise
        except httpx2.HTTPError as error:
            raise NoAnswer("connection", f"the connection failed: {type(error).__name__}") from error

    async def _once(self, body: bytes) -> Answer:
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            # what is read is counted as it comes: nothing may unfold
            "accept-encoding": "identity",
            **signed(body, self._secret, at_s=int(time.time())),
        }
        async with self._client.stream("POST", self._endpoint.url, content=body, headers=headers) as response:
            if response.status_code != httpx2.codes.OK:
                why = "redirect" if response.is_redirect else "status"
                raise NoAnswer(why, f"answered with status {response.status_code}")
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise NoAnswer("answer", "the answer is compressed; identity was asked for")
            found = bytearray()
            async for part in response.aiter_raw():
                found += part
                if len(found) > ANSWER_MAX_BYTES:
                    raise NoAnswer("too-large", f"the answer has over {ANSWER_MAX_BYTES} bytes")
        return read(bytes(found))

    def _body(self, picture: Picture) -> bytes:
        """What is sent: the decoded pixels as PNG, never the file as it came."""
        image = Image.fromarray(picture.pixels)
        side = self._endpoint.long_side_max_px
        if max(image.size) > side:
            image.thumbnail((side, side))
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)  # bytes to a service nearby are cheaper than seconds
        shown = {
            "content_type": "image/png",
            "width": image.width,
            "height": image.height,
            "base64": base64.b64encode(file.getvalue()).decode(),
        }
        told: dict[str, Any] = {
            "evaluator": self.name,
            "asset_type": picture.asset_type,
            "prompt": picture.prompt,
            "image": shown,
        }
        return json.dumps(told).encode()


def read(body: bytes) -> Answer:
    """An answer's body. Errors: NoAnswer naming the field that is wrong."""
    try:
        return Answer.model_validate_json(body)
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False, include_input=False, include_context=False)
        if first["type"] == "json_invalid":
            raise NoAnswer("answer", "the answer is not JSON") from None
        where = "/".join(map(str, first["loc"])) or "the answer"
        raise NoAnswer("answer", f"{where}: {first['msg']}") from None


def signed(body: bytes, secret: bytes, *, at_s: int) -> dict[str, str]:
    """The headers of Standard Webhooks. The id follows from the body: a receiver knows what it was asked before."""
    name = f"eval_{hashlib.sha256(body).hexdigest()[:32]}"
    return {
        "webhook-id": name,
        "webhook-timestamp": str(at_s),
        "webhook-signature": signature(name, at_s, body, secret),
    }


def signature(name: str, at_s: int, body: bytes, secret: bytes) -> str:
    """`v1,` and HMAC-SHA256 over `name.time.body` (standardwebhooks.com)."""
    mac = hmac.new(secret, f"{name}.{at_s}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}"


def key_of(secret: str) -> bytes:
    """The bytes that sign: of `whsec_…` what its Base64 holds, else the text itself. Errors: ValueError, which does not
    say the secret."""
    if len(secret) < SECRET_MIN_CHARS:
        raise ValueError(f"must have at least {SECRET_MIN_CHARS} characters")
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("starts with whsec_, and what follows is not Base64") from None


def _shown(reason: str | None) -> str | None:
    """As it can be stored and shown: one line, nothing that is not printable."""
    if reason is None:
        return None
    return "".join(char if char.isprintable() else " " for char in reason)[:REASON_MAX_CHARS]
