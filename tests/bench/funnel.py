"""G14 on real pictures: what an approved image costs, by the publisher's own funnel and by one that always makes four.

An order has one prompt; its candidates are pictures that a demo model drew of it, scored by the scorer's dimensions
and the gate, each used once. The funnel that decides is the publisher's; the fixed one makes FIXED for each image
that is wanted and takes the best of those that pass. The oracle says how many of the delivered are right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tests.bench.shapes import PRICES_USD, Judged, Studio
from tests.unit.publisher.simulation import Fate, Shop

SEED_FIRST = 3_300_000
ORDERS = {1: 120, 4: 50, 16: 16, 60: 6}
"""Of each number of wanted images."""
FIXED = 4
RATIO_MAX = {1: 1.25, 4: 1.20, 16: 1.10, 60: 1.06}
SAVING_MIN = 0.40

Passes = Callable[[Judged], bool]


@dataclass(frozen=True, slots=True)
class Came:
    """What all orders of one size came to: images made, delivered and right of those; waves."""

    orders: int
    made: int
    delivered: int
    right: int
    waves: int = 0
    complete: int = 0

    @property
    def each(self) -> float:
        """Images made for one delivered."""
        return self.made / self.delivered if self.delivered else float("nan")

    @property
    def quality(self) -> float:
        """Share of right ones among the delivered."""
        return self.right / self.delivered if self.delivered else float("nan")


def most(wanted: int) -> int:
    """The product's cap where a request names none."""
    return max(8, FIXED * wanted)


def adaptive(shop: Shop, orders: Sequence[Sequence[Judged]], wanted: int, passes: Passes) -> Came:
    """By the publisher's funnel."""
    fates: list[Fate] = []
    right = 0
    for pictures in orders:
        images = ((passes(one), one.values["alignment"]) for one in pictures)
        fates.append(shop.order(wanted, images, max_candidates=most(wanted)))
        right += sum(pictures[index].right for index in fates[-1].chosen)
    return Came(
        orders=len(orders),
        made=sum(fate.made for fate in fates),
        delivered=sum(fate.approved for fate in fates),
        right=right,
        waves=sum(fate.waves for fate in fates),
        complete=sum(fate.ending == "approved" for fate in fates),
    )


def fixed(orders: Sequence[Sequence[Judged]], wanted: int, passes: Passes) -> Came:
    """By a funnel that makes FIXED for each that is wanted."""
    delivered = right = complete = 0
    for pictures in orders:
        passing = [one for one in pictures[: FIXED * wanted] if passes(one)]
        best = sorted(passing, key=lambda one: -one.values["alignment"])[:wanted]
        delivered, right = delivered + len(best), right + sum(one.right for one in best)
        complete += len(best) == wanted
    return Came(len(orders), FIXED * wanted * len(orders), delivered, right, complete=complete)


def measure(studio: Studio, model: str, passes: Passes, share: float = 1.0) -> list[dict[str, object]]:
    """One row for each number of wanted images."""
    shop, rows, first = Shop(0.0, seed=0), [], SEED_FIRST
    for wanted, most_orders in ORDERS.items():
        count = max(2, round(most_orders * share))
        flat = studio.judged(model, range(first, first + count), most(wanted))
        orders = [flat[at : at + most(wanted)] for at in range(0, len(flat), most(wanted))]
        first += most_orders
        rows.append(_row(model, wanted, orders, shop, passes))
    return rows


def _row(model: str, wanted: int, orders: Sequence[Sequence[Judged]], shop: Shop, passes: Passes) -> dict[str, object]:
    rates = np.array([np.mean([passes(one) for one in pictures]) for pictures in orders])
    ours, four = adaptive(shop, orders, wanted, passes), fixed(orders, wanted, passes)
    price = PRICES_USD[model]
    return {
        "model": model,
        "wanted": wanted,
        "orders": ours.orders,
        "p": float(rates.mean()),
        "ratio_to_1/p": ours.each * float(rates.mean()),
        "ratio_max": RATIO_MAX[wanted],
        "images_each": ours.each,
        "waves_each": ours.waves / ours.orders,
        "complete": ours.complete,
        "quality": ours.quality,
        "usd_each": ours.each * price,
        "fixed_images_each": four.each,
        "fixed_complete": four.complete,
        "fixed_quality": four.quality,
        "fixed_usd_each": four.each * price,
        "saved_images": 1 - ours.made / four.made,
        "saved_usd_order": (four.made - ours.made) * price / ours.orders,
        "saved_each": 1 - ours.each / four.each,
        "prompts_without_a_passer": int((rates == 0).sum()),
    }
