"""Clearances, waves, models and offers as the router meets them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from giclee.router.advice import Advice
from giclee.router.choose import Known
from giclee.router.routes import Catalogue, Offer
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import CandidatesRequested, Cleared, ImageCleared, ProviderHealth, SwitchSet
from giclee.schemas.health import ModelHealth
from giclee.schemas.models import Model

ID = UUID("11111111-2222-3333-4444-555555555555")
AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def model(name: str = "shapes-final", **values: Any) -> Model:
    """A row of the models table; the demo model unless told otherwise."""
    row = {
        "name": name, "revision": "r1", "location": name, "qualities": ["final"], "price_usd": "0.0004",
        "steps": 8, "width": 64, "height": 64, "size_min": 64, "size_max": 64,
    }  # fmt: skip
    return Model.model_validate({**row, **values})


FINAL = Offer(model(), builtin=True)
DRAFT = Offer(model("shapes-draft", qualities=["draft"], price_usd="0.0001", steps=4), builtin=True)
SDXL = Offer(
    model("sdxl", price_usd="0.01", steps=20, width=1024, height=1024, size_min=512, size_max=1024, provider="own-gpu")
)
DEMO = Catalogue((DRAFT, FINAL), "demo")


def request(**values: Any) -> Cleared:
    """What policy cleared, without an envelope."""
    cleared = {
        "prompt": "a small red circle on a blue background", "asset_type": "generic", "wanted": 1, "max_candidates": 8,
        "selection": "best", "quality": "final", "priority": "standard", "privacy": "public", "seed": 7,
        "limit_usd": "0.001", "policy_version": "p", "accepted_at": AT, "closes_by": LATER,
    }  # fmt: skip
    return Cleared.model_validate({**cleared, **values})


def cleared(first_wave: int = 1, *, limit_usd: str = "0.001", tenant: str = "default", **values: Any) -> ImageCleared:
    """A clearance as it arrives."""
    event = ImageCleared(
        request_id=ID, tenant=tenant, labels={"team": "shoes"}, client_ref="order 7",
        request=request(limit_usd=limit_usd, **values), first_wave=first_wave, limit_usd=limit_usd, closes_by=LATER,
    )  # fmt: skip
    event.delivered(Envelope(origin="image.policy-cleared.v1:0:1", recorded_at=AT))
    return event


def wave(number: int, first_index: int, count: int, *, limit_usd: str = "0.001", **values: Any) -> CandidatesRequested:
    """A wave of the publisher's as it arrives."""
    event = CandidatesRequested(
        request_id=ID, request=request(**values), wave=number, first_index=first_index, count=count,
        limit_usd=limit_usd, closes_by=LATER,
    )  # fmt: skip
    event.delivered(Envelope(origin="image.candidates-requested.v1:0:1", recorded_at=AT))
    return event


AT_S = AT.timestamp()


def told(offer: Offer, at: datetime = AT, **values: Any) -> ProviderHealth:
    """What health tells of an offer's model."""
    return ProviderHealth(
        provider=offer.model.provider, attempts=0, made=0, window_s=60, at=at,
        models={offer.model.name: ModelHealth.model_validate(values)},
    )  # fmt: skip


def knowing(*rows: ProviderHealth, switches: dict[str, SwitchSet] | None = None, **values: Any) -> Known:
    """What a choice knows, with health of these providers and these switches."""
    stopped = switches or {}
    advice = Advice({row.provider: row for row in rows}, stopped)
    return Known(advice=advice, switches=stopped, **values)


def failing(*offers: Offer) -> Known:
    """These models failed three times in a row just now."""
    return knowing(*(told(offer, tried=5, failed=3, streak=3, failed_at=AT) for offer in offers))


def switch(scope: str, mode: str, at: datetime = AT) -> SwitchSet:
    return SwitchSet(scope=scope, mode=mode, reason="a test", actor="ada", set_at=at)
