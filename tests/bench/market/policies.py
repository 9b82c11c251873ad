"""Who buys on the market: the product's own chooser with its own health and prices, four simple ones, a clairvoyant."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from giclee.router import hedge, memory
from giclee.router.advice import Advice
from giclee.router.caps import Caps
from giclee.router.choose import Known, rank
from giclee.router.costs import Draw
from giclee.router.prices import Prices, quantity_of
from giclee.router.routes import Offer
from giclee.schemas.events import PriceSet, ProviderHealth, ProviderOutcome
from tests.bench.market.run import TERMS, Run, true_usd
from tests.bench.market.world import KINDS, SINGLE, START_S, Request, World, rows

PUBLISH_EVERY_S = 5.0
"""As `GICLEE_ROUTER_HEALTH_PUBLISH_EVERY_S` has it, and a little for the way."""
ON_THE_WAY_S = 0.3
_NOBODY = UUID(int=0)


class Simple:
    """What the simple ones share: they hear nothing and never hedge."""

    name = ""

    def __init__(self, world: World) -> None:
        self._world = world
        private = [seller.number for seller in world.sellers if seller.maker.private]
        self._may = {"public": [seller.number for seller in world.sellers], "confidential": private}

    def chain(self, request: Request, candidate: int, at_s: float, without: int | None) -> list[int]:
        raise NotImplementedError

    def taken(self, seller: int, at_s: float) -> None:
        """Nothing is counted."""

    def hears(self, seller: int, word: str, seconds: float, paid: tuple[float, float], at_s: float) -> None:
        """Nothing is heard."""

    def judged(self, seller: int, kind: int, *, passed: bool, at_s: float) -> None:
        """Nothing is heard."""

    def hedge_s(self, request: Request, seller: int, at_s: float) -> float | None:
        return None


class Single(Simple):
    """One provider, tried three times."""

    name = "single provider"

    def chain(self, request: Request, candidate: int, at_s: float, without: int | None) -> list[int]:
        return [SINGLE] * 3


class CheapestList(Simple):
    """By the price list as it was told last; the others are the fallback."""

    name = "cheapest list"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._told = world.told_prices()
        self._times = [1.0] * len(world.sellers)

    def chain(self, request: Request, candidate: int, at_s: float, without: int | None) -> list[int]:
        while self._told and self._told[0][0] <= at_s:
            _, event = self._told.pop(0)
            for seller in self._world.sellers:
                if event.row and event.row.provider == seller.maker.name:
                    self._times[seller.number] = float(event.row.usd) / float(seller.maker.usd)
        sellers = self._world.sellers
        return sorted(
            self._may[request.cleared.privacy],
            key=lambda number: sellers[number].price_usd(0.0, request.side) * self._times[number],
        )


class RoundRobin(Simple):
    """Everybody in turn; the next ones are the fallback."""

    name = "round robin"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._turn = 0

    def chain(self, request: Request, candidate: int, at_s: float, without: int | None) -> list[int]:
        may = self._may[request.cleared.privacy]
        self._turn += 1
        first = self._turn % len(may)
        return may[first:] + may[:first]


class LeastLatency(Simple):
    """The one whose last calls were answered fastest; a failure counts as a minute."""

    name = "least latency"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._seconds = [seller.maker.median_s for seller in world.sellers]

    def hears(self, seller: int, word: str, seconds: float, paid: tuple[float, float], at_s: float) -> None:
        took_s = seconds if word == "made" else 60.0
        self._seconds[seller] += 0.1 * (took_s - self._seconds[seller])

    def chain(self, request: Request, candidate: int, at_s: float, without: int | None) -> list[int]:
        # what is not used is forgotten slowly, else one bad minute would be for ever
        for seller in self._world.sellers:
            self._seconds[seller.number] += 0.002 * (seller.maker.median_s - self._seconds[seller.number])
        return sorted(self._may[request.cleared.privacy], key=self._seconds.__getitem__)


class Clairvoyant(Simple):
    """Knows every true price, who is up and within its cap, and what share passes; not the luck of a single call."""

    name = "clairvoyant"
    running: Run

    def chain(self, request: Request, candidate: int, at_s: float, without: int | None) -> list[int]:
        sellers = self._world.sellers
        may = [number for number in self._may[request.cleared.privacy] if number != without]
        usable = [n for n in may if not sellers[n].is_down(at_s) and self.running.calls_left(n, at_s) >= 1]
        return sorted(usable or may, key=lambda number: true_usd(sellers[number], at_s, request))


class Ours(Simple):
    """The product: `choose.rank` over the rows that `memory.health` makes every five seconds, prices by event, caps.

    `publish_every_s` makes health later; longer than the week, it is never heard.
    """

    name = "giclee"

    def __init__(self, world: World, *, hedges: bool = False, publish_every_s: float = PUBLISH_EVERY_S) -> None:
        super().__init__(world)
        self._every_s = publish_every_s
        self._hedges = hedges
        self._told = world.told_prices()
        self._live: dict[str, PriceSet] = {}
        self._rows: dict[str, ProviderHealth] = {}
        self._attempts: list[memory.Memory] = [{} for _ in world.sellers]
        self._scores: list[memory.Memory] = [{} for _ in world.sellers]
        self._dirty: dict[int, float] = {}
        self._advice = Advice(self._rows)
        self._caps = Caps()
        self.known = Known(prices=Prices(rows(), self._live), advice=self._advice, caps=self._caps, terms=TERMS)
        self.offers = [Offer(seller.model) for seller in world.sellers]
        self._number = {seller.maker.name: seller.number for seller in world.sellers}

    def chain(self, request: Request, candidate: int, at_s: float, without: int | None) -> list[int]:
        self._catch_up(at_s)
        now_s = START_S + at_s
        draw = Draw(request.number * 16 + candidate)
        places = rank(request.cleared, request.cleared.limit_usd, self.offers, self.known, now_s, draw).places
        if without is not None:
            places = hedge.fastest_first(places, (self._world.sellers[without].maker.name,))
        chain = [self._number[place.model.name] for place in places]
        first = self._world.sellers[chain[0]].model
        self._advice.chosen(first.provider, first.name, now_s)
        return chain

    def taken(self, seller: int, at_s: float) -> None:
        self._caps.take(self._world.sellers[seller].model, START_S + at_s)

    def expected_usd(self, seller: int, request: Request) -> float:
        """The price of the hop."""
        model = self._world.sellers[seller].model
        return self.known.prices.of(model, quantity_of(request.cleared, model), 0.0).value

    def hears(self, seller: int, word: str, seconds: float, paid: tuple[float, float], at_s: float) -> None:
        model, now_s = self._world.sellers[seller].model, START_S + at_s
        outcome = ProviderOutcome.model_construct(
            provider=model.provider, model=model.name, candidate_id=_NOBODY, hop=0, fence=1,
            outcome=cast(Any, word),
            seconds=seconds, price_usd=Decimal(f"{paid[0]:.6f}"), expected_usd=Decimal(f"{paid[1]:.6f}"),
            queue_s=None, at=datetime.fromtimestamp(now_s, UTC),
        )  # fmt: skip
        self._attempts[seller] = memory.counted(self._attempts[seller], outcome, now_s)
        self._soil(seller, at_s)

    def judged(self, seller: int, kind: int, *, passed: bool, at_s: float) -> None:
        now_s = START_S + at_s
        self._scores[seller] = memory.judged(self._scores[seller], KINDS[kind], passed=passed, at_s=now_s, now_s=now_s)
        self._soil(seller, at_s)

    def hedge_s(self, request: Request, seller: int, at_s: float) -> float | None:
        if not self._hedges:
            return None
        model = self._world.sellers[seller].model
        standing = self._advice.standing(model.provider, model.name, START_S + at_s)
        return hedge.after_s(request.cleared.priority, standing, model.seconds)

    def _soil(self, seller: int, at_s: float) -> None:
        self._dirty.setdefault(seller, math.ceil(at_s / self._every_s) * self._every_s + ON_THE_WAY_S)

    def _catch_up(self, at_s: float) -> None:
        """Prices that were told by now, health that was published by now."""
        while self._told and self._told[0][0] <= at_s:
            event = self._told.pop(0)[1]
            self._live[event.place] = event
        for seller, due_s in [pair for pair in self._dirty.items() if pair[1] <= at_s]:
            del self._dirty[seller]
            model = self._world.sellers[seller].model
            records = {model.name: (self._attempts[seller], self._scores[seller])}
            self._rows[model.provider] = memory.health(model.provider, records, START_S + due_s)
