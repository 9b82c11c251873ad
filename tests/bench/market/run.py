"""Runs one policy through the week: attempts, fallbacks, verdicts, hedges, and what is heard of them and when.

Time goes event by event. A policy hears of an attempt when it ends and of a verdict a second later; what it does with
that, and how late it learns of it, is its own matter.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Protocol

from giclee.router.costs import Terms
from tests.bench.market.world import FAILS, SLOW_SHARE, SLOW_TIMES, TIMEOUT_S, UNUSABLE, Request, Seller, World

TERMS = Terms()
CANDIDATES_MAX = 8
SCORING_S = 1.0
FAIL, PLACE, SECONDS, STRAGGLES, PASSES, SPENT = range(6)
"""What luck decides."""


class Policy(Protocol):
    """Who buys. Times in seconds since the start of the week; sellers by number."""

    name: str

    def chain(self, request: Request, candidate: int, at_s: float, without: int | None) -> list[int]:
        """Sellers in the order they are tried; `without` is the one that a hedge must not go to."""
        ...

    def taken(self, seller: int, at_s: float) -> None:
        """A call goes there."""
        ...

    def hears(self, seller: int, word: str, seconds: float, paid: tuple[float, float], at_s: float) -> None:
        """An attempt ended at `at_s`; `paid` and what was expected in US dollars."""
        ...

    def judged(self, seller: int, kind: int, *, passed: bool, at_s: float) -> None:
        """An image was judged."""
        ...

    def hedge_s(self, request: Request, seller: int, at_s: float) -> float | None:
        """How long to wait for an image of a seller before another is asked for as well."""
        ...


@dataclass(slots=True)
class Wanted:
    """A request on its way."""

    request: Request
    asked: int = 0
    live: int = 0
    spent_usd: float = 0.0
    first_s: float | None = None
    """When its first candidate, or that one's hedge, had an image."""
    done: bool = False


@dataclass(slots=True)
class Outcome:
    """What a policy came to."""

    policy: str
    spent_usd: float = 0.0
    accepted: int = 0
    failed: int = 0
    capped: int = 0
    images: int = 0
    attempts: int = 0
    fallbacks: int = 0
    hedges: int = 0
    waited_spent_usd: float = 0.0
    waited_accepted: int = 0
    image_s: list[float] = field(default_factory=list)
    """From the request to its first candidate's image, where somebody waits."""
    approved_s: list[float] = field(default_factory=list)
    chosen: list[tuple[float, float, float]] = field(default_factory=list)
    """For each first candidate: when, what an approved image truly costs at the seller that serves it, and at best."""
    by_seller: dict[str, int] = field(default_factory=dict)

    @property
    def each_usd(self) -> float:
        return self.spent_usd / max(1, self.accepted)


class Run:
    """One policy, one world."""

    def __init__(self, world: World, policy: Policy, *, measured: bool = True) -> None:
        self._world = world
        self._policy = policy
        self._measured = measured
        self._heap: list[tuple[float, int, object, tuple[object, ...]]] = []
        self._count = 0
        self._left = {seller.number: (seller.maker.per_minute / 3.0, 0.0) for seller in world.sellers}
        self.outcome = Outcome(policy.name)

    def run(self) -> Outcome:
        for request in self._world.requests:
            self._until(request.at_s)
            self._ask(Wanted(request), request.at_s)
        self._until(float("inf"))
        return self.outcome

    def _until(self, at_s: float) -> None:
        while self._heap and self._heap[0][0] <= at_s:
            when, _, do, arguments = heapq.heappop(self._heap)
            do(*arguments, when)  # type: ignore[operator]

    def _later(self, at_s: float, do: object, *arguments: object) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_s, self._count, do, arguments))

    # ---- one candidate ----------------------------------------------------------------------------

    def _ask(self, wanted: Wanted, at_s: float, without: int | None = None) -> None:
        request, candidate = wanted.request, wanted.asked
        chain = self._policy.chain(request, candidate, at_s, without)
        wanted.asked += 1
        wanted.live += 1
        if candidate == 0 and self._measured:
            self._note(request, chain, at_s)
        self._hop(wanted, candidate, chain, 0, at_s)

    def _hop(self, wanted: Wanted, candidate: int, chain: list[int], hop: int, at_s: float) -> None:
        """Try the next of a chain. Bound by `_later`, so the time comes last."""
        if hop >= len(chain):
            self._lost(wanted, at_s)
            return
        seller = self._world.sellers[chain[hop]]
        self.outcome.attempts += 1
        self.outcome.fallbacks += hop > 0
        self._policy.taken(seller.number, at_s)
        word, seconds, paid = self._attempt(wanted.request, candidate, seller, at_s)
        self._pay(wanted, paid)
        expected = self._expected(seller, wanted.request)
        self._later(at_s + seconds, self._ended, wanted, candidate, chain, hop, word, seconds, (paid, expected))
        if candidate == 0 and hop == 0:
            wait_s = self._policy.hedge_s(wanted.request, seller.number, at_s)
            if wait_s is not None and len(chain) > 1:
                self._later(at_s + wait_s, self._hedge, wanted, seller.number)

    def _expected(self, seller: Seller, request: Request) -> float:
        expects = getattr(self._policy, "expected_usd", None)
        return float(expects(seller.number, request)) if expects else 0.0

    def _ended(
        self,
        wanted: Wanted,
        candidate: int,
        chain: list[int],
        hop: int,
        word: str,
        seconds: float,
        paid: tuple[float, float],
        at_s: float,
    ) -> None:
        number = chain[hop]
        self._policy.hears(number, word, seconds, paid, at_s)
        if word != "made":
            self._hop(wanted, candidate, chain, hop + 1, at_s)
            return
        out = self.outcome
        out.images += 1
        out.by_seller[self._world.sellers[number].maker.name] = out.by_seller.get(self._name(number), 0) + 1
        self._pay(wanted, TERMS.each_usd)
        if wanted.first_s is None:
            wanted.first_s = at_s
            if wanted.request.waits:
                out.image_s.append(at_s - wanted.request.at_s)
        self._later(at_s + SCORING_S, self._judged, wanted, candidate, number)

    def _judged(self, wanted: Wanted, candidate: int, number: int, at_s: float) -> None:
        request, seller = wanted.request, self._world.sellers[number]
        share = seller.pass_share(at_s, request.kind)
        passed = self._world.luck(request.number, candidate, number, PASSES) < share
        self._policy.judged(number, request.kind, passed=passed, at_s=at_s)
        wanted.live -= 1
        if wanted.done:
            return
        if passed:
            wanted.done = True
            self.outcome.accepted += 1
            if request.waits:
                self.outcome.waited_accepted += 1
                self.outcome.approved_s.append(at_s - request.at_s)
        elif not wanted.live:
            self._again(wanted, at_s)

    def _again(self, wanted: Wanted, at_s: float) -> None:
        if wanted.asked < CANDIDATES_MAX:
            self._ask(wanted, at_s)
        else:
            wanted.done = True
            self.outcome.capped += 1

    def _lost(self, wanted: Wanted, at_s: float) -> None:
        """A chain ended without an image; the request is lost where nothing else is under way."""
        wanted.live -= 1
        if not wanted.live and not wanted.done:
            wanted.done = True
            self.outcome.failed += 1

    def _hedge(self, wanted: Wanted, number: int, at_s: float) -> None:
        if wanted.first_s is None and not wanted.done and wanted.asked < CANDIDATES_MAX:
            self.outcome.hedges += 1
            self._ask(wanted, at_s, without=number)

    def _pay(self, wanted: Wanted, usd: float) -> None:
        self.outcome.spent_usd += usd
        if wanted.request.waits:
            self.outcome.waited_spent_usd += usd

    def _name(self, number: int) -> str:
        return self._world.sellers[number].maker.name

    # ---- the world's answer -----------------------------------------------------------------------

    def _attempt(self, request: Request, candidate: int, seller: Seller, at_s: float) -> tuple[str, float, float]:
        """Outcome class, seconds, US dollars billed."""
        world, key = self._world, (request.number, candidate, seller.number)
        if seller.is_dry(at_s):
            return "budget", 0.3, 0.0
        if not self._within_cap(seller, at_s):
            return "rate", 0.2, 0.0
        spell = seller.spell(at_s)
        fails = FAILS if spell is None else FAILS + spell.fails
        place = world.luck(*key, FAIL)
        if place < fails:
            if spell is not None and spell.hangs:
                return "timeout", TIMEOUT_S, 0.0
            return "transient", 0.3 + world.luck(*key, PLACE) * seller.maker.median_s * 0.5, 0.0
        price = seller.price_usd(at_s, request.side)
        seconds = self._seconds(request, key, seller) * (spell.slow if spell else 1.0)
        if seconds > TIMEOUT_S:
            return "timeout", TIMEOUT_S, price  # made after we had gone; it is billed all the same
        return ("unusable" if place > 1 - UNUSABLE else "made"), seconds, price

    def _seconds(self, request: Request, key: tuple[int, int, int], seller: Seller) -> float:
        maker, world = seller.maker, self._world
        width, height = request.cleared.size.width, request.cleared.size.height  # type: ignore[union-attr]
        seconds = maker.median_s * (0.5 + 0.5 * width * height / 1e6)
        seconds *= math.exp(maker.spread * world.normal(*key, SECONDS))
        straggles = world.luck(*key, STRAGGLES)
        if straggles < SLOW_SHARE:
            low, high = SLOW_TIMES
            seconds *= low + (high - low) * straggles / SLOW_SHARE
        return seconds

    def _within_cap(self, seller: Seller, at_s: float) -> bool:
        rate = seller.maker.per_minute / 60.0
        left, before_s = self._left[seller.number]
        left = min(seller.maker.per_minute / 3.0, left + max(0.0, at_s - before_s) * rate)
        within = left >= 1.0
        self._left[seller.number] = (left - within, max(at_s, before_s))
        return within

    def calls_left(self, number: int, at_s: float) -> float:
        """For the clairvoyant."""
        rate = self._world.sellers[number].maker.per_minute / 60.0
        left, before_s = self._left[number]
        return left + max(0.0, at_s - before_s) * rate

    # ---- what is measured -------------------------------------------------------------------------

    def _note(self, request: Request, chain: list[int], at_s: float) -> None:
        """What an approved image truly costs where this candidate goes, and where it would best go."""
        best = true = None
        costs = {}
        for seller in self._world.sellers:
            if request.cleared.privacy == "confidential" and not seller.maker.private:
                continue
            if not seller.is_down(at_s) and self.calls_left(seller.number, at_s) >= 1:
                costs[seller.number] = true_usd(seller, at_s, request)
        if costs:
            best = min(costs.values())
            true = next((costs[number] for number in chain if number in costs), None)
        if best is not None and true is not None:
            self.outcome.chosen.append((at_s, true, best))


def true_usd(seller: Seller, at_s: float, request: Request) -> float:
    """What an approved image costs at a seller, as nobody in the market knows it."""
    return (seller.price_usd(at_s, request.side) + TERMS.each_usd) / seller.pass_share(at_s, request.kind)
