"""What now? Pure: the facts of an order and the database's time become a Decision (contract 3.2).

`decide` tells the rules in prose. Called by the store, under the order's row lock, and by nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Literal

from giclee.publisher.facts import INDICES_MAX, Fact
from giclee.publisher.order import Cancel, Order, Verdict, Wave

CANCELS_KEPT = timedelta(days=7)
"""How long a cancel of a request that nobody has heard of is remembered (rule 15)."""

Ending = Literal["approved", "partial", "refused", "failed", "cancelled", "expired"]
_ENDING_OF_CANCEL: Mapping[str, Ending] = {"expired": "expired", "discarded": "failed"}
"""What a cancel's reason makes of an order; every other reason is somebody's wish: cancelled."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the publisher is, in seconds: with a silent candidate, and with a passer that nobody seals."""

    late_after_s: float = 300.0
    reseal_after_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A new wave."""

    number: int
    first: int
    count: int
    limit_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, all of it in one transaction; `seal` is work for outside of it. Empty means: wait.

    `approve` is in order of preference. `because` is a code of `reasons.TABLE` for an ending without enough.
    """

    seal: tuple[int, ...] = ()
    approve: tuple[int, ...] = ()
    repeat: tuple[int, ...] = ()
    ask: Ask | None = None
    hedged: tuple[int, ...] = ()
    ending: Ending | None = None
    because: str | None = None

    def publishes(self) -> bool:
        """Whether approvals or the closing leave with it."""
        return bool(self.approve) or self.ending is not None

    def is_empty(self) -> bool:
        return not (self.approve or self.repeat or self.ask or self.hedged or self.ending)


class Standing:
    """Where the candidates of a cleared order stand at one moment."""

    def __init__(self, order: Order, now: datetime, pace: Pace) -> None:
        self.order, self.now, self.pace = order, now, pace
        self.waves = order.candidates()

    def _ended(self, index: int) -> bool:
        order = self.order
        if index in order.discarded and index not in order.seals:
            return True
        outcome, score = order.outcomes.get(index), order.score_of(index)
        if outcome is None:
            return False
        return outcome.image is None or (score is not None and (not score.passes or index in order.seals))

    @cached_property
    def open(self) -> frozenset[int]:
        """Candidates that may still become passers."""
        return frozenset(index for index in self.waves if not self._ended(index))

    @cached_property
    def stalled(self) -> frozenset[int]:
        """Open candidates that a dead letter holds; one about a wave or the order holds those without an outcome."""
        named, waves, all_of_them = set(), set(), False
        for stall in self.order.stalls:
            if stall.index is not None:
                named.add(stall.index)
            elif stall.wave is not None:
                waves.add(stall.wave)
            else:
                all_of_them = True
        return frozenset(
            index
            for index in self.open
            if index in named
            or (index not in self.order.outcomes and (all_of_them or self.waves[index].number in waves))
        )

    @cached_property
    def late(self) -> frozenset[int]:
        """Open candidates whose wave is older than the time-out; those stalled are not late."""
        return frozenset(
            index
            for index in self.open - self.stalled
            if self.now >= self.waves[index].asked_at + timedelta(seconds=self.pace.late_after_s)
        )

    @cached_property
    def reserved_usd(self) -> Decimal:
        """Cost of settled candidates plus the limits of those still out (rule 4)."""
        order = self.order
        return sum((cost_of(order, index, wave) for index, wave in self.waves.items()), Decimal(0))

    def room(self) -> int:
        """How many more candidates cap and budget allow.

        The cap counts candidates with an image or still able to make one (rule 2), so a failure makes room; not
        each (`facts.KEEP_THEIR_PLACE`), unless the worker's whole chain was exhausted by an outage, and not more
        of them than the cap itself, or an order that nobody can fulfil would never end.
        """
        order, verdict = self.order, self.order.verdict
        if verdict is None:
            return 0
        exhausted = {s.index for s in order.stalls if s.dead_class == "exhausted" and s.stage.startswith("gpu-worker")}
        freed = sum(
            1
            for index, outcome in order.outcomes.items()
            if outcome.image is None and index in self.waves and (not outcome.keeps_place or index in exhausted)
        )
        cap = verdict.max_candidates
        room = min(cap - (len(self.waves) - min(freed, cap)), INDICES_MAX - len(self.waves))
        if verdict.budget_usd is not None and verdict.limit_usd > 0:
            room = min(room, int((verdict.budget_usd - self.reserved_usd) // verdict.limit_usd))
        return max(0, room)

    def to_seal(self) -> tuple[int, ...]:
        """Passers that an ending should wait for; not those whose sealing was given up or is a dead letter."""
        order = self.order
        return tuple(
            i for i in sorted(order.unsealed()) if i not in order.unfit and i not in self.stalled and i in self.waves
        )

    def due_repeats(self) -> tuple[int, ...]:
        """Waves with late candidates whose time-out, doubled with each repeat, ran out again (rule 3)."""
        late = {self.waves[index].number for index in self.late}
        return tuple(w.number for w in self.order.waves if w.number in late and self.now >= self._repeat_at(w))

    def _repeat_at(self, wave: Wave) -> datetime:
        return wave.last_asked_at + timedelta(seconds=self.pace.late_after_s * 2 ** min(wave.repeats, 20))

    def wake_at(self, closes_by: datetime) -> datetime:
        """When the clock alone may change the decision."""
        moments = [closes_by]
        late_after = timedelta(seconds=self.pace.late_after_s)
        for wave in {self.waves[index].number: self.waves[index] for index in self.open - self.stalled}.values():
            due = wave.asked_at + late_after
            moments.append(due if self.now < due else self._repeat_at(wave))
        if self.to_seal():
            moments.append(self.now + timedelta(seconds=self.pace.reseal_after_s))
        return min(moments)


def cost_of(order: Order, index: int, wave: Wave) -> Decimal:
    """What a candidate cost once it is settled; until then the most it may cost."""
    spent = order.spent.get(index, Decimal(0))
    return spent if index in order.outcomes else max(spent, wave.limit_usd)


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


def ranked(order: Order) -> list[int]:
    """Sealed candidates that are not approved yet, the best first."""
    return sorted(set(order.seals) - order.approved, key=lambda index: (-order.seals[index], index))


def decide(order: Order, now: datetime, pace: Pace) -> Decision:
    """What to do with an order that is not closed.

    A cancel ends it first (rules 6, 15), then a refusal. With `first`, sealed passers are approved as they come.
    Save by a cancel or enough approvals nothing ends before its passers are sealed (rule 6). Past `closes_by` the
    order ends with what it has (rule 5). A candidate is *open* until it failed, was discarded, was rejected or is
    sealed; an open one is *stalled* when a dead letter says so (rule 10), else *late* once its wave is older than
    the time-out (rule 3). While an open candidate is neither late nor, enough being sealed, stalled, the order
    waits. Then it ends if enough are sealed; else it asks for what is missing as far as cap and budget go (rules
    2, 4), once for late ones (a hedge is not hedged); else it ends, unless something is only late. `best` (rule
    21) ranks the sealed by `facts.measure`, the alignment with the prompt.
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
    return _decide_cleared(order, verdict, Standing(order, now, pace), verdict.closes_by)


def _decide_cleared(order: Order, verdict: Verdict, standing: Standing, closes_by: datetime) -> Decision:
    missing = verdict.wanted - len(order.approved)
    passed: tuple[int, ...] = ()
    if not verdict.best:
        passed = tuple(sorted(set(order.seals) - order.approved))[:missing]
        if len(passed) >= missing:
            return Decision(approve=passed, ending="approved")
    pending = standing.to_seal()
    if standing.now >= closes_by:
        return Decision(approve=passed, seal=pending) if pending else _end(order, verdict, "closes_by_passed")
    enough = len(order.seals) >= verdict.wanted
    live = standing.open - standing.late - (standing.stalled if enough else frozenset())
    repeat = standing.due_repeats()
    if live:
        return Decision(approve=passed, seal=pending, repeat=repeat)
    if enough:
        return _end(order, verdict, None)
    count = min(verdict.wanted - len(order.seals), standing.room())
    fresh = standing.late - order.hedged
    if standing.late and not fresh:
        count = 0
    if count > 0:
        ask = Ask(order.waves[-1].number + 1, len(standing.waves), count, verdict.limit_usd)
        hedges = (*sorted(fresh), *range(ask.first, ask.first + count)) if standing.late else ()
        return Decision(approve=passed, seal=pending, repeat=repeat, ask=ask, hedged=hedges)
    if standing.late:
        return Decision(approve=passed, seal=pending, repeat=repeat)
    return _end(order, verdict, "not_enough_passed")


def _end(order: Order, verdict: Verdict, because: str | None) -> Decision:
    """Approve the best sealed passers up to what is wanted, then name the outcome (rule 6)."""
    chosen = tuple(ranked(order)[: verdict.wanted - len(order.approved)])
    count = len(order.approved) + len(chosen)
    if count >= verdict.wanted:
        return Decision(approve=chosen, ending="approved")
    short: Ending = "expired" if because == "closes_by_passed" else "failed"
    return Decision(approve=chosen, ending="partial" if count else short, because=because)


def wake_at(order: Order, now: datetime, pace: Pace) -> datetime | None:
    """When the sweeper must look at an open order; None until it is cleared."""
    verdict = order.verdict
    if verdict is None or verdict.closes_by is None:
        return None
    return Standing(order, now, pace).wake_at(verdict.closes_by)


def facts_of_decision(order: Order, decision: Decision) -> tuple[Fact, ...]:
    """What a decision itself makes known about its order."""
    found = [Fact(kind="approved", name=str(index)) for index in decision.approve]
    repeats = {wave.number: wave.repeats + 1 for wave in order.waves}
    found += [Fact(kind="repeat", name=f"{wave}/{repeats[wave]}", says={"wave": wave}) for wave in decision.repeat]
    if ask := decision.ask:
        says = {"first": ask.first, "count": ask.count, "limit_usd": str(ask.limit_usd)}
        found.append(Fact(kind="wave", name=str(ask.number), says=says))
    return (*found, *(Fact(kind="hedged", name=str(index)) for index in decision.hedged))
