"""What is known of an order, as decisions see it: its stored facts (contract 3.2 rule 1) read as frozen values.

`facts.py` makes facts of events, `store.py` keeps them, `funnel.py` decides from an Order.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from giclee.publisher.facts import Fact
from giclee.publisher.review import Kind, Looked, drawn
from giclee.schemas.parts import BlobRef, ReviewTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Policy's answer. What is only known of a cleared request is None for a refused one."""

    cleared: bool
    wanted: int
    at: datetime
    first_wave: int = 0
    max_candidates: int = 0
    best: bool = True
    limit_usd: Decimal = Decimal(0)
    budget_usd: Decimal | None = None
    closes_by: datetime | None = None
    asset_type: str = "generic"
    quality: str = "final"
    priority: str = "standard"
    escalation_usd: Decimal | None = None
    copies: str = "order"
    """What a picture may not resemble: the `order`'s others, the `tenant`'s earlier assets too, or `allow`."""
    review: ReviewTerms = field(default_factory=ReviewTerms)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody wanted an end; `complete` when it carries the request's own fields."""

    reason: str
    complete: bool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """A run of candidate indices of one quality, when it was first asked for, how often and when it was repeated.

    `hedges`: the providers that it stands in for.
    """

    number: int
    first: int
    count: int
    limit_usd: Decimal
    asked_at: datetime
    repeats: int = 0
    last_asked_at: datetime
    quality: str = "final"
    hedges: tuple[str, ...] = ()

    def indices(self) -> range:
        return range(self.first, self.first + self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a candidate's making ended. `image` is None for a failure; `shared`: any other would fail alike."""

    candidate_id: uuid.UUID
    hop: int
    image: BlobRef | None
    keeps_place: bool = False
    shared: bool = False
    model: str = ""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the gate said about the bytes of one sha256; `failed` names the dimensions that did not pass.

    `doubt`: none of them failed, and a person can look at the image.
    """

    passes: bool
    measure: float
    failed: tuple[str, ...]
    phash: str | None = None
    doubt: bool = False


@dataclass(frozen=True, slots=True)
class Waited:
    """Whom somebody waits for, and when asking another provider is worth its price."""

    provider: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Stall:
    """A dead letter about a candidate, about a wave, or (both None) about the whole order."""

    dead_class: str
    stage: str
    index: int | None
    wave: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Everything known of a request, as decisions see it. Candidates are named by their index."""

    tenant: str
    request_id: uuid.UUID
    verdict: Verdict | None = None
    cancels: tuple[Cancel, ...] = ()
    waves: tuple[Wave, ...] = ()
    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    scores: Mapping[tuple[int, str], Scored] = field(default_factory=dict)
    seals: Mapping[int, float] = field(default_factory=dict)
    spent: Mapping[int, Decimal] = field(default_factory=dict)
    stalls: tuple[Stall, ...] = ()
    discarded: frozenset[int] = frozenset()
    unfit: frozenset[int] = frozenset()
    hedged: frozenset[int] = frozenset()
    """Candidates that are hedged or are hedges: neither is hedged again."""
    waited: Mapping[int, Waited] = field(default_factory=dict)
    """Routed candidates of an order that somebody waits for."""
    approved: frozenset[int] = frozenset()
    copies: frozenset[int] = frozenset()
    """Candidates that are nearly the same as an asset of an earlier order."""
    asked: Mapping[int, Kind] = field(default_factory=dict)
    """Candidates that people were asked to look at, and why."""
    looked: Mapping[tuple[int, str], Looked] = field(default_factory=dict)
    """What people said about images, by index and sha256."""
    overrides: frozenset[int] = frozenset()
    """Candidates that somebody wants people to look at although the gate did not let them through."""

    @classmethod
    def of(cls, tenant: str, request_id: uuid.UUID, facts: Iterable[Fact]) -> Order:
        """The order that stored facts, oldest first, add up to."""
        rows: dict[str, list[Fact]] = {}
        for fact in facts:
            rows.setdefault(fact.kind, []).append(fact)
        verdict = _verdict_in(rows.get("verdict", []))
        return cls(
            tenant=tenant,
            request_id=request_id,
            verdict=verdict,
            cancels=tuple(Cancel(f.says["reason"], f.says["complete"], _at(f)) for f in rows.get("cancel", [])),
            waves=_waves_in(verdict, rows),
            outcomes=_outcomes_in(rows.get("outcome", [])),
            scores={(f.says["index"], f.says["sha256"]): _scored_in(f) for f in rows.get("score", [])},
            seals={int(f.name): f.says["measure"] for f in rows.get("seal", [])},
            spent=_spent_in(rows.get("spent", [])),
            stalls=tuple(_stall_in(f) for f in rows.get("stall", [])),
            discarded=_indices(rows, "discard"),
            unfit=_indices(rows, "unfit"),
            hedged=_indices(rows, "hedged"),
            waited=_waited_in(rows.get("routed", [])),
            approved=_indices(rows, "approved"),
            copies=_indices(rows, "copy"),
            asked={int(f.name): f.says["kind"] for f in rows.get("review-asked", [])},
            looked={(f.says["index"], f.says["sha256"]): _looked_in(f) for f in rows.get("review", [])},
            overrides=_indices(rows, "override"),
        )

    def candidates(self) -> dict[int, Wave]:
        """Every candidate asked for so far, with its wave."""
        return {index: wave for wave in self.waves for index in wave.indices()}

    def score_of(self, index: int) -> Scored | None:
        """The score of the candidate's image; a score counts only for the sha256 it names (rule 17)."""
        outcome = self.outcomes.get(index)
        if outcome is None or outcome.image is None:
            return None
        return self.scores.get((index, outcome.image.sha256))

    def looked_at(self, index: int) -> Looked | None:
        """What a person said about the candidate's image; it counts only for the sha256 that was looked at."""
        outcome = self.outcomes.get(index) if self.looked else None
        return None if outcome is None or outcome.image is None else self.looked.get((index, outcome.image.sha256))

    def needs_person(self, index: int) -> bool:
        """Whether the asset type wants a person to look at this image before its approval."""
        if self.verdict is None:
            return False
        terms = self.verdict.review
        return terms.rule == "all" or (terms.share_blocks and self.is_drawn(index))

    def is_drawn(self, index: int) -> bool:
        """Whether the candidate is in the random sample of the asset type."""
        share = self.verdict.review.share if self.verdict is not None else 0.0
        return share > 0 and index in self.outcomes and drawn(self.outcomes[index].candidate_id, share)

    def passes(self, index: int) -> bool:
        """Whether the image may be approved: a person passed these bytes, or the gate did and nobody else must."""
        looked, score = self.looked_at(index), self.score_of(index)
        if looked is not None and score is not None:
            return looked.passes
        return score is not None and score.passes and not self.needs_person(index)

    def sealed(self) -> frozenset[int]:
        """Sealed candidates that may be approved, or are. An image may be sealed before it is known that a person
        must look at it, since a clearance can be overtaken."""
        return frozenset(index for index in self.seals if index in self.approved or self.passes(index))

    def unsealed(self) -> dict[int, Outcome]:
        """Candidates that passed and are not sealed yet."""
        return {
            index: outcome for index, outcome in self.outcomes.items() if index not in self.seals and self.passes(index)
        }


def _at(fact: Fact) -> datetime:
    if fact.at is None:
        raise ValueError(f"the fact {fact.kind}/{fact.name} was never stored")
    return fact.at


def _indices(rows: Mapping[str, list[Fact]], kind: str) -> frozenset[int]:
    return frozenset(int(fact.name) for fact in rows.get(kind, []))


def _verdict_in(rows: list[Fact]) -> Verdict | None:
    if not rows:
        return None
    says, at = rows[0].says, _at(rows[0])
    if not says["cleared"]:
        return Verdict(cleared=False, wanted=says["wanted"], at=at)
    return Verdict(
        cleared=True,
        wanted=says["wanted"],
        at=at,
        first_wave=says["first_wave"],
        max_candidates=says["max_candidates"],
        best=says["best"],
        limit_usd=Decimal(says["limit_usd"]),
        budget_usd=None if says["budget_usd"] is None else Decimal(says["budget_usd"]),
        closes_by=datetime.fromisoformat(says["closes_by"]),
        **{name: says[name] for name in ("asset_type", "quality", "priority", "copies") if name in says},
        review=ReviewTerms.model_validate(says.get("review", {})),
        escalation_usd=Decimal(says["escalation_usd"]) if "escalation_usd" in says else None,
    )


def _waves_in(verdict: Verdict | None, rows: Mapping[str, list[Fact]]) -> tuple[Wave, ...]:
    """Wave 0 comes with the clearance, later ones are our own facts; none counts before the clearance."""
    if verdict is None or not verdict.cleared:
        return ()
    repeated: dict[int, list[datetime]] = {}
    for fact in rows.get("repeat", []):
        repeated.setdefault(fact.says["wave"], []).append(_at(fact))
    asked = [(0, 0, verdict.first_wave, verdict.limit_usd, verdict.at, verdict.quality, ())]
    for fact in rows.get("wave", []):
        first, count, limit_usd = fact.says["first"], fact.says["count"], Decimal(fact.says["limit_usd"])
        quality = fact.says.get("quality", verdict.quality)
        hedges = tuple(fact.says.get("hedges", ()))
        asked.append((int(fact.name), first, count, limit_usd, _at(fact), quality, hedges))
    return tuple(
        Wave(
            number=number,
            first=first,
            count=count,
            limit_usd=limit_usd,
            asked_at=at,
            repeats=len(repeated.get(number, ())),
            last_asked_at=max([at, *repeated.get(number, ())]),
            quality=quality,
            hedges=hedges,
        )
        for number, first, count, limit_usd, at, quality, hedges in sorted(asked)
    )


def _outcomes_in(rows: list[Fact]) -> dict[int, Outcome]:
    """A candidate's outcome is the first stored of any of its hops: one that was replaced never comes back."""
    found: dict[int, Outcome] = {}
    for fact in rows:
        image = fact.says.get("image")
        outcome = Outcome(
            candidate_id=uuid.UUID(fact.says["candidate_id"]),
            hop=fact.says["hop"],
            image=None if image is None else BlobRef.model_validate(image),
            keeps_place=fact.says.get("keeps_place", False),
            shared=fact.says.get("shared", False),
            model=fact.says.get("model", ""),
        )
        found.setdefault(fact.says["index"], outcome)
    return found


def _waited_in(rows: list[Fact]) -> dict[int, Waited]:
    """Waiting begins with the first hop, whoever has the candidate by now."""
    found: dict[int, Waited] = {}
    for fact in sorted(rows, key=lambda one: (one.says["index"], one.says["hop"])):
        index, provider = fact.says["index"], fact.says["provider"]
        until = _at(fact) + timedelta(seconds=fact.says["hedge_after_s"])
        found[index] = Waited(provider, min(until, found[index].until) if index in found else until)
    return found


def _scored_in(fact: Fact) -> Scored:
    says = fact.says
    return Scored(says["passes"], says["measure"], tuple(says["failed"]), says.get("phash"), says.get("doubt", False))


def _looked_in(fact: Fact) -> Looked:
    return Looked(fact.says["passes"], fact.says["reviewer"])


def _spent_in(rows: list[Fact]) -> dict[int, Decimal]:
    """The cost of a candidate is the largest sum ever reported for it (rule 4)."""
    found: dict[int, Decimal] = {}
    for fact in rows:
        index = fact.says["index"]
        found[index] = max(found.get(index, Decimal(0)), Decimal(fact.says["usd"]))
    return found


def _stall_in(fact: Fact) -> Stall:
    return Stall(fact.says["class"], fact.says["stage"], fact.says["index"], fact.says["wave"])
