"""What a claim came to: the decision after a hop, and the events that tell of it. Pure.

A decision is stored with the claim before anybody hears of it; the events are made from the stored row, so
a redelivery, a sweep and a replay tell the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, Protocol
from uuid import UUID

from giclee.bus.errors import Exhausted, Poison
from giclee.bus.redaction import redact
from giclee.gpu_worker import adjusting
from giclee.gpu_worker.bill import bill_of
from giclee.gpu_worker.provider import Made, NotMade, Shape
from giclee.schemas.events import Event, GenerationFailed, ImageGenerated, ImageRouted, ProviderOutcome
from giclee.schemas.parts import Adjustment, BlobRef, Hop, ModelUsed, Params, Reason

Outcome = Literal["generated", "routed", "failed", "ended", "discarded", "exhausted", "dead"]

NOT_ASKED = frozenset({"limit", "spend_cap", "call_rate"})
"""Codes of answers that are our own: no provider was asked, so none of them is an attempt at one."""

_WHY = {
    "ended": ("ended", "the request had ended before this image was made"),
    "discarded": ("discarded", "an operator discarded this candidate"),
}


class Told(Protocol):
    """What a stored claim says, as far as events need it."""

    @property
    def fence(self) -> int: ...
    @property
    def outcome(self) -> Outcome | None: ...
    @property
    def detail(self) -> dict[str, Any]: ...
    @property
    def spent_usd(self) -> Decimal: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """How a fence ends: what it paid in US dollars, and what its events need."""

    outcome: Outcome
    paid_usd: Decimal = Decimal(0)
    detail: dict[str, Any] = field(default_factory=dict)


# ---- deciding -----------------------------------------------------------------------------------


def made(routed: ImageRouted, shape: Shape, answer: Made, image: BlobRef) -> Decision:
    """The image is stored under `image`; what its provider says it cost, else its price, is paid."""
    hop = routed.chain[routed.hop]
    paid = bill_of(answer, hop.price_usd).paid_usd
    detail = {
        "image": image.model_dump(mode="json"),
        "seconds": round(answer.seconds, 4),
        "steps": shape.steps,
        "guidance_scale": shape.guidance_scale,
        "weights_sha256": answer.weights_sha256,
        "adjustments": [one.model_dump(mode="json") for one in _distinct((*hop.adjustments, *answer.adjustments))],
        "reproducibility": answer.reproducibility,
        "reproduction": answer.reproduction.model_dump(mode="json") if answer.reproduction else None,
        "attempt": _attempt("made", answer.seconds, paid),
    }
    return Decision("generated", paid, detail)


def made_otherwise(routed: ImageRouted, answer: Made) -> NotMade:
    """What an image is to a strict request whose provider made it differently all the same: none, and paid."""
    paid = bill_of(answer, routed.chain[routed.hop].price_usd).paid_usd
    return replace(adjusting.refused(answer.adjustments), paid_usd=paid, seconds=answer.seconds)


def not_made(routed: ImageRouted, answer: NotMade) -> Decision:
    """The provider gave no image: the next of the chain, or the end of it."""
    reason = Reason(
        code=answer.code,
        stage=f"gpu-worker.{routed.pool()}",
        message=redact(f"{answer.outcome}: {answer.message}")[:1000],
        provider=routed.chain[routed.hop].provider,
        retryable=answer.transient,
    )
    only_transient = routed.only_transient and answer.transient
    outcome: Outcome = "exhausted" if only_transient else "failed"
    paid = bill_of(answer, routed.chain[routed.hop].price_usd).paid_usd
    attempt = None if answer.code in NOT_ASKED else _attempt(answer.outcome, answer.seconds, paid)
    return _onward(routed, outcome, reason, only_transient=only_transient, paid=paid, attempt=attempt)


def not_affordable(routed: ImageRouted, spent_usd: Decimal) -> Decision:
    """The hop's price does not fit the candidate's limit: it is not taken. No replay can change that."""
    hop = routed.chain[routed.hop]
    reason = Reason(
        code="limit",
        stage=f"gpu-worker.{routed.pool()}",
        message=f"{hop.price_usd} after {spent_usd} is over the limit of {routed.limit_usd} US dollars",
        provider=hop.provider,
    )
    return _onward(routed, "failed", reason, only_transient=routed.only_transient, paid=Decimal(0), attempt=None)


def _onward(
    routed: ImageRouted,
    at_end: Outcome,
    reason: Reason,
    *,
    only_transient: bool,
    paid: Decimal,
    attempt: dict[str, Any] | None,
) -> Decision:
    outcome: Outcome = "routed" if routed.hop + 1 < len(routed.chain) else at_end
    told = reason.model_dump(mode="json")
    return Decision(outcome, paid, {"reason": told, "only_transient": only_transient, "attempt": attempt})


def _attempt(outcome: str, seconds: float, price: Decimal) -> dict[str, Any]:
    at = datetime.now(UTC).isoformat()
    return {"outcome": outcome, "seconds": round(seconds, 4), "price_usd": price, "at": at}


def waited(routed: ImageRouted, decision: Decision) -> Decision:
    """The decision with how long the record waited for its turn, in seconds: since it was written, less the attempt."""
    attempt = decision.detail.get("attempt")
    if not attempt:
        return decision
    since_s = (datetime.fromisoformat(attempt["at"]) - routed.envelope.recorded_at).total_seconds()
    told = {**attempt, "queue_s": round(max(0.0, since_s - attempt["seconds"]), 3)}
    return replace(decision, detail={**decision.detail, "attempt": told})


def _distinct(adjustments: Sequence[Adjustment]) -> list[Adjustment]:
    """One adjustment a field; the first, the router's, counts."""
    found: dict[str, Adjustment] = {}
    for one in adjustments:
        found.setdefault(one.field, one)
    return list(found.values())


# ---- telling ------------------------------------------------------------------------------------


def events_of(routed: ImageRouted, told: Told) -> list[Event]:
    """The events of a finished claim. Errors: Exhausted or Poison where it ended in a dead letter."""
    match told.outcome:
        case "generated":
            found: Event = _generated(routed, told)
        case "routed":
            found = _next(routed, told)
        case "exhausted":
            reasons = _reasons(routed, told)
            raise Exhausted(reasons[-1].message, reasons=reasons, paid_usd=told.spent_usd)
        case "dead":
            raise Poison(str(told.detail.get("message", "")), dead_class=str(told.detail.get("class", "poison")))
        case _:
            found = _failed(routed, told)
    attempt = attempt_of(routed, told)
    return [found] if attempt is None else [found, attempt]


def ended(routed: ImageRouted) -> GenerationFailed:
    """The answer to a record whose request ended before anybody claimed it."""
    return GenerationFailed(**_candidate(routed), reasons=(_why(routed, "ended"),), spent_usd=routed.spent_usd)


def attempt_of(routed: ImageRouted, told: Told) -> ProviderOutcome | None:
    """The fact about the provider, where one was asked."""
    attempt = told.detail.get("attempt")
    if not attempt:
        return None
    hop = routed.chain[routed.hop]
    return ProviderOutcome(
        provider=hop.provider,
        model=hop.model.name,
        candidate_id=routed.candidate_id,
        hop=routed.hop,
        fence=told.fence,
        expected_usd=hop.price_usd,
        **attempt,
    )


def _candidate(routed: ImageRouted) -> dict[str, Any]:
    return {**routed.echo(), "candidate_id": routed.candidate_id, "index": routed.index, "hop": routed.hop}


def _generated(routed: ImageRouted, told: Told) -> ImageGenerated:
    hop, detail, request = routed.chain[routed.hop], told.detail, routed.request
    return ImageGenerated(
        **_candidate(routed),
        image=BlobRef.model_validate(detail["image"]),
        prompt=request.prompt,
        slots=request.slots,
        negative_prompt=request.negative_prompt,
        asset_type=request.asset_type,
        seed=routed.seed,
        provider=hop.provider,
        model=ModelUsed(name=hop.model.name, revision=hop.model.revision, weights_sha256=detail.get("weights_sha256")),
        params=Params(steps=detail["steps"], guidance_scale=detail["guidance_scale"]),
        adjustments=tuple(Adjustment.model_validate(one) for one in detail["adjustments"]),
        spent_usd=told.spent_usd,
        price_usd=hop.price_usd,
        seconds=detail["seconds"],
        reproducibility=detail.get("reproducibility"),
        reproduction=detail.get("reproduction"),
    )


def _next(routed: ImageRouted, told: Told) -> ImageRouted:
    return ImageRouted(
        **{**_candidate(routed), "hop": routed.hop + 1},
        wave=routed.wave,
        chain=routed.chain,
        limit_usd=routed.limit_usd,
        spent_usd=told.spent_usd,
        only_transient=told.detail["only_transient"],
        seed=routed.seed,
        request=routed.request,
        reasons=_reasons(routed, told),
        hedge_after_s=routed.hedge_after_s,
    )


def _failed(routed: ImageRouted, told: Told) -> GenerationFailed:
    known = _reasons(routed, told)
    reasons = known if told.outcome == "failed" else (*known, _why(routed, str(told.outcome)))
    return GenerationFailed(**_candidate(routed), reasons=reasons, spent_usd=told.spent_usd)


def _reasons(routed: ImageRouted, told: Told) -> tuple[Reason, ...]:
    mine = told.detail.get("reason")
    return (*routed.reasons, Reason.model_validate(mine)) if mine else routed.reasons


def _why(routed: ImageRouted, outcome: str) -> Reason:
    code, message = _WHY[outcome]
    return Reason(code=code, stage=f"gpu-worker.{routed.pool()}", message=message)


def blob_key(routed: ImageRouted, fence: int) -> str:
    """Where the image of a fence lies: no two fences share a key, so a late one cannot overwrite."""
    return f"candidates/{routed.tenant}/{routed.request_id}/{routed.candidate_id}-{routed.hop}-{fence}"


Key = tuple[UUID, int]


def key_of(routed: ImageRouted) -> Key:
    """What is claimed: a candidate's hop."""
    return routed.candidate_id, routed.hop


def hop_of(routed: ImageRouted) -> Hop:
    """The provider that is asked now."""
    return routed.chain[routed.hop]
