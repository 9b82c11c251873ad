"""How an event becomes facts (contract 3.2 rule 1), and the facts that the publisher makes itself.

A fact has a kind and a name; the first stored of a name wins, nothing is ever changed. Whatever order events
come in and however often, the same set results.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from giclee.publisher.review import Kind
from giclee.schemas.events import (
    CancelRequested,
    Event,
    GenerationFailed,
    ImageCleared,
    ImageGenerated,
    ImageRefused,
    ImageReviewed,
    ImageRouted,
    ImageScored,
    ImageStalled,
)
from giclee.schemas.parts import BlobRef, Derivative, Part, Reason, Score, candidate_id, usd_text

INDICES_MAX = 400
"""Candidates that a request can ever have: indices are 0 to 399 in the schemas."""

NOBODY = -1
"""The index of a candidate that is none of the request's."""

SHARED = frozenset({"no_route", "limit", "size_unsupported", "param_unsupported", "switch_refused"})
"""Codes of failures that every other candidate of the request would share."""

KEEP_THEIR_PLACE = SHARED | {"discarded"}
"""Codes of failures that do not make room under the cap: those, and a discard, since there may be an image all the
same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that is known. `says` is read by decisions; `evidence` is JSON that publications are made of.

    `at` is the database's time of storing, None before that.
    """

    kind: str
    name: str
    says: Mapping[str, Any] = field(default_factory=dict)
    evidence: str | None = None
    at: datetime | None = None


class SealedImage(Part):
    """A passing image under `assets/`, with what was derived from it. `measure` ranks it among its siblings."""

    candidate_id: uuid.UUID
    image: BlobRef
    derivatives: tuple[Derivative, ...]


def measure(scores: Mapping[str, Score]) -> float:
    """How good a passing image is among its siblings: its alignment with the prompt, which is what was asked for.

    Margins of other dimensions have units of their own and would drown it. An image without an alignment
    ranks last; equals rank by index.
    """
    score = scores.get("alignment")
    return -1.0 if score is None or score.value is None else score.value


def _from_cleared(event: ImageCleared) -> list[Fact]:
    asked = event.request
    says = {
        "cleared": True,
        "wanted": asked.wanted,
        "first_wave": event.first_wave,
        "max_candidates": asked.max_candidates,
        "best": asked.selection == "best",
        "limit_usd": usd_text(event.limit_usd),
        "budget_usd": None if asked.budget_usd is None else usd_text(asked.budget_usd),
        "closes_by": event.closes_by.isoformat(),
        "asset_type": asked.asset_type,
        "quality": asked.quality,
        "priority": asked.priority,
        "copies": asked.copies,
        "review": asked.review.model_dump(mode="json"),
        **({"escalation_usd": usd_text(asked.escalation_limit_usd)} if asked.escalation_limit_usd is not None else {}),
    }
    return [Fact(kind="verdict", name="", says=says, evidence=event.model_dump_json())]


def _from_refused(event: ImageRefused) -> list[Fact]:
    says = {"cleared": False, "wanted": event.wanted}
    return [Fact(kind="verdict", name="", says=says, evidence=event.model_dump_json())]


def _from_cancel(event: CancelRequested) -> list[Fact]:
    complete = event.request is not None
    name = f"{event.reason}/{'complete' if complete else 'bare'}"
    says = {"reason": event.reason, "complete": complete}
    return [Fact(kind="cancel", name=name, says=says, evidence=event.model_dump_json())]


def _spent_fact(index: int, usd: Decimal) -> list[Fact]:
    text = usd_text(usd)
    return [Fact(kind="spent", name=f"{index}/{text}", says={"index": index, "usd": text})] if usd > 0 else []


def _from_generated(event: ImageGenerated) -> list[Fact]:
    says = {
        "index": event.index,
        "hop": event.hop,
        "candidate_id": str(event.candidate_id),
        "image": event.image.model_dump(mode="json"),
        "model": f"{event.model.name}@{event.model.revision}",
    }
    made = Fact(kind="outcome", name=f"{event.index}/{event.hop}", says=says, evidence=event.model_dump_json())
    return [made, *_spent_fact(event.index, event.spent_usd)]


def _from_failed(event: GenerationFailed) -> list[Fact]:
    codes = {reason.code for reason in event.reasons}
    says = {
        "index": event.index,
        "hop": event.hop,
        "candidate_id": str(event.candidate_id),
        "keeps_place": bool(codes & KEEP_THEIR_PLACE),
        "shared": event.reasons[0].code in SHARED and (event.reasons[0].stage == "router" or codes <= SHARED),
    }
    found = [Fact(kind="outcome", name=f"{event.index}/{event.hop}", says=says, evidence=event.model_dump_json())]
    if "discarded" in codes:  # rule 11: it ends the candidate unless it is sealed, whatever else is known of it
        found.append(Fact(kind="discard", name=str(event.index)))
    return found + _spent_fact(event.index, event.spent_usd)


def facts_of_routed(event: ImageRouted) -> list[Fact]:
    """Whom somebody waits for, and after how long another provider is worth its price; nothing where nobody waits."""
    if event.hedge_after_s is None:
        return []
    provider = event.chain[event.hop].provider
    says = {"index": event.index, "hop": event.hop, "provider": provider, "hedge_after_s": event.hedge_after_s}
    return [Fact(kind="routed", name=f"{event.index}/{event.hop}", says=says)]


def _from_scored(event: ImageScored) -> list[Fact]:
    failed = sorted(name for name, score in event.scores.items() if not score.passes())
    passes = event.passes()
    says = {
        "index": event.index,
        "sha256": event.sha256,
        "passes": passes,
        "measure": measure(event.scores),
        "failed": failed or ([] if passes else ["gate"]),
        **({"phash": event.phash} if event.phash else {}),
        **({"doubt": True} if _is_doubt(event) else {}),
    }
    name = f"{event.index}/{event.sha256}"
    return [Fact(kind="score", name=name, says=says, evidence=event.model_dump_json())]


def _is_doubt(event: ImageScored) -> bool:
    """Whether a person may decide: no dimension failed, and there are pixels to look at."""
    words = {score.verdict for score in event.scores.values()}
    return event.verdict == "unsure" and event.phash is not None and words <= {"pass", "unsure"}


def _from_stalled(event: ImageStalled) -> list[Fact]:
    if event.request_id is None or event.dead_class == "invalid":  # rule 10: no fact of an order
        return []
    source, index = event.source, _index_of(event)
    says = {"class": event.dead_class, "stage": event.stage, "index": index, "wave": event.wave}
    name = f"{event.stage}/{source.topic}:{source.partition}:{source.offset}"
    stall = Fact(kind="stall", name=name, says=says)
    return [stall, *(_spent_fact(index, event.paid_usd) if event.paid_usd and index is not None else [])]


def _index_of(event: ImageStalled) -> int | None:
    """Which candidate a stall is about; NOBODY for an id that is none of the request's, None for no candidate."""
    if event.index is not None or event.candidate_id is None or event.request_id is None:
        return event.index
    return index_of(event.tenant, event.request_id, event.candidate_id)


def index_of(tenant: str, request_id: uuid.UUID, candidate: uuid.UUID) -> int:
    """Which of a request's candidates has this id; NOBODY for an id that is none of the request's."""
    ids = (candidate_id(tenant, request_id, index) for index in range(INDICES_MAX))
    return next((index for index, one in enumerate(ids) if one == candidate), NOBODY)


_FACTS: dict[type[Event], Callable[[Any], list[Fact]]] = {
    CancelRequested: _from_cancel,
    ImageCleared: _from_cleared,
    ImageRefused: _from_refused,
    ImageGenerated: _from_generated,
    GenerationFailed: _from_failed,
    ImageScored: _from_scored,
    ImageStalled: _from_stalled,
}
"""Every event the publisher reads, with what is learned from it."""

READS = tuple(_FACTS)


def facts_of(event: Event) -> list[Fact]:
    """What an event teaches about its order; nothing for a stall that is none of an order's."""
    return _FACTS[type(event)](event)


def facts_of_discard(event: Event) -> list[Fact]:
    """What is learned when an operator gives a dead letter of the publisher's up (rule 11): its candidate is over
    unless it is sealed, and what was spent on it counts. A record about no candidate ends nothing."""
    if isinstance(event, ImageGenerated | GenerationFailed):
        reason = Reason(code="discarded", stage="publisher", message="an operator discarded this candidate")
        candidate = {"candidate_id": event.candidate_id, "index": event.index, "hop": event.hop}
        spent_usd = event.spent_usd
        return _from_failed(GenerationFailed(**event.echo(), **candidate, reasons=(reason,), spent_usd=spent_usd))
    return [Fact(kind="discard", name=str(event.index))] if isinstance(event, ImageScored) else []


def seal_fact(index: int, measured: float, sealed: SealedImage) -> Fact:
    """A candidate's image is copied, derived and safe under `assets/`."""
    return Fact(kind="seal", name=str(index), says={"measure": measured}, evidence=sealed.model_dump_json())


def copy_fact(index: int, of: uuid.UUID) -> Fact:
    """This passer is nearly the same as an asset that was approved before."""
    return Fact(kind="copy", name=str(index), says={"of": str(of)})


def unfit_fact(index: int, why: str) -> Fact:
    """Sealing this passer was given up; its own events try again, the clock does not wait for it."""
    return Fact(kind="unfit", name=str(index), says={"why": why})


def review_asked_fact(index: int, sha256: str, kind: Kind) -> Fact:
    """People were asked to look at this candidate's image; once, whatever comes of it."""
    return Fact(kind="review-asked", name=str(index), says={"sha256": sha256, "kind": kind})


def review_fact(event: ImageReviewed) -> Fact:
    """A person's verdict, which nobody can undo any more."""
    says = {
        "index": event.index,
        "sha256": event.sha256,
        "passes": event.verdict == "pass",
        "reviewer": event.reviewer,
    }
    return Fact(kind="review", name=f"{event.index}/{event.sha256}", says=says, evidence=event.model_dump_json())


def override_fact(index: int, by: str) -> Fact:
    """Somebody wants people to look at an image that the gate did not let through."""
    return Fact(kind="override", name=str(index), says={"by": by})
