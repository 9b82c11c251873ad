"""The ledger of paid calls and the caps on a day's spending: what is written before a provider is asked, when it tells
its job, and when a call has ended. All amounts in US dollars; days are the database's, UTC.

Claims ends calls in the transactions that end claims; everybody locks a claim first, then its calls, then spending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from giclee.bus import database, failpoints, telemetry
from giclee.bus.database import Connection, Pool
from giclee.bus.errors import Transient
from giclee.gpu_worker.bill import LOST, CallEnd, Job, call_key
from giclee.gpu_worker.claim import Claim, Row, row_of
from giclee.gpu_worker.outcome import Key, hop_of
from giclee.gpu_worker.provider import Capabilities, NotMade
from giclee.schemas import spend_caps
from giclee.schemas.events import ImageRouted
from giclee.schemas.parts import usd_text
from giclee.schemas.spend_caps import Cap

DIFFERENCE_MAX = Decimal("0.1")
FORGET_DAYS = 400
"""As long as ids of requests are remembered; an invoice comes within months."""

log = telemetry.logger(__name__)
queries = database.Queries(Path(__file__).with_name("ledger.sql"))

STATES = ("open", "lost", "again", "untold", "differs")
"""Of calls, for people: it has not ended; nobody heard of it, so its price counts; it was paid a second time; its
provider did not say what it cost; it cost other than expected."""

Ends = Sequence[tuple[Key, CallEnd]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsAsked:
    """Which calls somebody wants to see; None: any. `since` has a zone."""

    since: datetime
    provider: str | None = None
    request_id: UUID | None = None
    candidate_id: UUID | None = None
    state: str | None = None
    limit: int


class FenceLost(Transient):
    """Another owner has the claim: whoever works under the old fence gives up without telling anything."""


class _NotTaken(Exception):
    """A call must not be made; the transaction that would have begun it is rolled back."""

    def __init__(self, answer: NotMade) -> None:
        super().__init__(answer.message)
        self.answer = answer


class Ledger:
    """The paid calls of one worker process. `providers` are those that bill. Errors of all: Transient, Poison."""

    def __init__(
        self,
        pool: Pool,
        providers: Mapping[str, Capabilities] | None = None,
        caps: Sequence[Cap] = (),
        *,
        difference_max: Decimal = DIFFERENCE_MAX,
    ) -> None:
        self._pool, self._providers, self._caps = pool, providers or {}, caps
        self._difference_max = difference_max

    # ---- before and while a provider is asked ---------------------------------------------------

    async def begin(self, routed: ImageRouted, claim: Claim) -> NotMade | None:
        """Write that a call is about to be made, once a fence; its price is at risk and set aside from then on.

        None, or why the hop is not taken: the candidate's limit or a spend cap. Errors: FenceLost.
        """
        if not claim.begun:
            with database.translated():
                await failpoints.reach("before-call-commit")
                try:
                    async with self._pool.acquire() as connection, connection.transaction():
                        claim.row, claim.over_cap = await self._begin(connection, routed, claim.row)
                except _NotTaken as why:
                    if why.answer.code == "spend_cap":
                        telemetry.count("giclee_spend_refused_total", provider=hop_of(routed).provider)
                    return why.answer
                await failpoints.reach("after-call-commit")
            claim.begun = True
        if claim.job_id is not None:  # told before, and not stored then
            await self.note(routed, claim, claim.job_id)
        return None

    def why_not_again(self, claim: Claim) -> NotMade | None:
        """Why no other job may be paid for beside the one that the claim knows: its limit, or a cap; None: it may."""
        return _over_limit(claim.row, claim.row.price_usd) or claim.over_cap

    async def _begin(self, connection: Connection, routed: ImageRouted, row: Row) -> tuple[Row, NotMade | None]:
        """The claim, and why a cap has no room for its price; who asks after a job is let through all the same."""
        hop = hop_of(routed)
        found = await connection.fetchrow(queries.begin_call, *row.key, row.fence)
        if found is None:
            raise FenceLost("the claim has another owner", scope="record")
        row, day, price = row_of(found), found["day"], found["at_risk_usd"]
        over_limit, over_cap = _over_limit(row, price), None
        if over_limit is not None and row.job is None:
            raise _NotTaken(over_limit)
        if price:
            caps = spend_caps.fitting(self._caps, hop.provider, routed.tenant)
            over_cap = await self._reserve(connection, day, caps, price, anyway=row.job is not None)
        new = price > 0 and row.job is None and not self._providers[hop.provider].idempotency_key
        about = (routed.tenant, routed.request_id, hop.provider, hop.model.name, call_key(*row.key))
        added = await connection.fetchrow(queries.add_call, *row.key, row.fence, *about, day, price, new)
        if added is None and price:  # this fence had begun, and the answer was lost
            await self._settle(connection, [(day, hop.provider, routed.tenant, price, Decimal(0))])
        return row, over_cap

    async def _reserve(
        self, connection: Connection, day: Any, caps: Sequence[Cap], price: Decimal, *, anyway: bool
    ) -> NotMade | None:
        """Set a price aside under all of its caps, or under none. `anyway`: also where one has no room, and say which;
        who only asks after a job pays nothing, and what is set aside for it is free again soon."""
        if not caps:
            return None
        keys = [cap.provider for cap in caps], [cap.tenant for cap in caps]
        await connection.execute(queries.open_spending, day, *keys)
        rows = await connection.fetch(queries.lock_spending, day, *keys)
        used = {(row["provider"], row["tenant"]): row["used_usd"] for row in rows}
        over = None
        for cap in caps:
            if used[cap.provider, cap.tenant] + price > cap.daily_usd:
                whose = f"{cap.provider or 'all providers'} for {cap.tenant or 'all tenants'}"
                message = (
                    f"{usd_text(price)} on top of {usd_text(used[cap.provider, cap.tenant])} is over today's cap of "
                    f"{usd_text(cap.daily_usd)} US dollars at {whose}"
                )
                over = over or NotMade(outcome="budget", message=message, code="spend_cap")
        if over is not None and not anyway:
            raise _NotTaken(over)
        await connection.execute(queries.reserve_spending, day, *keys, price)
        return over

    async def note(self, routed: ImageRouted, claim: Claim, job: str) -> None:
        """Store the provider's job the moment it is known. Errors: FenceLost; Transient, and then it is kept in memory
        and stored by the next `begin`."""
        claim.job_id = job
        row = claim.row
        if row.job is not None and row.job.id == job:
            return
        with database.translated():
            await failpoints.reach("before-job-commit")
            async with self._pool.acquire() as connection, connection.transaction():
                noted = await self._note(connection, hop_of(routed).provider, row, job)
            await failpoints.reach("after-job-commit")
        if noted is None:
            raise FenceLost("the claim has another owner; the ledger knows the job", scope="record")
        if row.job is not None:
            claim.replaced.append(row.job)
        claim.row = noted

    async def _note(self, connection: Connection, provider: str, row: Row, job: str) -> Row | None:
        here = (*row.key, row.fence)
        if not self._providers[provider].lookup:  # nobody could ask for it: what it costs stays the fence's
            await connection.execute(queries.name_call, *here, job)
            return row
        found = await connection.fetchrow(queries.note_job, *here, job)
        await connection.execute(queries.name_call, *here, job)
        if found is None:
            return None
        if row.job is not None and not found["known"]:
            await self._paid_again(connection, row, row.job, found["job_usd"])
        return row_of(found)

    async def _paid_again(self, connection: Connection, row: Row, lost: Job, price: Decimal) -> None:
        """The fence made a second job, since the stored one could not be found."""
        mine = lost.fence == row.fence
        if not mine:
            await self.end(connection, [(row.key, CallEnd(lost.fence, LOST, None, lost.usd))])
        more = Decimal(0) if row.at_risk_usd else price  # set aside before it was asked for, or not
        kept = lost.usd if mine else Decimal(0)
        call = await connection.fetchrow(queries.pay_again, *row.key, row.fence, more, kept)
        if call is not None:
            await self._settle(connection, [(call["day"], call["provider"], call["tenant"], -more, Decimal(0))])

    # ---- when calls have ended ------------------------------------------------------------------

    async def end(self, connection: Connection, ends: Ends) -> list[Any]:
        """End calls in the transaction that ends their claims; the rows are for `tell`, after its commit."""
        if not ends:
            return []
        rows = [(*key, end.fence, end.outcome, end.actual_usd, end.paid_usd, end.again, end.job) for key, end in ends]
        ended = await connection.fetch(queries.end_calls, *(list(one) for one in zip(*rows, strict=True)))
        await self._settle(
            connection,
            [(row["day"], row["provider"], row["tenant"], row["freed_usd"], row["spent_usd"]) for row in ended],
        )
        return ended

    async def lose(self, connection: Connection, keys: Sequence[Key], *, with_job: bool = False) -> list[Any]:
        """Nobody will hear of these claims' calls any more, those that a stored job leads to apart: they count."""
        if not keys:
            return []
        columns = [list(one) for one in zip(*keys, strict=True)]
        rows = await connection.fetch(queries.unheard_calls, *columns, with_job)
        lost = [((row["candidate_id"], row["hop"]), CallEnd(row["fence"], LOST, None, row["paid_usd"])) for row in rows]
        return await self.end(connection, lost)

    async def late(self, claim: Claim) -> None:
        """Book what a call cost that answered after its claim had moved on. Nothing is told of it."""
        bill = claim.bill
        if bill is None:
            return
        key, fence = claim.row.key, claim.row.fence
        log.warning("a paid call answered too late", candidate_id=str(key[0]), fence=fence, outcome=bill.outcome)
        with database.translated():
            await failpoints.reach("before-late-commit")
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(queries.lock_claim, *key)
                told = await connection.fetch(queries.late_call, *key, fence, bill.told_usd, bill.job)
                for row in told:
                    if row["spent_usd"]:
                        await connection.execute(queries.add_late_cost, *key, row["spent_usd"])
                    where = (row["day"], row["provider"], row["tenant"])
                    await self._settle(connection, [(*where, Decimal(0), row["spent_usd"])])
            await failpoints.reach("after-late-commit")
        claim.bill = None
        self.tell(told)

    def tell(self, ended: Sequence[Any]) -> None:
        """Count what ended calls cost, and say where that is not what was expected."""
        for row in ended:
            if row["again"] and row["counted_usd"] > 0 and row["freed_usd"] > 0:  # when it ends for the first time
                telemetry.count("giclee_paid_again_total", provider=row["provider"])
            expected, actual = row["expected_usd"], row["actual_usd"]
            if actual is None or (row["outcome"] != "made" and actual == 0):
                continue
            labels = {"provider": row["provider"], "model": row["model"]}
            ratio = float((actual - expected) / expected) if expected else float(actual > 0)
            telemetry.gauge("giclee_price_difference_ratio", ratio, **labels)
            if abs(actual - expected) > expected * self._difference_max:
                telemetry.count("giclee_price_differences_total", **labels)
                log.warning("a call cost other than expected", expected=str(expected), actual=str(actual), **labels)

    async def _settle(self, connection: Connection, changes: Sequence[tuple[Any, ...]]) -> None:
        changed = [one for one in changes if one[3] or one[4]]
        if changed:
            await connection.execute(queries.settle_spending, *(list(one) for one in zip(*changed, strict=True)))

    # ---- for people -----------------------------------------------------------------------------

    async def standing(self, asked: CallsAsked) -> tuple[list[Any], list[Any]]:
        """What all calls since then cost by day, provider and tenant, and those that were asked for, newest first."""
        since = asked.since, asked.provider
        which = asked.request_id, asked.candidate_id, asked.state
        with database.translated():
            spent = await self._pool.fetch(queries.spent_by_day, *since)
            return spent, await self._pool.fetch(queries.list_calls, *since, *which, self._difference_max, asked.limit)

    async def forget(self) -> None:
        """Delete what no invoice will name any more."""
        with database.translated():
            await self._pool.execute(queries.forget_calls, FORGET_DAYS)
            await self._pool.execute(queries.forget_spending, FORGET_DAYS)


def _over_limit(row: Row, price: Decimal) -> NotMade | None:
    """Why a price does not fit what the candidate may still cost; None where it does."""
    if row.spent_usd + price <= row.limit_usd:
        return None
    message = f"{price} after {row.spent_usd} is over the limit of {row.limit_usd} US dollars"
    return NotMade(outcome="budget", message=message, code="limit")
