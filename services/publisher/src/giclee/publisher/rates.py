"""How orders of each kind fared: counted when they close, shared by all replicas through the database.

What a process counted and had not written yet is gone when it is killed; the counts guide the size of waves and
decide nothing else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

from giclee.bus import telemetry
from giclee.bus.errors import Transient
from giclee.publisher.belief import Belief
from giclee.publisher.order import Order
from giclee.publisher.standing import Kind

EVERY_S = 5.0

log = telemetry.logger(__name__)
Counts = Mapping[Kind, tuple[float, float]]
"""Candidates that passed and that did not, by kind."""


class Shared(Protocol):
    """Where counts are added up."""

    async def add_rates(self, fresh: Counts) -> Counts:
        """Add these and give the sums. Errors: Transient."""
        ...


class Rates:
    """Counts of this process that are not shared yet, and what is believed of every kind."""

    def __init__(self) -> None:
        self.beliefs: Mapping[Kind, Belief] = {}
        self._passed: Counter[Kind] = Counter()
        self._failed: Counter[Kind] = Counter()

    def note(self, order: Order) -> None:
        """Count the candidates of an order that was just closed."""
        verdict = order.verdict
        for index, wave in order.candidates().items() if verdict is not None else ():
            outcome, score = order.outcomes.get(index), order.score_of(index)
            if verdict is None or outcome is None or (outcome.image is not None and score is None):
                continue  # withdrawn, stalled or not looked at: nobody knows
            if score is not None and score.passes and order.needs_person(index) and order.looked_at(index) is None:
                continue
            counted = self._passed if order.passes(index) else self._failed
            counted[verdict.asset_type, wave.quality, outcome.model] += 1

    async def run(self, shared: Shared) -> None:
        """Share and learn until cancelled. An outage is waited out."""
        while True:
            try:
                await self.share(shared)
            except Transient as error:
                log.warning("pass rates wait for an outage", error=str(error))
            await asyncio.sleep(EVERY_S)

    async def share(self, shared: Shared) -> None:
        """Add what was counted here and read what everybody counted. Errors: Transient; nothing is lost by it."""
        fresh = self.taken()
        try:
            sums = await shared.add_rates(fresh)
        except Transient:
            for kind, (passes, fails) in fresh.items():
                self._passed[kind] += int(passes)
                self._failed[kind] += int(fails)
            raise
        self.beliefs = beliefs_of(sums.items())

    def taken(self) -> Counts:
        """What was counted since the last time, which is forgotten here."""
        passed, failed = self._passed, self._failed
        self._passed, self._failed = Counter(), Counter()
        return {kind: (passed[kind], failed[kind]) for kind in passed | failed}


def beliefs_of(sums: Iterable[tuple[Kind, tuple[float, float]]]) -> dict[Kind, Belief]:
    """What is believed of each kind, and of each asset type and quality over all models, under the model ""."""
    added: dict[Kind, tuple[float, float]] = {}
    for (asset_type, quality, model), (passes, fails) in sums:
        for kind in {(asset_type, quality, model), (asset_type, quality, "")}:
            before = added.get(kind, (0.0, 0.0))
            added[kind] = (before[0] + passes, before[1] + fails)
    return {kind: Belief.of_kind(*counts) for kind, counts in added.items()}
