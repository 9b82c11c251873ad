"""What now? Pure: the facts of an order and the database's time become a Decision (contract 3.2).

`decide` tells the rules in prose. Called by the store, under the order's row lock, and by nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from giclee.publisher.facts import Fact, review_asked_fact
from giclee.publisher.order import Cancel, Order, Verdict
from giclee.publisher.review import Kind
from giclee.publisher.standing import Outlook, Standing

CANCELS_KEPT = timedelta(days=7)
"""How long a cancel of a request that nobody has heard of is remembered (rule 15)."""

Ending = Literal["approved", "partial", "refused", "failed", "cancelled", "expired"]
_ENDING_OF_CANCEL: Mapping[str, Ending] = {"expired": "expired", "discarded": "failed"}
"""What a cancel's reason makes of an order; every other reason is somebody's wish: cancelled."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A new wave. `hedges`: the silent providers that it stands in for."""

    number: int
    first: int
    count: int
    limit_usd: Decimal
    quality: str
    hedges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, all of it in one transaction; `seal` is work for outside of it. Empty means: wait.

    `approve` is in order of preference; people are asked to look at what `review` names. `because` is a code of
    `reasons.TABLE` for an ending without enough.
    """

    seal: tuple[int, ...] = ()
    approve: tuple[int, ...] = ()
    repeat: tuple[int, ...] = ()
    ask: Ask | None = None
    hedged: tuple[int, ...] = ()
    review: tuple[int, ...] = ()
    ending: Ending | None = None
    because: str | None = None

    def publishes(self) -> bool:
        """Whether approvals or the closing leave with it."""
        return bool(self.approve) or self.ending is not None

    def is_empty(self) -> bool:
        return not (self.approve or self.repeat or self.ask or self.hedged or self.review or self.ending)


def applicable_cancel(order: Order) -> Cancel | None:
    """The first cancel that ends this order, if one does.

    Intake's clock ends only an order without a verdict (rule 5), a discard only one without waves (rule 11); a
    cancel older than a week when the verdict came is forgotten; one of an unheard request waits for the verdict
    or for the request's fields (rule 15).
    """
    verdict = order.verdict
    complete = any(cancel.complete for cancel in order.cancels)
    if verdict is None and not complete:
        return None
    first_wishes = sorted(order.cancels, key=lambda cancel: cancel.reason == "expired")
    for cancel in first_wishes:
        ineffective = ("expired", "discarded") if order.waves else ("expired",)
        if verdict is not None and cancel.reason in ineffective:
            continue
        if verdict is not None and verdict.at - cancel.at > CANCELS_KEPT:
            continue
        return cancel
    return None


def decide(order: Order, now: datetime, outlook: Outlook) -> Decision:
    """What to do with an order that is not closed.

    A cancel ends it first (rules 6, 15), then a refusal. With `first`, sealed passers are approved as they come.
    Save by a cancel or enough approvals nothing ends before its passers are sealed (rule 6). Past `closes_by` the
    order ends with what it has (rule 5). A candidate is *open* until it failed, was discarded, was rejected or is
    sealed; an open one is *stalled* when a dead letter says so (rule 10), else *late* once its wave is older than
    the time-out (rule 3). While an open candidate is neither late nor, enough being sealed, stalled, the order
    waits; enough being sealed it waits only for wave 0, the choice that was asked for, and for passers that are
    being sealed: later waves were to make up for what is missing, and what nobody has begun of them is withdrawn
    by the closing (rule 7). Then it ends if enough are sealed; else it asks for more as far as cap and budget go
    (rules 2, 4), if the last wave did not fail as any other would: `Standing.size` says how many, once for late
    ones (a hedge is not hedged). When that leaves no room people are asked about the gate's doubts, and the order
    waits for them (rule 18); else it ends, unless something is only late. Passers whose asset type wants a person to
    look at them are put to people as they come, and nothing is asked for in their place. `best` (rule 21) ranks the
    sealed by `facts.measure`, the alignment with the prompt.

    Where somebody waits (ADR 19) a candidate is *silent* once it has had neither an image nor a failure for as long as
    the router said is worth another one's price: it gets its hedge then instead of when it is late, and an order with
    enough sealed does not wait for it.
    """
    if cancel := applicable_cancel(order):
        ending = _ENDING_OF_CANCEL.get(cancel.reason, "cancelled")
        because = {"cancelled": "cancelled", "failed": "discarded"}.get(ending, "closes_by_passed")
        return Decision(ending=ending, because=because)
    verdict = order.verdict
    if verdict is None:
        return Decision()
    if not verdict.cleared or verdict.closes_by is None:
        return Decision(ending="refused")
    return _decide_cleared(order, verdict, Standing(order, now, outlook), verdict.closes_by)


def _decide_cleared(order: Order, verdict: Verdict, standing: Standing, closes_by: datetime) -> Decision:
    missing = verdict.wanted - len(order.approved)
    passed: tuple[int, ...] = ()
    if not verdict.best:
        passed = tuple(sorted(standing.chosen(len(order.seals))))[:missing]
        if len(passed) >= missing:
            return Decision(approve=passed, ending="approved")
    pending = standing.to_seal()
    if standing.now >= closes_by:
        return Decision(approve=passed, seal=pending) if pending else _end(standing, verdict, "closes_by_passed")
    enough = len(standing.usable) >= verdict.wanted
    live = standing.open - standing.late - (standing.stalled if enough else frozenset())
    if enough:
        first = {index for index in live - standing.silent if standing.waves[index].number == 0}
        live = frozenset(index for index in live if index in pending or index in first)
    waiting = Decision(
        approve=passed, seal=pending, repeat=standing.due_repeats(), review=() if enough else standing.unasked()
    )
    if live:
        return waiting if enough else _hedge(standing, verdict, waiting)
    if enough:
        return _end(standing, verdict, None)
    return _short(standing, verdict, closes_by, waiting)


def _hedge(standing: Standing, verdict: Verdict, waiting: Decision) -> Decision:
    """Ask other providers for as many as are silent and missing, once, within cap and budget.

    What is being judged may yet be what is missing: the scorer is worth waiting for.
    """
    order = standing.order
    fresh = standing.silent - standing.late - order.hedged
    if not fresh:
        return waiting
    wave = standing.waves[min(fresh)]
    judged = standing.open & order.outcomes.keys()
    missing = verdict.wanted - len(standing.usable) - len(standing.owed) - len(judged)
    count = min(len(fresh), missing, standing.room(wave.limit_usd)[0])
    return _asking(standing, waiting, count, (wave.quality, wave.limit_usd), fresh) if count > 0 else waiting


def _asking(standing: Standing, waiting: Decision, count: int, grade: tuple[str, Decimal], fresh: Set[int]) -> Decision:
    """A new wave of that quality and limit, which hedges the `fresh` ones."""
    quality, limit_usd = grade
    waited = standing.order.waited
    providers = sorted({waited[index].provider for index in fresh if index in waited})
    ask = Ask(standing.order.waves[-1].number + 1, len(standing.waves), count, limit_usd, quality, tuple(providers))
    hedged = (*sorted(fresh), *range(ask.first, ask.first + count)) if fresh else ()
    return replace(waiting, ask=ask, hedged=hedged)


def _short(standing: Standing, verdict: Verdict, closes_by: datetime, waiting: Decision) -> Decision:
    """Too few are usable and nothing is on its way but what is late or with people: ask for more, wait, or end."""
    order = standing.order
    missing, fresh = verdict.wanted - len(standing.usable) - len(standing.owed), standing.late - order.hedged
    if missing <= 0:
        return waiting
    quality, limit_usd = grade = standing.next_grade(verdict, missing)
    room, because = (0, None) if standing.barred else standing.room(limit_usd)
    if standing.late:
        count = min(missing, room) if fresh else 0
    else:
        belief = standing.belief(verdict.asset_type, quality)
        count = standing.size(belief, verdict, closes_by, missing, room) if room else 0
    if count > 0:
        return _asking(standing, waiting, count, grade, fresh)
    doubts = () if room else tuple(index for index in standing.doubts() if index not in waiting.review)
    if doubts or waiting.review or standing.in_review or standing.late:
        return replace(waiting, review=(*waiting.review, *doubts))
    return _end(standing, verdict, because)


def _end(standing: Standing, verdict: Verdict, because: str | None) -> Decision:
    """Approve the best sealed passers up to what is wanted, then name the outcome (rule 6)."""
    before = len(standing.order.approved)
    chosen = standing.chosen(verdict.wanted - before)
    count = before + len(chosen)
    if count >= verdict.wanted:
        return Decision(approve=chosen, ending="approved")
    short: Ending = "expired" if because == "closes_by_passed" else "failed"
    return Decision(approve=chosen, ending="partial" if count else short, because=because)


def wake_at(order: Order, now: datetime, outlook: Outlook) -> datetime | None:
    """When the sweeper must look at an open order; None until it is cleared."""
    verdict = order.verdict
    if verdict is None or verdict.closes_by is None:
        return None
    return Standing(order, now, outlook).wake_at(verdict.closes_by)


def facts_of_decision(order: Order, decision: Decision) -> tuple[Fact, ...]:
    """What a decision itself makes known about its order."""
    found = [Fact(kind="approved", name=str(index)) for index in decision.approve]
    repeats = {wave.number: wave.repeats + 1 for wave in order.waves}
    found += [Fact(kind="repeat", name=f"{wave}/{repeats[wave]}", says={"wave": wave}) for wave in decision.repeat]
    if ask := decision.ask:
        says = {"first": ask.first, "count": ask.count, "limit_usd": str(ask.limit_usd), "quality": ask.quality}
        found.append(Fact(kind="wave", name=str(ask.number), says={**says, "hedges": list(ask.hedges)}))
    found += [Fact(kind="hedged", name=str(index)) for index in decision.hedged]
    return (*found, *(review_asked_fact(index, sha256, kind) for index, sha256, kind in reviews_of(order, decision)))


def reviews_of(order: Order, decision: Decision) -> Iterator[tuple[int, str, Kind]]:
    """Index, sha256 and kind of what people are asked to look at: as decided, and a sample of what is approved."""
    for index in decision.review:
        score = order.score_of(index)
        if score is not None:
            kind: Kind = "required" if score.passes else "doubt" if score.doubt else "override"
            yield index, _sha256(order, index), kind
    for index in decision.approve:
        if order.is_drawn(index) and order.looked_at(index) is None:
            yield index, _sha256(order, index), "sample"


def _sha256(order: Order, index: int) -> str:
    image = order.outcomes[index].image
    if image is None:
        raise ValueError(f"candidate {index} of {order.request_id} has no image to look at")
    return image.sha256
