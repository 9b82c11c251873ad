"""The market is the same for everybody and for every run of a seed; the product's chooser does well on it."""

from __future__ import annotations

import pytest

from tests.bench.market.policies import CheapestList, Clairvoyant, LeastLatency, Ours, RoundRobin, Single
from tests.bench.market.run import Outcome, Policy, Run
from tests.bench.market.world import World

FEW = 1500


def bought(world: World, policy: Policy) -> Outcome:
    run = Run(world, policy)
    if isinstance(policy, Clairvoyant):
        policy.running = run
    return run.run()


def test_a_seed_is_a_market() -> None:
    """Requests, prices, outages and luck repeat; another seed is another market."""
    one, same, other = World(3, 200), World(3, 200), World(4, 200)
    assert one.requests == same.requests != other.requests
    assert [seller.prices for seller in one.sellers] == [seller.prices for seller in same.sellers]
    assert one.luck(5, 0, 2, 1) == same.luck(5, 0, 2, 1) != other.luck(5, 0, 2, 1)
    assert bought(one, Ours(one)).spent_usd == bought(same, Ours(same)).spent_usd


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    world = World(31, FEW)
    policies = [kind(world) for kind in (Single, CheapestList, RoundRobin, LeastLatency, Clairvoyant, Ours)]
    return {policy.name: bought(world, policy) for policy in policies}


def test_every_request_ends_once(outcomes: dict[str, Outcome]) -> None:
    """Accepted, lost or at its cap: nothing is forgotten, nothing counted twice."""
    assert {one.accepted + one.failed + one.capped for one in outcomes.values()} == {FEW}


def test_the_chooser_is_cheaper_than_any_simple_rule(outcomes: dict[str, Outcome]) -> None:
    """And not cheaper than who knows everything, luck aside."""
    ours = outcomes["giclee"].each_usd
    assert all(ours < one.each_usd for name, one in outcomes.items() if name not in ("giclee", "clairvoyant"))
    assert 0.98 < ours / outcomes["clairvoyant"].each_usd < 1.15
