"""What the funnel makes of 10,000 orders: candidates per approved image, waves, and what a hurry costs."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from giclee.publisher.belief import ENOUGH_CHANCE, Belief
from giclee.publisher.standing import Pace
from tests.unit.publisher.builders import START
from tests.unit.publisher.simulation import PRICES_USD, Fate, Images, Shop

ORDERS = {1: 2000, 4: 900, 16: 300, 60: 134}
"""Of each number of wanted images, for each of three pass rates."""
RATIO_MAX = {1: 1.25, 4: 1.20, 16: 1.10, 60: 1.06}
WAVES_MAX = {1: 4.0, 4: 5.0, 16: 5.0, 60: 5.0}
FIXED = 4
"""Candidates that a fixed funnel makes for each image that is wanted."""


def per_approved(fates: list[Fate]) -> float:
    return sum(fate.made for fate in fates) / sum(fate.approved for fate in fates)


@pytest.mark.parametrize("pass_rate", [0.3, 0.5, 0.8])
def test_an_approved_image_costs_hardly_more_candidates_than_it_must(pass_rate: float) -> None:
    """1/p is the least possible in the mean; what is made beyond it, in how many waves, beside a fixed funnel."""
    for wanted, count in ORDERS.items():
        shop = Shop(pass_rate, seed=wanted)
        fates = [shop.order(wanted) for _ in range(count)]
        candidates = per_approved(fates)
        waves = sum(fate.waves for fate in fates) / count
        saved = 1 - candidates / FIXED
        print(f"p {pass_rate} wanted {wanted}: {candidates * pass_rate:.3f}/p, {waves:.2f} waves, {saved:.0%} saved")

        assert {fate.ending for fate in fates} == {"approved"}
        assert candidates * pass_rate <= RATIO_MAX[wanted]
        assert waves <= WAVES_MAX[wanted]
        assert pass_rate < 0.5 or saved >= 0.4


def test_somebody_who_waits_gets_fewer_waves_for_more_candidates() -> None:
    """Interactive orders may cost more and are done sooner."""
    shops = {priority: Shop(0.4, seed=1) for priority in ("standard", "interactive")}
    fates = {name: [shop.order(4, priority=name) for _ in range(300)] for name, shop in shops.items()}
    waves = {name: sum(fate.waves for fate in some) for name, some in fates.items()}

    assert waves["interactive"] < 0.7 * waves["standard"]
    assert per_approved(fates["standard"]) < per_approved(fates["interactive"])


def test_the_nearer_the_deadline_the_larger_the_waves() -> None:
    """An order that has time for a few waves only is done in time nearly always."""
    shop = Shop(0.3, seed=2)
    for _ in range(50):
        shop.order(4)
    soon = START + timedelta(seconds=9)
    fates = [shop.order(8, closes_by=soon) for _ in range(200)]

    assert sum(fate.ending == "approved" for fate in fates) >= 180


def test_a_draft_that_would_miss_goes_on_with_final() -> None:
    """Of prompts that drafts cannot draw, orders are completed by finals, and drafts are given up early."""
    shop, chance = Shop(0.9, seed=5), random.Random(6)

    def hopeless() -> Images:
        while True:
            yield chance.random() < 0.02, chance.random()

    asked = {"quality": "draft", "escalation_usd": PRICES_USD["final"], "max_candidates": 16}
    for _ in range(20):
        shop.order(4)  # what finals come to is known
    fates = [shop.order(4, hopeless(), shop.coins(), **asked) for _ in range(100)]

    assert sum(fate.ending == "approved" for fate in fates) >= 95
    assert sum(fate.of["draft"] for fate in fates[50:]) <= 10 * 50  # of 16 that the cap allows
    alone = [shop.order(4, hopeless(), **{**asked, "escalation_usd": None}) for _ in range(100)]
    assert sum(fate.ending == "approved" for fate in alone) <= 5


def test_without_surplus_a_wave_is_what_is_missing() -> None:
    """The operator may forbid any surplus: then never more candidates are asked for than images are missing."""
    shop = Shop(0.5, seed=3, pace=Pace(surplus_share=0.0))
    fates = [shop.order(16) for _ in range(100)]

    assert per_approved(fates) * 0.5 < 1.03


@pytest.mark.parametrize("belief", [Belief(), Belief(2, 9), Belief(40, 10), Belief(0.6, 300)])
@pytest.mark.parametrize("missing", [1, 5, 60])
def test_sizes_keep_what_they_promise(belief: Belief, missing: int) -> None:
    """The largest thrifty wave and the smallest sure one, by the beta-binomial itself."""
    count = belief.thrifty(missing, 400, 0.05)
    assert missing <= count <= 400
    assert count == missing or belief.surplus(count, missing) <= 0.05 * missing
    assert count == 400 or belief.surplus(count + 1, missing) > 0.05 * missing

    sure = belief.sure(missing, 400)
    assert sure == 400 or belief.chance(sure, missing) >= ENOUGH_CHANCE > belief.chance(sure - 1, missing)
    assert sum(belief.probabilities(50)) == pytest.approx(1)
    mean = sum(k * p for k, p in enumerate(belief.probabilities(50)))
    assert mean == pytest.approx(50 * belief.mean)


def test_the_kind_weighs_less_than_a_long_order() -> None:
    """Ten thousand passers of other orders and twenty failures of this one: this prompt is harder."""
    kind = Belief.of_kind(10_000, 0)

    assert kind.mean > 0.95
    assert kind.updated(0, 30).mean < 0.55
