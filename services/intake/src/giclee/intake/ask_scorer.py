"""Asks the scorer for its judgement on a picture made elsewhere, on its health port, within a deadline.

No verdict is ever guessed: a scorer that is away, slow or senseless is said to be unavailable.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2

from giclee.schemas.strict import FieldError, InvalidInput

JUDGED = ("verdict", "scores", "gate_version", "sha256", "size_bytes", "phash", "width", "height", "seconds")


class Busy(Exception):
    """The scorer judges as many as it may."""


class ScorerAway(Exception):
    """There is no verdict; the message says why."""


class ScorerCalls:
    """The scorer at its base address; None: there is none."""

    def __init__(self, url: str | None, deadline_s: float) -> None:
        self._url = url
        self.deadline_s = deadline_s

    async def evaluate(self, values: dict[str, Any], file: bytes | None) -> dict[str, Any]:
        """The judgement on a file, or on the blob that `values` name. Errors: InvalidInput, Busy, ScorerAway."""
        if self._url is None:
            raise ScorerAway("nobody to ask: the scorer's address is not set")
        parts: dict[str, Any] = {"values": (None, json.dumps(values).encode(), "application/json")}
        if file is not None:
            parts["file"] = ("file", file, "application/octet-stream")
        url = f"{self._url.rstrip('/')}/internal/evaluate"
        try:
            limit = httpx2.Timeout(self.deadline_s)
            async with asyncio.timeout(self.deadline_s), httpx2.AsyncClient(trust_env=False, timeout=limit) as client:
                answer = await client.post(url, files=parts)
                return _judgement(answer.status_code, answer.json())
        except TimeoutError:
            raise ScorerAway(f"the scorer did not answer in {self.deadline_s:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise ScorerAway(f"the scorer does not answer: {type(error).__name__} {error}") from error


def _judgement(status: int, told: dict[str, Any]) -> dict[str, Any]:
    """Errors: Busy, InvalidInput, ScorerAway, and KeyError for an answer that is none."""
    if status == 200:
        return {name: told[name] for name in JUDGED}
    if status == 429:
        raise Busy
    if status == 422:
        raise InvalidInput([FieldError(one["pointer"], one["detail"], one["code"]) for one in told["errors"]])
    raise ScorerAway(f"the scorer answers {status}: {told.get('detail')}")
