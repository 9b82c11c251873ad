"""The clock: wakes orders whose time has come, by the database's time; late candidates, repeats, hedges, expiry, and
verdicts of people that can no longer be undone.

What to do with an order is the funnel's matter; the sweeper only looks again, and seals passers that nobody
sealed. One order that cannot be decided delays no other. Any number of replicas may sweep.
"""

from __future__ import annotations

import asyncio
import random

from giclee.bus import telemetry
from giclee.bus.errors import Poison, Transient
from giclee.publisher.facts import unfit_fact
from giclee.publisher.plan import Key
from giclee.publisher.seal import Sealer
from giclee.publisher.store import Lesson, Store

TOGETHER_MAX = 100
"""Orders taken at once."""
FORGET_EVERY_ROUNDS = 600
SHOW_EVERY_ROUNDS = 8

log = telemetry.logger(__name__)


class Sweeper:
    """Runs for as long as the service; `interval_s` is the pause between two empty rounds."""

    def __init__(self, store: Store, sealer: Sealer, interval_s: float) -> None:
        self._store = store
        self._sealer = sealer
        self._interval_s = interval_s

    async def run(self) -> None:
        """Sweep until cancelled. An outage is waited out."""
        rounds = 0
        while True:
            taken = 0
            try:
                taken = await self.sweep()
                if rounds % FORGET_EVERY_ROUNDS == 0:
                    await self._store.forget_unclaimed()
                if rounds % SHOW_EVERY_ROUNDS == 0:
                    await self._store.reviews.show()
                rounds += 1
            except Transient as error:
                log.warning("the sweeper waits for an outage", error=str(error))
            if taken < TOGETHER_MAX:
                await asyncio.sleep(self._interval_s * random.uniform(0.8, 1.2))

    async def sweep(self) -> int:
        """One round; returns how many orders were looked at. Errors: Transient when the database is away."""
        due = await self._store.claim_due(TOGETHER_MAX)
        due += [key for key in await self._store.reviews.claim_effective(TOGETHER_MAX) if key not in due]
        looks = [asyncio.create_task(self._look(key)) for key in due]
        if looks:
            await asyncio.wait(looks)
        for (tenant, request_id), look in zip(due, looks, strict=True):
            if error := look.exception():  # its alarm was put off when it was claimed: it will be tried again
                log.error("an order cannot be decided", tenant=tenant, request_id=str(request_id), exc_info=error)
        return len(due)

    async def _look(self, key: Key) -> None:
        """Decide an order again, and seal what is left over."""
        tenant, request_id = key
        known = await self._store.learn(Lesson(tenant=tenant, request_id=request_id))
        if known is None:
            return
        for index in known.to_seal:
            try:
                fact = await self._sealer.seal(known.order, index)
            except (Poison, Transient) as error:
                if isinstance(error, Transient) and error.scope == "dependency":
                    raise
                fact = unfit_fact(index, str(error))
            await self._store.learn(Lesson(tenant=tenant, request_id=request_id, facts=[fact]))
