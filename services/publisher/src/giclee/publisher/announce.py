"""Says what was decided, once it is committed: metrics and log lines. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

from giclee.bus import telemetry
from giclee.publisher import review
from giclee.publisher.review_queue import Effect
from giclee.schemas.events import CandidatesRequested, Event, ImageApproved, RequestClosed, ReviewRequested

log = telemetry.logger(__name__)


def decided(emitted: Iterable[Event]) -> None:
    """What decisions emitted."""
    for event in emitted:
        if isinstance(event, RequestClosed):
            telemetry.count("giclee_requests_closed_total", outcome=event.outcome)
            log.info(
                "order closed",
                request_id=str(event.request_id),
                tenant=event.tenant,
                outcome=event.outcome,
                approved=event.approved,
                candidates=event.candidates,
                cost_usd=str(event.cost_usd),
            )
        elif isinstance(event, ImageApproved):
            telemetry.count("giclee_assets_approved_total", provider=event.provider)
        elif isinstance(event, CandidatesRequested):
            telemetry.count("giclee_candidates_requested_total", event.count)
            telemetry.count("giclee_hedges_total", event.count if event.hedges else 0)
        elif isinstance(event, ReviewRequested):
            telemetry.count("giclee_reviews_requested_total", why=event.reasons[0].code)


def reviewed(effects: Iterable[Effect]) -> None:
    """What people said, and what it revoked."""
    for effect in effects:
        telemetry.count("giclee_reviews_total", kind=effect.kind, verdict=effect.event.verdict)
        if effect.event.seconds is not None:
            telemetry.observe("giclee_review_seconds", effect.event.seconds, kind=effect.kind)
        if effect.revokes:
            revoked(review.revokes_as(effect.event.reason_codes))


def revoked(reason_code: str) -> None:
    """An approval was taken back."""
    telemetry.count("giclee_assets_revoked_total", reason=reason_code)
