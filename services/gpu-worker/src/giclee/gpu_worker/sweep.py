"""The clock of the claims: renews leases, takes over what vanished, tells again what nobody acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from giclee.bus import telemetry
from giclee.bus.errors import Transient
from giclee.bus.transport import Record
from giclee.gpu_worker.claim import Claim
from giclee.gpu_worker.claims import RENEW_S, Claims

SWEEP_S = 5.0
FORGET_S = 3600.0
AT_ONCE = 16
"""Claims looked at in one sweep: about what a worker handles at once."""

log = telemetry.logger(__name__)

Submit = Callable[[Record], Awaitable[None]]


class Sweeper:
    """Background work of one worker. `submit` runs a stored record through the stage's layers."""

    def __init__(self, claims: Claims, submit: Submit) -> None:
        self.claims, self.submit = claims, submit

    async def renew(self) -> None:
        """Keep leases until cancelled. A database that is away costs leases, not the process."""
        await _every(RENEW_S, self.claims.renew)

    async def sweep(self) -> None:
        """Take over and tell again until cancelled."""
        await _every(SWEEP_S, self.once)

    async def forget(self) -> None:
        """Delete what is too old, until cancelled."""
        await _every(FORGET_S, self.claims.forget)

    async def once(self) -> None:
        """One sweep; what this process still works on is kept first. Errors: Transient."""
        await self.claims.renew()
        taken = await self.claims.take_over(AT_ONCE)
        quiet = await self.claims.to_tell(AT_ONCE)
        if taken or quiet:
            log.info("swept", taken_over=len(taken), told_again=len(quiet), pool=self.claims.pool_name)
        work = [self._again(claim) for claim in taken] + [self.submit(row.record) for row in quiet]
        for failed in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(failed, Exception):
                log.warning("a swept claim waits for the next sweep", error=str(failed))

    async def _again(self, claim: Claim) -> None:
        """Handle a claim's record again; what no handler finished (a hold, a stop) is given back."""
        held = False
        try:
            await self.submit(claim.row.record)
            held = True  # if it is still here: no handler saw it
        finally:
            if self.claims.in_hand.get(claim.row.key) is claim and not claim.working:
                await self.claims.give_back(claim, held=held)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Transient as error:
            log.warning("the database is away", error=str(error))
        await asyncio.sleep(seconds)
