"""What intake knows of a request: a set of facts that events add to. Pure; store.py keeps the facts.

Topics may be read in any order, events come twice or never. So nothing here depends on order: of two facts
with one name the earliest record stands, of an asset the highest version, of a cost the largest sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from giclee.schemas import events
from giclee.schemas.events import CandidateEvent, Event, ImageRequested
from giclee.schemas.parts import usd_text

Facts = dict[str, Any]
SAMPLE = "review_sample"


@dataclass(slots=True)
class Candidate:
    """One candidate's facts, by kind and then by hop, sha256 or dead letter; `counted` is what they came to as metrics
    when they were loaded (`routes.py`)."""

    candidate_id: UUID
    facts: Facts = field(default_factory=dict)
    counted: dict[Any, float] = field(default_factory=dict)


@dataclass(slots=True)
class Shown:
    """What the caller's stream has said by now: its newest number, what `progress` said last, whether it ended."""

    id: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    closing: bool = False


@dataclass(slots=True)
class Known:
    """All that is known of one request, while its row is locked. `now` is the database's time.

    `news` are (event name, JSON document) for the caller's stream; `touched` are the candidates that changed;
    `routes` are the router's decisions that were read just now, by wave;
    `accepted_here` says that the request itself became known just now.
    """

    number: int
    tenant: str
    request_id: UUID
    now: datetime
    ttl: timedelta
    request: ImageRequested | None = None
    accepted_at: datetime | None = None
    closes_by: datetime | None = None
    cancel_sent: bool = False
    facts: Facts = field(default_factory=dict)
    shown: Shown = field(default_factory=Shown)
    candidates: dict[UUID, Candidate] = field(default_factory=dict)
    routes: dict[int, Facts] = field(default_factory=dict)
    touched: set[UUID] = field(default_factory=set)
    news: list[tuple[str, str]] = field(default_factory=list)
    changed: bool = False
    accepted_here: bool = False

    def candidate(self, candidate_id: UUID) -> Candidate:
        return self.candidates.setdefault(candidate_id, Candidate(candidate_id))

    def accept(self, request: ImageRequested, at: datetime) -> None:
        """Note the request itself, accepted `at`; it closes at its deadline, else after the time to live."""
        self.request, self.accepted_at = request, at
        self.closes_by = request.deadline or at + self.ttl
        self.changed = self.accepted_here = True

    def keep(self, name: str, fact: Facts, facts: Facts | None = None) -> bool:
        """Store a fact of the request; whether its name is new."""
        new, changed = _keep(self.facts if facts is None else facts, name, fact)
        self.changed = self.changed or changed
        return new

    def note(self, candidate_id: UUID, kind: str, name: str, fact: Facts) -> bool:
        """Store a fact of a candidate; whether its name is new."""
        new, changed = _keep(self.candidate(candidate_id).facts.setdefault(kind, {}), name, fact)
        if changed:
            self.touched.add(candidate_id)
        return new

    def spent(self, candidate_id: UUID, amount: Decimal) -> None:
        """The cost of a candidate is the largest sum ever reported for it."""
        facts = self.candidate(candidate_id).facts
        if amount > Decimal(facts.get("spent_usd", "-1")):
            facts["spent_usd"] = usd_text(amount)
            self.touched.add(candidate_id)


def _keep(facts: Facts, name: str, fact: Facts) -> tuple[bool, bool]:
    """(whether the name is new, whether anything changed): the earliest record stands, whatever came first."""
    old = facts.get(name)
    if old is None:
        facts[name] = fact
        return True, True
    if old == fact or (old["at"], str(old)) <= (fact["at"], str(fact)):
        return False, False
    facts[name] = fact
    return False, True


def moment(at: datetime) -> str:
    """A time as facts keep it: UTC, milliseconds, comparable as text."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _at(event: Event) -> str:
    return moment(event.envelope.recorded_at)


def _dump(event: Event) -> str:
    return event.model_dump_json(exclude_none=True, by_alias=True)


# ---- what each event adds -----------------------------------------------------------------------


def _requested(known: Known, event: ImageRequested) -> None:
    if known.request is None:
        known.accept(event, min(event.envelope.recorded_at, known.now))
    elif known.request.values() != event.values():
        return  # policy refuses it with a dead letter; the first request is untouched
    known.keep("seen", {"at": _at(event)})


def _cancelled(known: Known, event: events.CancelRequested) -> None:
    if event.reason in ("expired", "discarded"):
        return  # a clock's or an operator's, not the caller's: the closing will say what became of it
    known.cancel_sent = known.cancel_sent or event.request is not None
    known.keep("cancel", {"at": _at(event)} | ({"note": event.note} if event.note else {}))
    known.changed = True


def _cleared(known: Known, event: events.ImageCleared) -> None:
    closes_by = moment(event.closes_by)
    known.keep("cleared", {"at": _at(event), "closes_by": closes_by, "policy_version": event.request.policy_version})


def _refused(known: Known, event: events.ImageRefused) -> None:
    reasons = [reason.model_dump(mode="json", exclude_none=True) for reason in event.reasons]
    known.keep("refused", {"at": _at(event), "reasons": reasons, "policy_version": event.policy_version})


def _index(known: Known, event: CandidateEvent) -> None:
    facts = known.candidate(event.candidate_id).facts
    if "index" not in facts:
        facts["index"] = event.index
        known.touched.add(event.candidate_id)


def _routed(known: Known, event: events.ImageRouted) -> None:
    _index(known, event)
    hop = event.chain[event.hop]
    fact: Facts = {"at": _at(event), "provider": hop.provider, "model": hop.model.name, "wave": event.wave}
    fact |= {"asset_type": event.request.asset_type, "quality": event.request.quality}
    if event.hop == 0:
        if event.wave not in known.routes:
            known.routes[event.wave] = decision_of(event)
    elif event.reasons:  # the newest says why the hop before made no image
        fact["reason"] = event.reasons[-1].model_dump(mode="json", exclude_none=True)
    known.note(event.candidate_id, "routed", str(event.hop), fact)
    known.spent(event.candidate_id, event.spent_usd)


def decision_of(event: events.ImageRouted) -> Facts:
    """What the router decided for a wave: the same for each of its candidates."""
    chain: list[Facts] = [
        {"provider": hop.provider, "model": hop.model.name, "price_usd": usd_text(hop.price_usd)} for hop in event.chain
    ]
    for row, told in zip(chain, event.weighed, strict=False):  # a router of an earlier release weighs nothing
        row |= {"per_approved_usd": usd_text(told.per_approved_usd), "acceptance": told.acceptance, "why": told.why}
    losers = [{"provider": one.provider, "code": one.code, "message": one.message} for one in event.losers]
    found = {"asset_type": event.request.asset_type, "quality": event.request.quality, "chain": chain, "losers": losers}
    return found | {"limit_usd": usd_text(event.limit_usd), "hedge_after_s": event.hedge_after_s}


def _generated(known: Known, event: events.ImageGenerated) -> None:
    _index(known, event)
    model = {"name": event.model.name, "revision": event.model.revision}
    fact = {"at": _at(event), "sha256": event.image.sha256, "provider": event.provider, "model": model}
    known.note(event.candidate_id, "made", str(event.hop), fact | {"seed": event.seed, "seconds": event.seconds})
    known.spent(event.candidate_id, event.spent_usd)


def _failed(known: Known, event: events.GenerationFailed) -> None:
    _index(known, event)
    reasons = [reason.model_dump(mode="json", exclude_none=True) for reason in event.reasons]
    known.note(event.candidate_id, "failed", str(event.hop), {"at": _at(event), "reasons": reasons})
    known.spent(event.candidate_id, event.spent_usd)


def _scored(known: Known, event: events.ImageScored) -> None:
    _index(known, event)
    scores = {name: score.model_dump(mode="json", exclude_none=True) for name, score in event.scores.items()}
    fact = {"at": _at(event), "verdict": event.verdict, "passes": event.passes(), "scores": scores}
    known.note(event.candidate_id, "scores", event.sha256, fact | {"gate_version": event.gate_version})


def _review_requested(known: Known, event: events.ReviewRequested) -> None:
    _index(known, event)
    why = event.reasons[0].code if event.reasons else "other"
    if why == SAMPLE:
        return  # it is approved already, or its approval is on its way: nobody waits for a person
    if known.note(event.candidate_id, "asked", event.sha256, {"at": _at(event), "why": why}):
        known.news.append(("review.requested", _dump(event)))


def _reviewed(known: Known, event: events.ImageReviewed) -> None:
    _index(known, event)
    fact = {"at": _at(event), "verdict": event.verdict, "reviewer": event.reviewer}
    known.note(event.candidate_id, "reviews", event.sha256, fact | {"reason_codes": list(event.reason_codes)})


def _approved(known: Known, event: events.ImageApproved) -> None:
    facts = known.candidate(event.candidate_id).facts
    if facts.get("asset", {}).get("version", 0) >= event.version:
        return
    links = event.links.model_dump(mode="json")
    fact = {"at": _at(event), "asset_id": str(event.asset_id), "version": event.version, "links": links}
    facts["asset"] = fact | ({"format": event.format} if event.format else {})
    known.touched.add(event.candidate_id)
    known.news.append(("asset.approved", _dump(event)))


def _revoked(known: Known, event: events.ImageRevoked) -> None:
    revoked = known.facts.setdefault("revoked", {})
    if revoked.get(str(event.asset_id), {}).get("version", 0) >= event.version:
        return
    fact = {"at": _at(event), "version": event.version, "reason_code": event.reason_code, "reason": event.reason}
    revoked[str(event.asset_id)] = fact
    known.changed = True
    known.news.append(("asset.revoked", _dump(event)))


def _closed(known: Known, event: events.RequestClosed) -> None:
    known.keep("closed", {"at": _at(event), "closing": event.model_dump(mode="json", exclude_none=True)})


def _stalled(known: Known, event: events.ImageStalled) -> None:
    if event.dead_class == "invalid":
        return  # contract rule 10: of a record that is invalid by itself no order knows anything
    source = event.source
    name = f"{event.stage}:{source.topic}:{source.partition}:{source.offset}:{event.replay_count}"
    reasons = [reason.model_dump(mode="json", exclude_none=True) for reason in event.reasons]
    fact = {"at": _at(event), "stage": event.stage, "wave": event.wave, "hop": event.hop, "reasons": reasons}
    if event.candidate_id is None:
        new = known.keep(name, fact, known.facts.setdefault("stalls", {}))
    else:
        new = known.note(event.candidate_id, "stalls", name, fact)
        known.spent(event.candidate_id, event.paid_usd or Decimal(0))
    if new:
        known.news.append(("request.stalled", _dump(event)))


TABLE: dict[type[Event], Callable[[Known, Any], None]] = {
    ImageRequested: _requested,
    events.CancelRequested: _cancelled,
    events.ImageCleared: _cleared,
    events.ImageRefused: _refused,
    events.ImageRouted: _routed,
    events.ImageGenerated: _generated,
    events.GenerationFailed: _failed,
    events.ImageScored: _scored,
    events.ReviewRequested: _review_requested,
    events.ImageReviewed: _reviewed,
    events.ImageApproved: _approved,
    events.ImageRevoked: _revoked,
    events.RequestClosed: _closed,
    events.ImageStalled: _stalled,
}
"""Everything the stage `intake.status` reads, and what it adds to what is known."""


def learn(known: Known, event: Event) -> None:
    """Add what `event` says. Errors: KeyError for an event that TABLE lacks."""
    TABLE[type(event)](known, event)


def candidate_of(event: Event) -> UUID | None:
    """The candidate whose facts `learn` will touch."""
    found = getattr(event, "candidate_id", None)
    return found if isinstance(found, UUID) else None
