"""What a decision says to the world: approvals, waves and the one closing, made of stored evidence. Pure."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from giclee.publisher.facts import Fact, SealedImage
from giclee.publisher.funnel import Ask, Decision, applicable_cancel, reviews_of
from giclee.publisher.order import Order, Wave
from giclee.publisher.standing import cost_of, usable
from giclee.schemas import reasons
from giclee.schemas.events import (
    CancelRequested,
    CandidatesRequested,
    Event,
    GenerationFailed,
    ImageApproved,
    ImageCleared,
    ImageGenerated,
    ImageRefused,
    ImageReviewed,
    ImageScored,
    RequestClosed,
    ReviewRequested,
)
from giclee.schemas.parts import USD_PLACES, Adjustment, Approval, AssetName, Links, Reason, asset_id

STAGE = "publisher"
FIRST_VERSION = 1
"""The version of an approval: the first public fact about an asset (rule 17)."""

COPY = "near_duplicate"
PEOPLE = "review_failed"
ESCALATED = "too few of the asked quality would have passed"

REASONS_MAX = 50
"""Different reasons that one closing lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The events that facts were learned from. Keys are (index, hop), (index, sha256) and index."""

    cleared: ImageCleared | None = None
    refused: ImageRefused | None = None
    cancels: tuple[CancelRequested, ...] = ()
    made: dict[tuple[int, int], ImageGenerated] = field(default_factory=dict)
    failed: dict[tuple[int, int], GenerationFailed] = field(default_factory=dict)
    scored: dict[tuple[int, str], ImageScored] = field(default_factory=dict)
    sealed: dict[int, SealedImage] = field(default_factory=dict)
    looked: dict[tuple[int, str], ImageReviewed] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Iterable[Fact]) -> Evidence:
        """Read what was stored, oldest first. Facts without evidence are passed over."""
        found: dict[str, Any] = {}
        cancels: list[CancelRequested] = []
        by_key: dict[str, Any] = {"made": {}, "failed": {}, "scored": {}, "sealed": {}, "looked": {}}
        for fact in facts:
            text, says = fact.evidence, fact.says
            if text is None:
                continue
            if fact.kind == "verdict" and says["cleared"]:
                found["cleared"] = ImageCleared.model_validate_json(text)
            elif fact.kind == "verdict":
                found["refused"] = ImageRefused.model_validate_json(text)
            elif fact.kind == "cancel":
                cancels.append(CancelRequested.model_validate_json(text))
            elif fact.kind == "outcome" and says.get("image"):
                by_key["made"][says["index"], says["hop"]] = ImageGenerated.model_validate_json(text)
            elif fact.kind == "outcome":
                by_key["failed"][says["index"], says["hop"]] = GenerationFailed.model_validate_json(text)
            elif fact.kind == "score":
                by_key["scored"][says["index"], says["sha256"]] = ImageScored.model_validate_json(text)
            elif fact.kind == "seal":
                by_key["sealed"][int(fact.name)] = SealedImage.model_validate_json(text)
            elif fact.kind == "review":
                by_key["looked"][says["index"], says["sha256"]] = ImageReviewed.model_validate_json(text)
        return cls(cancels=tuple(cancels), **found, **by_key)

    def echo(self) -> dict[str, Any]:
        """What every event of the request repeats, from the best source there is."""
        complete = [cancel.request for cancel in self.cancels if cancel.request is not None]
        source = self.cleared or self.refused or (complete or self.cancels)[0]
        return source.echo()


@dataclass(frozen=True, slots=True)
class Terms:
    """What publications promise: where links lead, and by when a person should have looked, in seconds."""

    public_url: str
    review_due_s: float


def events_of(order: Order, decision: Decision, evidence: Evidence, now: datetime, terms: Terms) -> list[Event]:
    """Everything a decision emits, approvals before the closing."""
    approvals = [approval_of(order, index, evidence, now, terms.public_url) for index in decision.approve]
    closing = [closing_of(order, decision, evidence, now)] if decision.ending else []
    asked = review_requests(order, decision, evidence, now + timedelta(seconds=terms.review_due_s))
    return [*waves_of(order, decision, evidence), *asked, *approvals, *closing]


def review_requests(order: Order, decision: Decision, evidence: Evidence, due_at: datetime) -> list[ReviewRequested]:
    """What people are asked to look at, and why; before the order's closing time, save for samples."""
    closes_by = order.verdict.closes_by if order.verdict is not None else None
    found = []
    for index, sha256, kind in reviews_of(order, decision):
        outcome, score = order.outcomes[index], order.score_of(index)
        reasons_why = [_reason(f"review_{kind}", reasons.TABLE[f"review_{kind}"])]
        if score is not None and not score.passes:
            code = "dimension_unsure" if score.doubt else "dimension_failed"
            reasons_why += [_reason(code, reasons.TABLE[code], dimension=dimension) for dimension in score.failed]
        found.append(
            ReviewRequested(
                **evidence.echo(),
                candidate_id=outcome.candidate_id,
                index=index,
                hop=outcome.hop,
                sha256=sha256,
                image=evidence.sealed[index].image if kind == "sample" else outcome.image,
                reasons=tuple(reasons_why),
                due_at=due_at if kind == "sample" or closes_by is None else min(due_at, closes_by),
            )
        )
    return found


def waves_of(order: Order, decision: Decision, evidence: Evidence) -> list[Event]:
    """The wave a decision asks for and those it repeats."""
    cleared = evidence.cleared
    if cleared is None:
        return []
    runs: list[Wave | Ask] = [wave for wave in order.waves if wave.number in decision.repeat]
    if decision.ask:
        runs.append(decision.ask)
    return [
        CandidatesRequested(
            **cleared.echo(),
            request=cleared.request.model_copy(update={"quality": run.quality, "limit_usd": run.limit_usd}),
            wave=run.number,
            first_index=run.first,
            count=run.count,
            limit_usd=run.limit_usd,
            closes_by=cleared.closes_by,
            hedges=run.hedges,
        )
        for run in runs
    ]


def asset_of(order: Order, index: int) -> uuid.UUID:
    """The id of the asset that a candidate becomes."""
    return asset_id(order.outcomes[index].candidate_id)


def approval_of(order: Order, index: int, evidence: Evidence, now: datetime, public_url: str) -> ImageApproved:
    """An approval with everything that led to it.

    Errors: KeyError when there is no clearance, image, score or seal: nothing is approved without its evidence.
    """
    if evidence.cleared is None:
        raise KeyError(f"no clearance of {order.request_id}")
    outcome = order.outcomes[index]
    made = evidence.made[index, outcome.hop]
    scored, sealed, asked = evidence.scored[index, made.image.sha256], evidence.sealed[index], evidence.cleared.request
    asset = asset_of(order, index)
    quality = order.candidates()[index].quality
    escalated = Adjustment(field="quality", asked=asked.quality, used=quality, reason=ESCALATED)
    where = f"{public_url.rstrip('/')}/v1/assets/{asset}"
    return ImageApproved(
        **evidence.echo(),
        asset_id=asset,
        version=FIRST_VERSION,
        candidate_id=outcome.candidate_id,
        image=sealed.image,
        derivatives=sealed.derivatives,
        scores=scored.scores,
        prompt=made.prompt,
        negative_prompt=made.negative_prompt,
        template=asked.template,
        seed=made.seed,
        model=made.model,
        provider=made.provider,
        params=made.params,
        adjustments=made.adjustments if quality == asked.quality else (*made.adjustments, escalated),
        cost_usd=order.spent.get(index, Decimal(0)),
        approval=Approval(
            **_approver(order, index, evidence.looked.get((index, made.image.sha256))),
            policy_version=asked.policy_version,
            gate_version=scored.gate_version,
            approved_at=now,
        ),
        reproducibility=made.reproducibility,
        reproduction=made.reproduction,
        asset_type=asked.asset_type,
        links=Links(self=where, download=f"{where}/download"),
    )


def _approver(order: Order, index: int, looked: ImageReviewed | None) -> dict[str, Any]:
    """Who let the image through: the gate, or the person whose verdict it was."""
    if looked is None:
        return {"by": "gate", "sampled": order.is_drawn(index)}
    said = {"reviewer": looked.reviewer, "reason_codes": looked.reason_codes, "note": looked.note}
    sampled = order.asked.get(index) == "required" and order.is_drawn(index)
    return {"by": "reviewer", "sampled": sampled, **said}


def closing_of(order: Order, decision: Decision, evidence: Evidence, now: datetime) -> RequestClosed:
    """The one end. Cost is what settled candidates cost plus the limits of those still out (rule 4)."""
    waves = order.candidates()
    approved = [*sorted(order.approved), *decision.approve]
    cost = sum((cost_of(order, index, wave) for index, wave in waves.items()), Decimal(0))
    # without a clearance nobody knows what was asked for; what is known to be paid counts all the same
    cost += sum((usd for index, usd in order.spent.items() if index not in waves), Decimal(0))
    settled = all(index in order.outcomes for index in waves)
    per_approved = (cost / len(approved)).quantize(Decimal(1).scaleb(-USD_PLACES), ROUND_HALF_UP) if approved else None
    return RequestClosed(
        **evidence.echo(),
        **_asked_of(evidence, now),
        outcome=decision.ending,
        candidates=len(waves),
        approved=len(approved),
        assets=tuple(AssetName(asset_id=asset_of(order, index), version=FIRST_VERSION) for index in approved),
        cost_usd=cost,
        cost_final=order.verdict is not None and settled,
        cost_per_approved_usd=per_approved,
        rejected=_rejected(order),
        reasons=_reasons(order, decision, evidence),
        gate_version=max((scored.gate_version for scored in evidence.scored.values()), default=None),
        closed_at=now,
    )


def _asked_of(evidence: Evidence, now: datetime) -> dict[str, Any]:
    """What was asked and when, from the verdict, else from a cancel that carries the request."""
    if cleared := evidence.cleared:
        asked = cleared.request
        return {
            "wanted": asked.wanted,
            "asset_type": asked.asset_type,
            "policy_version": asked.policy_version,
            "requested_at": asked.accepted_at,
        }
    if refused := evidence.refused:
        return {
            "wanted": refused.wanted,
            "asset_type": refused.asset_type,
            "policy_version": refused.policy_version,
            "requested_at": refused.accepted_at,
        }
    cancel = next(cancel for cancel in evidence.cancels if cancel.request is not None)
    request = cancel.request
    wanted, kind = (1, "generic") if request is None else (request.wanted, request.asset_type)
    return {"wanted": wanted, "asset_type": kind, "requested_at": cancel.accepted_at or now}


def _rejected(order: Order) -> dict[str, int]:
    """How many images each dimension kept from being approved."""
    counted: Counter[str] = Counter()
    for index in order.outcomes.keys() - order.approved:
        score, looked = order.score_of(index), order.looked_at(index)
        if looked is not None and not looked.passes:
            counted[PEOPLE] += 1
        elif looked is None and score is not None and not score.passes:
            counted.update(score.failed)
    if copies := order.sealed() - set(usable(order)):
        counted[COPY] = len(copies)
    return dict(sorted(counted.items()))


def _reasons(order: Order, decision: Decision, evidence: Evidence) -> tuple[Reason, ...]:
    """Why the order ended with less than was wanted; nothing for an approved one."""
    if decision.ending == "approved":
        return ()
    found = [_own_reason(order, decision.because, evidence)] if decision.because else []
    if evidence.refused and decision.ending == "refused":
        found += evidence.refused.reasons
    for index, outcome in sorted(order.outcomes.items()):
        if outcome.image is None and (failed := evidence.failed.get((index, outcome.hop))):
            found += failed.reasons
    failures = {index for index, outcome in order.outcomes.items() if outcome.image is None}
    if lost := order.discarded - order.seals.keys() - failures:
        found.append(_reason("discarded", "an operator discarded these candidates", count=len(lost)))
    if waiting := [i for i, kind in order.asked.items() if kind != "sample" and order.looked_at(i) is None]:
        found.append(_reason("review_withdrawn", reasons.TABLE["review_withdrawn"], count=len(waiting)))
    for dimension, count in _rejected(order).items():
        if dimension in (COPY, PEOPLE):
            found.append(_reason(dimension, reasons.TABLE[dimension], count=count))
            continue
        message = f"{count} of the images did not pass {dimension}"
        found.append(_reason("dimension_failed", message, dimension=dimension, count=count))
    return _summed(found)


def _own_reason(order: Order, code: str, evidence: Evidence) -> Reason:
    message = reasons.TABLE[code]
    cancel = applicable_cancel(order)
    if cancel is not None:
        notes = [event.note for event in evidence.cancels if event.reason == cancel.reason and event.note]
        message = notes[0] if notes else message
    return _reason(code, message)


def _reason(code: str, message: str, *, dimension: str | None = None, count: int = 1) -> Reason:
    return Reason(code=code, stage=STAGE, message=message, dimension=dimension, count=count)


def _summed(found: Iterable[Reason]) -> tuple[Reason, ...]:
    """One row for each kind of reason, with the first message and the counts added up."""
    rows: dict[tuple[str | None, ...], Reason] = {}
    for reason in found:
        key = (reason.code, reason.stage, reason.rule, reason.dimension, reason.provider)
        known = rows.get(key)
        rows[key] = reason if known is None else known.model_copy(update={"count": known.count + reason.count})
    return tuple(rows.values())[:REASONS_MAX]
