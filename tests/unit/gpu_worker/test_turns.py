"""Turns: by weight to within one turn, the newcomer's at once, nobody's too late."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from giclee.gpu_worker.turns import LATE_S, LATE_TURNS, Turns

NEVER_S = 1e12
POOLS = ("now", "standard", "bulk")


def test_pools_that_always_wait_have_their_weights_part() -> None:
    """700 turns of one second at weights 4, 2 and 1: 400, 200 and 100, to within one."""
    turns, had = Turns({"now": 4, "standard": 2}, late_s=NEVER_S), Counter[str]()
    for pool in POOLS:
        turns.wait(pool, 0.0)
    for at in range(700):
        pool = turns.next(POOLS, float(at))
        turns.begin(pool, float(at), more=True)
        turns.end(pool, 1.0)
        had[pool] += 1
    assert all(abs(had[pool] - right) <= 1 for pool, right in zip(POOLS, (400, 200, 100), strict=True)), had


def test_a_pool_that_was_away_saved_nothing_up() -> None:
    """Bulk alone for an hour, then both for 50 turns: four fifths are the other's, not all of them."""
    turns, had = Turns({"now": 4}), Counter[str]()
    turns.wait("bulk", 0.0)
    for at in range(3600):
        turns.begin("bulk", float(at), more=True)
        turns.end("bulk", 1.0)
    turns.wait("now", 3600.0)
    for at in range(3600, 3650):
        pool = turns.next(("now", "bulk"), float(at))
        turns.begin(pool, float(at), more=True)
        turns.end(pool, 1.0)
        had[pool] += 1
    assert abs(had["bulk"] - 10) <= 1


def test_whatever_the_weights_a_turn_comes_in_bounded_time() -> None:
    """A hundred to one, batches of a second: bulk has a turn every minute, not every hundred seconds."""
    turns, at_s = Turns({"now": 100}), []
    for pool in ("now", "bulk"):
        turns.wait(pool, 0.0)
    for at in range(1000):
        pool = turns.next(("now", "bulk"), float(at))
        turns.begin(pool, float(at), more=True)
        turns.end(pool, 1.0)
        if pool == "bulk":
            at_s.append(at)
    gaps = [later - first for first, later in pairwise(at_s)]
    assert gaps and max(gaps) <= LATE_S + 1


SOON_S, LONGEST_S = 20.0, 5.0


def test_who_comes_one_at_a_time_has_no_more_than_its_part() -> None:
    """A pool that comes again the moment its turn is over: what it used still counts, and bulk has its fifth."""
    turns, had = Turns({"now": 4}, late_s=NEVER_S), Counter[str]()
    turns.wait("bulk", 0.0)
    for at in range(100):
        turns.wait("now", float(at))
        pool = turns.next(("now", "bulk"), float(at))
        turns.begin(pool, float(at), more=pool == "bulk")
        turns.end(pool, 1.0)
        had[pool] += 1
    assert abs(had["bulk"] - 20) <= 1


def test_on_a_slow_device_weights_count_all_the_same() -> None:
    """Batches of two minutes at four to one: every fifth is bulk's, not every second."""
    turns, had = Turns({"now": 4}), Counter[str]()
    for pool in ("now", "bulk"):
        turns.wait(pool, 0.0)
    for at in range(100):
        pool = turns.next(("now", "bulk"), at * 120.0)
        turns.begin(pool, at * 120.0, more=True)
        turns.end(pool, 120.0)
        had[pool] += 1
    assert had["bulk"] == 20


@given(
    weights=some.tuples(*[some.integers(1, 20)] * 3),
    steps=some.lists(some.tuples(some.floats(0.1, LONGEST_S), some.sets(some.sampled_from(POOLS))), max_size=150),
)
def test_any_history_keeps_shares_newcomers_and_bounds(
    weights: tuple[int, int, int], steps: list[tuple[float, set[str]]]
) -> None:
    """Pools come during turns of 0.1 to 5 s, and leave with them, as chance has it.

    While two pools wait without a break and nobody is late, what they had per weight differs by a turn of each at most.
    Who comes during another's turn is next before it. Nobody waits longer than the bounds and a turn of everybody.
    """
    weight = dict(zip(POOLS, weights, strict=True))
    turns, now = Turns(weight, late_s=SOON_S), 0.0
    since: dict[str, float] = {}
    had: dict[frozenset[str], dict[str, float]] = {}
    for took_s, comes in steps:
        if not since:
            for pool in comes:
                turns.wait(pool, now)
            since |= dict.fromkeys(comes, now)
            had = {frozenset((one, other)): {one: 0.0, other: 0.0} for one in since for other in since if one < other}
            continue
        pool = turns.next(since, now)
        late = any(now - when >= SOON_S for when in since.values())
        assert max(now - when for when in since.values()) <= SOON_S + LONGEST_S * (LATE_TURNS + len(POOLS))
        began, others, new, more = now, since.keys() - {pool}, comes - since.keys(), pool in comes
        turns.begin(pool, began, more=more)
        for newcomer in sorted(comes):
            turns.wait(newcomer, began + took_s / 2)
        now += took_s
        turns.end(pool, took_s)
        since = {**dict.fromkeys(new, began + took_s / 2), **since}
        del since[pool]
        if more:
            since[pool] = began
        had = {} if late else {pair: one for pair, one in had.items() if pair <= since.keys()}
        for pair, one in had.items():
            if pool in pair:
                one[pool] += took_s
            (first, one_had), (second, other_had) = one.items()
            turn_of_each = LONGEST_S / weight[first] + LONGEST_S / weight[second]
            assert abs(one_had / weight[first] - other_had / weight[second]) <= turn_of_each + 1e-6
        if new and not others and not late:
            assert turns.next(since, now) in new
        for newcomer in new:
            had |= {frozenset((newcomer, rest)): {newcomer: 0.0, rest: 0.0} for rest in since if rest != newcomer}
