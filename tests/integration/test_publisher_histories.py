"""Random histories of orders on a real Postgres: two replicas, events shuffled, doubled and cut off, time jumping.

One seed is one order's history. The invariants at its end are those of the protocol's model: one closing, nothing
approved after it, never over wanted, cap or budget, cost never understated, every approved picture safe.
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from giclee.bus.blobs import MemoryBlobs
from giclee.schemas.events import (
    CandidatesRequested,
    Event,
    GenerationFailed,
    ImageApproved,
    ImageGenerated,
    ImageStalled,
    RequestClosed,
)
from tests.unit.publisher.builders import Request
from tests.unit.publisher.desk import Desk, desk

pytestmark = pytest.mark.real

SEEDS = 200
TOGETHER = 40
LIMIT = Decimal("0.01")
TTL_S = 72 * 3600


class History:
    """One order and the rest of the line around it, by a seed."""

    def __init__(self, seed: int, replicas: tuple[Desk, Desk]) -> None:
        self.dice = dice = random.Random(seed)
        self.seed, self.replicas = seed, replicas
        wanted = dice.choice([1, 1, 2, 3])
        cap = dice.choice([max(8, 4 * wanted), wanted + 1, wanted, 2])
        self.budget = dice.choice([None, None, Decimal("0.01"), Decimal("0.03"), Decimal("0.06")])
        first = min(cap, dice.choice([wanted, wanted, 2, 4]))
        if self.budget:
            first = max(1, min(first, int(self.budget // LIMIT)))
        self.request = Request(
            wanted=wanted,
            max_candidates=cap,
            budget_usd=self.budget,
            first_wave=first,
            limit_usd=LIMIT,
            selection=dice.choice(["best", "first"]),
            closes_by=datetime.now(UTC) + timedelta(seconds=TTL_S),
        )
        self.pass_share = dice.choice([0.2, 0.5, 0.9])
        self.loss, self.cuts = dice.choice([0, 0, 0.3]), dice.choice([0, 0.2])
        self.answered: set[int] = set()
        self.paid: dict[int, Decimal] = {}
        self.passing: set[str] = set()
        self.waves_seen = 0
        self.sent: list[Event] = []
        refused = dice.random() < 0.05
        self.waiting: list[Event] = [self.request.refused() if refused else self.request.cleared()]
        if dice.random() < 0.2:
            reason = dice.choice(["user", "user", "expired", "discarded"])
            self.waiting.append(self.request.cancel(reason, complete=dice.random() < 0.3))
        if not refused:
            self._answer(range(first))

    def _answer(self, indices: range) -> None:
        """What router, workers and scorer make of a wave; silence for some, which a repeat may break."""
        for index in indices:
            if index in self.answered or self.dice.random() < self.loss:
                continue
            self.answered.add(index)
            self._made(index, self.dice.random())

    def _made(self, index: int, fate: float) -> None:
        asked, dice = self.request, self.dice
        spent = dice.choice(["0.004", "0.01"])
        if fate < 0.12:
            code = dice.choice(["provider_failed", "no_route"])
            self.waiting.append(asked.failed(index, code=code, spent_usd=dice.choice(["0", spent])))
        else:
            passes = dice.random() < self.pass_share
            made, scored = asked.generated(index, spent_usd=spent), asked.scored(index, dice.random(), passes=passes)
            if passes:
                self.passing.add(made.image.sha256)
            self.waiting += [made, scored]
        if 0.12 < fate < 0.2:
            kind = dice.choice(["exhausted", "poison", "invalid"])
            self.waiting.append(asked.stalled(index, offset=index, dead_class=kind, paid_usd="0.003"))
        elif 0.2 < fate < 0.25:
            self.waiting.append(asked.failed(index, code="discarded", spent_usd=spent))

    async def _tell(self, event: Event) -> None:
        self.sent.append(event)
        if isinstance(event, ImageGenerated | GenerationFailed):
            self.paid[event.index] = max(self.paid.get(event.index, Decimal(0)), event.spent_usd)
        replicas = self.replicas if self.dice.random() < 0.3 else (self.dice.choice(self.replicas),)
        telling = [asyncio.create_task(replica.tell(event)) for replica in replicas]
        if self.dice.random() < self.cuts:  # the process dies somewhere in the middle, and the event comes again
            for _ in range(self.dice.randrange(12)):
                await asyncio.sleep(0)
            for task in telling:
                task.cancel()
            self.waiting.append(event)
        found = await asyncio.gather(*telling, return_exceptions=True)
        assert all(one is None or isinstance(one, asyncio.CancelledError) for one in found), found

    async def step(self) -> None:
        dice, desk = self.dice, self.replicas[0]
        moment = dice.random()
        if self.waiting and moment < 0.75:
            some = [self.waiting.pop(dice.randrange(len(self.waiting))) for _ in range(min(len(self.waiting), 3))]
            some += dice.sample(self.sent, min(len(self.sent), dice.randrange(2)))
            await asyncio.gather(*(self._tell(event) for event in some))
        elif moment < 0.9:
            await desk.age(self.request, dice.choice([20, 310, 1000, 4000]))
        else:
            await dice.choice(self.replicas).sweeper.sweep()
        await self._hear()

    async def _hear(self) -> None:
        """Answer the waves that were asked for meanwhile."""
        waves = [event for event in await self.emitted() if isinstance(event, CandidatesRequested)]
        for wave in waves[self.waves_seen :]:
            self._answer(wave.indices())
        self.waves_seen = len(waves)

    async def emitted(self) -> list[Event]:
        return await self.replicas[0].emitted(self.request)

    async def run(self) -> None:
        for _ in range(self.dice.choice([6, 14])):
            await self.step()
        self.cuts = self.loss = 0
        for _ in range(60):
            while self.waiting:
                await self._tell(self.waiting.pop(self.dice.randrange(len(self.waiting))))
            await self._hear()
            if not self.waiting:
                break
        desk = self.replicas[0]
        await desk.age(self.request, TTL_S + 1)
        for replica in self.replicas:
            await replica.sweeper.sweep()
        await desk.tell(self.request.cancel("expired", complete=True))

    async def check(self) -> None:
        asked, events = self.request.cleared_request, await self.emitted()
        ends = [place for place, event in enumerate(events) if isinstance(event, RequestClosed)]
        assert len(ends) == 1, f"{len(ends)} closings"
        closed: Any = events[ends[0]]
        assert not any(isinstance(event, ImageApproved | CandidatesRequested) for event in events[ends[0] + 1 :])
        approvals = [event for event in events if isinstance(event, ImageApproved)]
        assert len({approval.asset_id for approval in approvals}) == len(approvals) <= asked.wanted
        assert {one.asset_id for one in closed.assets} == {one.asset_id for one in approvals}
        assert closed.approved == len(approvals)
        assert all(approval.image.sha256 in self.passing for approval in approvals)
        for approval in approvals:
            for ref in (approval.image, *approval.derivatives):
                assert await self.replicas[0].blobs.get(ref)
        assert closed.outcome != "approved" or len(approvals) == asked.wanted
        assert closed.outcome not in ("failed", "refused", "expired") or not approvals
        images = {event.index for event in self.sent if isinstance(event, ImageGenerated)}
        assert len(images) <= asked.max_candidates
        if self.budget is not None:
            assert sum(self.paid.values()) <= self.budget
            assert closed.cost_usd <= self.budget
        if closed.policy_version:
            assert closed.cost_usd >= sum(self.paid.values())
        if closed.cost_final:
            assert closed.cost_usd == sum(self._told().values())

    def _told(self) -> dict[int, Decimal]:
        """The largest sum that any event, stalls included, ever reported of each candidate."""
        found = dict(self.paid)
        for event in self.sent:
            if isinstance(event, ImageStalled) and event.dead_class != "invalid" and event.paid_usd is not None:
                index = event.source.offset
                found[index] = max(found.get(index, Decimal(0)), event.paid_usd)
        return found


async def test_no_history_breaks_an_invariant(database: str) -> None:
    """Hundreds of histories, forty at a time on two replicas; a failure names its seed."""
    blobs = MemoryBlobs()
    async with desk(database, blobs) as one, desk(database, blobs) as two:
        for first in range(0, SEEDS, TOGETHER):
            histories = [History(seed, (one, two)) for seed in range(first, first + TOGETHER)]
            await asyncio.gather(*(history.run() for history in histories))
            for history in histories:
                try:
                    await history.check()
                except AssertionError as error:
                    raise AssertionError(f"seed {history.seed}: {error}") from error
