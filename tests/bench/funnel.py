"""G14 on real pictures: what an approved image costs, by the publisher's own funnel and by one that always makes four.

An order has one prompt; its candidates are pictures that a demo model drew of it, scored by the scorer's dimensions
and the gate, each used once. The funnel that decides is the publisher's; the fixed one makes FIXED for each image
that is wanted and takes the best of those that pass. The oracle says how many of the delivered are right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.bench.shapes import PRICES_USD as PICTURE_USD
from tests.bench.shapes import Judged, Studio
from tests.unit.publisher.simulation import PRICES_USD, Fate, Shop

SEED_FIRST = 3_300_000
ORDERS = {1: 120, 4: 50, 16: 16, 60: 6}
"""Of each number of wanted images."""
FIXED = 4
DRAFT, FINAL = "shapes-draft", "shapes-final"
RATIO_MAX = {1: 1.25, 4: 1.20, 16: 1.10, 60: 1.06}
SAVING_MIN = 0.40

Passes = Callable[[Judged], bool]
Orders = Sequence[Sequence[Judged]]
"""The pictures of each order's prompt."""


@dataclass(frozen=True, slots=True)
class Came:
    """What all orders of one size came to: images made, delivered and right of those; waves."""

    orders: int
    made: int
    delivered: int
    right: int
    waves: int = 0
    complete: int = 0
    usd: float = 0.0

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


def adaptive(shop: Shop, orders: Orders, wanted: int, passes: Passes, better: Orders | None = None) -> Came:
    """By the publisher's funnel; drafts that would miss go on with pictures of `better`, where there are some."""
    fates: list[Fate] = []
    right, usd = 0, 0.0
    for number, pictures in enumerate(orders):
        of = {"draft": pictures} if better else {"final": pictures}
        terms: dict[str, Any] = {"max_candidates": most(wanted)}
        if better:
            of["final"] = better[number]
            terms |= {"quality": "draft", "escalation_usd": PRICES_USD["final"]}
        streams = {name: [(passes(one), one.values["alignment"]) for one in some] for name, some in of.items()}
        fates.append(fate := shop.order(wanted, *(iter(one) for one in streams.values()), **terms))
        came = _by_index(fate.qualities, of)
        right += sum(came[index].right for index in fate.chosen)
        usd += sum(fate.of[name] * PICTURE_USD[some[0].model] for name, some in of.items())
    return Came(
        orders=len(orders),
        made=sum(fate.made for fate in fates),
        delivered=sum(fate.approved for fate in fates),
        right=right,
        waves=sum(fate.waves for fate in fates),
        complete=sum(fate.ending == "approved" for fate in fates),
        usd=usd,
    )


def _by_index(qualities: Sequence[str], of: Mapping[str, Sequence[Judged]]) -> list[Judged]:
    """The picture of each candidate."""
    streams = {name: iter(some) for name, some in of.items()}
    return [next(streams[name]) for name in qualities]


def fixed(orders: Orders, wanted: int, passes: Passes) -> Came:
    """By a funnel that makes FIXED for each that is wanted."""
    delivered = right = complete = 0
    for pictures in orders:
        passing = [one for one in pictures[: FIXED * wanted] if passes(one)]
        best = sorted(passing, key=lambda one: -one.values["alignment"])[:wanted]
        delivered, right = delivered + len(best), right + sum(one.right for one in best)
        complete += len(best) == wanted
    made = FIXED * wanted * len(orders)
    return Came(len(orders), made, delivered, right, complete=complete, usd=made * PICTURE_USD[orders[0][0].model])


def measure(studio: Studio, model: str, passes: Passes, share: float = 1.0) -> list[dict[str, object]]:
    """One row for each number of wanted images; of drafts, beside it one of orders that go on with the final."""
    shop, on_shop, rows, first = Shop(0.0, seed=0), Shop(0.0, seed=0), [], SEED_FIRST
    for wanted, most_orders in ORDERS.items():
        count = max(2, round(most_orders * share))
        orders = _orders(studio, model, range(first, first + count), wanted)
        rows.append(_row(model, wanted, orders, shop, passes))
        if model == DRAFT:
            finals = _orders(studio, FINAL, range(first, first + count), wanted)
            rows[-1]["going_on"] = _going_on(wanted, orders, finals, on_shop, passes)
        first += most_orders
    return rows


def _orders(studio: Studio, model: str, seeds: range, wanted: int) -> Orders:
    flat = studio.judged(model, seeds, most(wanted))
    return [flat[at : at + most(wanted)] for at in range(0, len(flat), most(wanted))]


def _going_on(wanted: int, drafts: Orders, finals: Orders, shop: Shop, passes: Passes) -> dict[str, object]:
    ours = adaptive(shop, drafts, wanted, passes, finals)
    return {"images_each": ours.each, "usd_each": ours.usd / ours.delivered, "complete": ours.complete,
            "quality": ours.quality, "waves_each": ours.waves / ours.orders}  # fmt: skip


def _row(model: str, wanted: int, orders: Orders, shop: Shop, passes: Passes) -> dict[str, object]:
    rates = np.array([np.mean([passes(one) for one in pictures]) for pictures in orders])
    ours, four = adaptive(shop, orders, wanted, passes), fixed(orders, wanted, passes)
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
        "usd_each": ours.usd / ours.delivered,
        "fixed_images_each": four.each,
        "fixed_complete": four.complete,
        "fixed_quality": four.quality,
        "fixed_usd_each": four.usd / four.delivered,
        "saved_images": 1 - ours.made / four.made,
        "saved_usd_order": (four.usd - ours.usd) / ours.orders,
        "saved_each": 1 - ours.each / four.each,
        "prompts_without_a_passer": int((rates == 0).sum()),
    }
