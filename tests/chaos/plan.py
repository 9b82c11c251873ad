"""Which faults, when, at what, for how long: drawn from a seed before anything starts, so that a seed repeats a run."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from tests.chaos.fault import Draw, service_of
from tests.chaos.faults import REPLICA, SERVICE, Row
from tests.chaos.stack import STAGE_OF

FIRST_AT_S = 5.0
GAP_S = (4.0, 14.0)
"""Between two faults; what they take may make them overlap."""
TRIES = 30


def draw(
    seed: int, seconds: float, rows: Sequence[Row], scale: Mapping[str, int], gap_s: tuple[float, float] = GAP_S
) -> list[Draw]:
    """Every fault of the table once, in an order of the seed's, then by weight, as long as there is time."""
    chance = random.Random(seed)
    fresh = chance.sample(rows, len(rows))
    busy_until: dict[str, float] = {}
    plan: list[Draw] = []
    at_s = FIRST_AT_S
    while at_s < seconds:
        for _ in range(TRIES):
            row = fresh[0] if fresh else chance.choices(rows, [one.weight for one in rows])[0]
            target = chance.choice(targets_of(row, scale))
            lasts_s = round(chance.uniform(*row.lasts_s), 1)
            taken = takes(row, target, scale)
            if fresh:
                fresh.append(fresh.pop(0))  # its turn comes again when what it takes is free
            if all(busy_until.get(one, 0.0) <= at_s for one in taken):
                if fresh:
                    fresh.remove(row)
                busy_until.update(dict.fromkeys(taken, at_s + lasts_s + row.costs_s))
                plan.append(
                    Draw(number=len(plan) + 1, name=row.name, target=target, at_s=round(at_s, 1), lasts_s=lasts_s,
                         seed=chance.getrandbits(32))
                )  # fmt: skip
                break
        at_s += chance.uniform(*gap_s)
    return plan


def targets_of(row: Row, scale: Mapping[str, int]) -> list[str]:
    """Names of what a row may hit in a stack of this scale."""
    found: list[str] = []
    for target in row.targets:
        if target == SERVICE:
            found += [service for service in STAGE_OF if scale.get(service)]
        elif target == REPLICA:
            found += [name for service in scale for name in replicas(service, scale)]
        else:
            found.append(target)
    return found


def takes(row: Row, target: str, scale: Mapping[str, int]) -> frozenset[str]:
    """What nobody else may disturb meanwhile."""
    if row.takes is not None:
        return frozenset({row.takes})
    return frozenset(replicas(service_of(target), scale)) if row.whole else frozenset({target})


def replicas(service: str, scale: Mapping[str, int]) -> list[str]:
    """Process names: `scorer`, `scorer.2`."""
    return [service if number == 1 else f"{service}.{number}" for number in range(1, scale.get(service, 0) + 1)]
