"""Where the candidates of an order stand, and how many more may be asked for. Pure; `funnel.py` decides from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property

from giclee.publisher import likeness
from giclee.publisher.belief import Belief
from giclee.publisher.facts import INDICES_MAX
from giclee.publisher.order import Order, Verdict, Waited, Wave

LIKELY = 0.5
"""A chance of reaching what is wanted below which a miss is predicted."""
TOO_FEW = 0.5
"""Passers still missing, in the mean, when the time for waves is over: more than that and waves must be larger."""

Kind = tuple[str, str, str]
"""What pass rates are known by: asset type, quality, and the model that made the images; "" for any model."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the publisher is, in seconds: with a silent candidate, and with a passer that nobody seals.

    `surplus_share`: passers that a later wave may bring beyond what is missing, as a share of that, in the mean.
    `review_due_s`: a person should have looked by then. `people`: somebody reviews at all; else no order waits for
    its doubts.
    """

    late_after_s: float = 300.0
    reseal_after_s: float = 60.0
    surplus_share: float = 0.05
    review_due_s: float = 14_400.0
    people: bool = True


@dataclass(frozen=True, slots=True)
class Outlook:
    """What decisions look at beside the order: how patient to be, and how orders of each kind fared."""

    pace: Pace = Pace()
    beliefs: Mapping[Kind, Belief] = field(default_factory=dict)

    def of(self, asset_type: str, quality: str, model: str) -> Belief:
        """What is believed of a kind, by its model where that is known."""
        nothing = Belief()
        of_any = self.beliefs.get((asset_type, quality, ""), nothing)
        return self.beliefs.get((asset_type, quality, model), of_any)


def usable(order: Order) -> tuple[int, ...]:
    """Sealed candidates that may be approved or are, the best first; of near-duplicates only the best.

    Those that are approved stay: what comes later is a copy of them.
    """
    verdict = order.verdict
    ranked = sorted(order.sealed(), key=lambda index: (index not in order.approved, -order.seals[index], index))
    if verdict is None or verdict.copies == "allow":
        return tuple(ranked)
    scores = {index: order.score_of(index) for index in ranked}
    prints = {index: score.phash for index, score in scores.items() if score is not None}
    left_out = (likeness.copies(ranked, prints) | order.copies) - order.approved
    return tuple(index for index in ranked if index not in left_out)


class Standing:
    """Where the candidates of a cleared order stand at one moment."""

    def __init__(self, order: Order, now: datetime, outlook: Outlook) -> None:
        self.order, self.now, self.outlook, self.pace = order, now, outlook, outlook.pace
        self.waves = order.candidates()

    @cached_property
    def usable(self) -> tuple[int, ...]:
        """Sealed candidates that count, the best first."""
        return usable(self.order)

    def chosen(self, count: int) -> tuple[int, ...]:
        """The best of them that are not approved yet."""
        return tuple(index for index in self.usable if index not in self.order.approved)[:count]

    def _ended(self, index: int) -> bool:
        order = self.order
        if index in order.discarded and index not in order.seals:
            return True
        outcome, score = order.outcomes.get(index), order.score_of(index)
        if outcome is None:
            return False
        if index in order.unfit and order.looked_at(index) is not None:
            return True  # no event of its own tries to seal it again
        return outcome.image is None or (score is not None and (not order.passes(index) or index in order.seals))

    @cached_property
    def open(self) -> frozenset[int]:
        """Candidates that may still become passers."""
        return frozenset(index for index in self.waves if not self._ended(index))

    @cached_property
    def stalled(self) -> frozenset[int]:
        """Open candidates that a dead letter holds; one about a wave or the order holds those without an outcome.

        What a person passed after that is ours to seal.
        """
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
            if (index in named and self.order.looked_at(index) is None)
            or (index not in self.order.outcomes and (all_of_them or self.waves[index].number in waves))
        )

    @cached_property
    def late(self) -> frozenset[int]:
        """Open candidates whose wave is older than the time-out; not those stalled, nor what a person just passed."""
        return frozenset(
            index
            for index in self.open - self.stalled
            if self.order.looked_at(index) is None
            and self.now >= self.waves[index].asked_at + timedelta(seconds=self.pace.late_after_s)
        )

    @cached_property
    def silent(self) -> frozenset[int]:
        """Open candidates without an image that somebody has waited for longer than another one's price is worth."""
        return frozenset(index for index, waited in self._awaited() if self.now >= waited.until)

    def _awaited(self) -> Iterator[tuple[int, Waited]]:
        for index, waited in self.order.waited.items():
            if index in self.open and index not in self.stalled and index not in self.order.outcomes:
                yield index, waited

    @cached_property
    def reserved_usd(self) -> Decimal:
        """Cost of settled candidates plus the limits of those still out (rule 4)."""
        order = self.order
        return sum((cost_of(order, index, wave) for index, wave in self.waves.items()), Decimal(0))

    @property
    def barred(self) -> bool:
        """Whether more candidates would fail as the whole last wave did."""
        last = (self.order.outcomes.get(index) for index in self.order.waves[-1].indices())
        return all(outcome is not None and outcome.shared for outcome in last)

    def room(self, limit_usd: Decimal) -> tuple[int, str]:
        """How many more candidates of this limit cap and budget allow, and the reason code of what allows fewer.

        The cap counts candidates with an image or still able to make one (rule 2), so a failure makes room; not
        each (`facts.KEEP_THEIR_PLACE`), unless the worker's whole chain was exhausted by an outage, and not more
        of them than the cap itself, or an order that nobody can fulfil would never end.
        """
        order, verdict = self.order, self.order.verdict
        if verdict is None:
            return 0, "cap_reached"
        exhausted = {s.index for s in order.stalls if s.dead_class == "exhausted" and s.stage.startswith("gpu-worker")}
        freed = sum(
            1
            for index, outcome in order.outcomes.items()
            if outcome.image is None and index in self.waves and (not outcome.keeps_place or index in exhausted)
        )
        cap = verdict.max_candidates
        room = max(0, min(cap - (len(self.waves) - min(freed, cap)), INDICES_MAX - len(self.waves)))
        if verdict.budget_usd is not None and limit_usd > 0:
            affordable = max(0, int((verdict.budget_usd - self.reserved_usd) // limit_usd))
            if affordable < room:
                return affordable, "budget_reached"
        return room, "cap_reached"

    # ---- people

    @cached_property
    def in_review(self) -> frozenset[int]:
        """Candidates that people were asked to look at before an approval, and nobody has said anything yet."""
        order = self.order
        return frozenset(
            index
            for index, kind in order.asked.items()
            if kind != "sample" and order.looked_at(index) is None and index not in order.discarded
        )

    @cached_property
    def owed(self) -> frozenset[int]:
        """Passers that wait for a person by their asset type's wish, asked or about to be."""
        order = self.order
        required = (index for index in self.in_review if order.asked[index] == "required")
        return frozenset(required) | frozenset(index for index in self.unasked() if self._gate_passes(index))

    def unasked(self) -> tuple[int, ...]:
        """Candidates that people must be asked about whatever else happens: those whose asset type wants it, and
        those that somebody wants to override."""
        order, terms = self.order, self.order.verdict.review if self.order.verdict else None
        if not order.overrides and (terms is None or (terms.rule != "all" and not terms.share_blocks)):
            return ()
        return tuple(
            index
            for index in self.waves
            if self._is_reviewable(index)
            and ((self._gate_passes(index) and order.needs_person(index)) or index in order.overrides)
        )

    def doubts(self) -> tuple[int, ...]:
        """Images of which the gate could not tell and nobody was asked, the likeliest first."""
        order, rule = self.order, self.order.verdict.review.rule if self.order.verdict else "never"
        if rule == "never" or not self.pace.people:
            return ()
        found = {
            i: score for i in self.waves if (score := order.score_of(i)) and score.doubt and self._is_reviewable(i)
        }
        return tuple(sorted(found, key=lambda index: (-found[index].measure, index)))

    def _gate_passes(self, index: int) -> bool:
        score = self.order.score_of(index)
        return score is not None and score.passes

    def _is_reviewable(self, index: int) -> bool:
        """Whether people may be asked: it was scored, may not be approved as it is, and nobody was asked before."""
        order = self.order
        scored = order.score_of(index) is not None
        return (
            scored and index not in order.asked and index not in order.discarded
            and order.looked_at(index) is None and not order.passes(index)
        )  # fmt: skip

    # ---- how many to ask for

    def belief(self, asset_type: str, quality: str) -> Belief:
        """Of the next candidate's passing: the kind's prior, then what this order has seen of that quality."""
        order = self.order
        mine = [index for index, wave in sorted(self.waves.items()) if wave.quality == quality]
        models = [order.outcomes[index].model for index in mine if index in order.outcomes]
        prior = self.outlook.of(asset_type, quality, next((one for one in reversed(models) if one), ""))
        passed = set(self.usable) | order.unsealed().keys()
        unknown = self.open | self.in_review | set(self.unasked())
        counted = [index in passed for index in mine if index in passed or index not in unknown]
        return prior.updated(sum(counted), len(counted) - sum(counted))

    def next_grade(self, verdict: Verdict, missing: int) -> tuple[str, Decimal]:
        """Quality and limit of the next wave: a draft's too, until a miss is predicted and final does better."""
        last = self.order.waves[-1]
        better_usd = verdict.escalation_usd
        if last.quality != "draft" or better_usd is None:
            return last.quality, last.limit_usd
        draft, final = (self.belief(verdict.asset_type, quality) for quality in ("draft", "final"))
        misses = draft.chance(self.room(last.limit_usd)[0], missing) < LIKELY
        if misses and final.mean > draft.mean and self.room(better_usd)[0]:
            return "final", better_usd
        return last.quality, last.limit_usd

    def size(self, belief: Belief, verdict: Verdict, closes_by: datetime, missing: int, room: int) -> int:
        """How many candidates to ask for when `missing` passers are missing and there is room for so many.

        With time, the fewest candidates: hardly more than what is missing can pass. Somebody who waits, and an
        order whose last wave this is, get as many as bring enough for sure; one for which waves of that size
        would end too late, as many as bring enough in the mean.
        """
        took = self.now - self.order.waves[-1].asked_at
        waves_left = (closes_by - self.now) / max(took, timedelta(seconds=1))
        if verdict.priority == "interactive" or waves_left < 2:
            return belief.sure(missing, room)
        if missing * (1 - belief.mean) ** waves_left >= TOO_FEW:
            return min(room, math.ceil(missing / belief.mean))
        return min(room, belief.thrifty(missing, room, self.pace.surplus_share))

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
        moments += [waited.until for _, waited in self._awaited() if waited.until > self.now]
        if self.to_seal():
            moments.append(self.now + timedelta(seconds=self.pace.reseal_after_s))
        return min(moments)


def cost_of(order: Order, index: int, wave: Wave) -> Decimal:
    """What a candidate cost once it is settled; until then the most it may cost."""
    spent = order.spent.get(index, Decimal(0))
    return spent if index in order.outcomes else max(spent, wave.limit_usd)
