"""G15, `make bench-router`: a week on the market, policies side by side, into docs/router.md and its two plots.

`python -m tests.bench.goal_router [--requests N] [--seeds 6,101,102,103]`. The first seed is the committed trace, the
others are fresh ones that nothing was chosen by. Exit code 1 when requests were lost sight of; an aim that is missed
is shown, not failed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from giclee.router.choose import choose, rank
from giclee.router.costs import Draw
from tests.bench.market import page
from tests.bench.market.policies import CheapestList, Clairvoyant, LeastLatency, Ours, RoundRobin, Simple, Single
from tests.bench.market.run import Outcome, Run
from tests.bench.market.world import START_S, WEEK_REQUESTS, World
from tests.bench.measure import Wrong, load, machine, percentile

TRACE = 6
"""The committed trace; the fresh ones were drawn when the policy was done."""
FRESH = (301, 302, 303)
NEAR = 1.10
"""Recovered: within a tenth of the best there is."""
NEAR_REQUESTS = 50
"""Over so many requests, so that one exploring wave is no relapse."""

POLICIES: dict[str, Callable[[World], Simple]] = {
    "single provider": Single,
    "cheapest list": CheapestList,
    "round robin": RoundRobin,
    "least latency": LeastLatency,
    "giclee": Ours,
    "giclee, hedged": lambda world: Ours(world, hedges=True),
    "clairvoyant": Clairvoyant,
}


@dataclass(frozen=True, slots=True)
class Week:
    """One seed: what every policy came to, and how many requests each change of the world cost ours."""

    seed: int
    outcomes: dict[str, Outcome]
    recovery: list[int]
    changes: int


@dataclass(frozen=True, slots=True)
class Aim:
    """A line of G15: what was wanted, and what every seed came to; a line without `most` only informs."""

    says: str
    most: float | None
    found: Sequence[float]
    digits: int = 3

    @property
    def met(self) -> bool | None:
        return None if self.most is None else all(one <= self.most for one in self.found)


@dataclass(slots=True)
class Speed:
    """Microseconds, best of many batches: `pick` puts a chain in order, `told` also says every reason."""

    pick_us: float = 0.0
    told_us: float = 0.0
    offers: int = 0


def week(seed: int, requests: int) -> Week:
    """Every policy on one trace. Errors: Wrong when a request has no end or two."""
    world = World(seed, requests)
    outcomes = {}
    for name, kind in POLICIES.items():
        started_s = time.perf_counter()
        policy = kind(world)
        run = Run(world, policy)
        if isinstance(policy, Clairvoyant):
            policy.running = run
        found = outcomes[name] = run.run()
        ends = found.accepted + found.failed + found.capped
        if ends != requests:
            raise Wrong(f"seed {seed}, {name}: {requests} requests, {ends} ends")
        took_s = time.perf_counter() - started_s
        print(f"seed {seed}: {name} {found.each_usd:.5f} dollars ({took_s:.0f} s)", file=sys.stderr, flush=True)
    return Week(seed, outcomes, recovery(outcomes["giclee"], world.changes), len(world.changes))


def recovery(outcome: Outcome, changes: Sequence[float]) -> list[int]:
    """For each change of the world, how many requests came until the next 50 cost at most 1.10 times the best.

    Costs are true expectations, at the seller that serves the first candidate and at the best one: the luck of single
    images is not in them.
    """
    times = [row[0] for row in outcome.chosen]
    ours = [0.0, *itertools.accumulate(row[1] for row in outcome.chosen)]
    best = [0.0, *itertools.accumulate(row[2] for row in outcome.chosen)]
    found = []
    for at_s in changes:
        first = at = bisect_left(times, at_s)
        last = len(times) - NEAR_REQUESTS
        while at <= last and ours[at + NEAR_REQUESTS] - ours[at] > NEAR * (best[at + NEAR_REQUESTS] - best[at]):
            at += 1
        if first <= last:
            found.append(at - first)
    return sorted(found)


def aims(weeks: Sequence[Week], speed: Speed) -> list[Aim]:
    """The lines of G15, each with one figure a seed."""

    def each(of: Callable[[dict[str, Outcome]], float]) -> list[float]:
        return [of(one.outcomes) for one in weeks]

    def percent(count: int) -> float:
        ends = weeks[0].outcomes["giclee"]
        return 100 * count / (ends.accepted + ends.failed + ends.capped)

    def p99(one: Outcome) -> float:
        return percentile(one.image_s, 0.99)

    def waited_usd(one: Outcome) -> float:
        return one.waited_spent_usd / max(1, one.waited_accepted)

    return [
        Aim("cost per approved image over the clairvoyant's", 1.06,
            each(lambda out: out["giclee"].each_usd / out["clairvoyant"].each_usd)),
        Aim("cost per approved image over the single provider's", 0.40,
            each(lambda out: out["giclee"].each_usd / out["single provider"].each_usd)),
        Aim("requests for which no provider made an image, %", 0.05, each(lambda out: percent(out["giclee"].failed))),
        Aim("the same, hedged, %", 0.05, each(lambda out: percent(out["giclee, hedged"].failed))),
        Aim("requests whose eight images were all rejected, %", None, each(lambda out: percent(out["giclee"].capped))),
        Aim("the same at the clairvoyant's, %", None, each(lambda out: percent(out["clairvoyant"].capped))),
        Aim("p99 to a candidate's image where somebody waits, hedged over unhedged", 0.65,
            each(lambda out: p99(out["giclee, hedged"]) / p99(out["giclee"]))),
        Aim("cost per approved image of all requests, hedged over unhedged", 1.025,
            each(lambda out: out["giclee, hedged"].each_usd / out["giclee"].each_usd)),
        Aim("the same of the requests that somebody waits for", None,
            each(lambda out: waited_usd(out["giclee, hedged"]) / waited_usd(out["giclee"]))),
        Aim("requests until within 10 % of the best after a change, 95th percentile of changes", 300,
            [float(percentile(one.recovery, 0.95)) for one in weeks], 0),
        Aim("the same, the slowest of all changes", 300, [float(one.recovery[-1]) for one in weeks], 0),
        Aim("a pick, microseconds", 50, [speed.pick_us], 1),
        Aim("a choice with every loser's reason, microseconds", 200, [speed.told_us], 1),
    ]  # fmt: skip


def speed(requests: int = 2000) -> Speed:
    """A pick and a choice on a market that has been traded on for a while."""
    world = World(TRACE, requests)
    policy = Ours(world)
    Run(world, policy, measured=False).run()
    asked, now_s = [one.cleared for one in world.requests[:300]], START_S + world.length_s
    low = Decimal("0.02")  # some lose by price, which takes a message each

    def best_us(one: Callable[[int], object]) -> float:
        batches = []
        for _ in range(30):
            started_s = time.process_time()  # of our own CPU time: the machine may have other work
            for at in range(len(asked)):
                one(at)
            batches.append((time.process_time() - started_s) / len(asked) * 1e6)
        return min(batches)

    known, offers = policy.known, policy.offers
    return Speed(
        best_us(lambda at: rank(asked[at], asked[at].limit_usd, offers, known, now_s, Draw(at))),
        best_us(lambda at: choose(asked[at], low, offers, known, now_s=now_s, draw=Draw(at))),
        len(offers),
    )


def main(words: Sequence[str]) -> int:
    """Run, print, write the page; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.goal_router", description=__doc__)
    parser.add_argument("--requests", type=int, default=WEEK_REQUESTS)
    parser.add_argument("--seeds", default=",".join(map(str, (TRACE, *FRESH))))
    asked = parser.parse_args(words)
    before = load()
    try:
        weeks = [week(int(seed), asked.requests) for seed in asked.seeds.split(",")]
    except Wrong as wrong:
        print(f"G15 does not count: {wrong}", file=sys.stderr)
        return 1
    found = aims(weeks, speed())
    for aim in found:
        figures = " ".join(f"{one:.{aim.digits}f}" for one in aim.found)
        word = {True: "yes", False: "NO ", None: "   "}[aim.met]
        wanted = "" if aim.most is None else f" at most {aim.most:g};"
        print(f"{word}  {aim.says}:{wanted} {figures}")
    if asked.requests < WEEK_REQUESTS:
        print("docs/router.md is left as it is: it is about whole weeks", file=sys.stderr)
        return 0
    facts = (
        f"{datetime.now(UTC):%Y-%m-%d}, `make bench-router`; {machine()}; load averages {before} before, {load()} after"
    )
    page.write(weeks, found, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
