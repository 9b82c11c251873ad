"""Requests as policy meets them, and what it says to them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from giclee.policy.verdict import Judge, Ruling
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import ImageRequested

ID = UUID("11111111-2222-3333-4444-555555555555")
AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
JUDGE = Judge()


def requested(
    origin: str = "image.requested.v1:0:7", *, replay_for: str | None = None, **values: Any
) -> ImageRequested:
    """A request as it arrives; `values` as JSON would have them."""
    if "template" not in values:
        values.setdefault("prompt", "a small red circle on a blue background")
    event = ImageRequested.model_validate({"request_id": str(ID), **values})
    event.delivered(Envelope(origin=origin, recorded_at=AT, replay_for=replay_for))
    return event


def judged(request: ImageRequested) -> Ruling:
    """The ruling of the built-in tables."""
    return JUDGE.rule(request)


def refused_by(prompt: str, **values: Any) -> str | None:
    """The rule or code that refuses a prompt; None when it is cleared."""
    return judged(requested(prompt=prompt, **values)).cause or None
