"""Who works on which candidate: leases, fences, ended requests, and all SQL of the service.

A claim is stored before anything is paid for, holds the record that opened it, and ends by compare-and-set
on its fence. Database time decides who vanished. Claims that this process works on are also kept in
memory, so that a retried delivery goes on where it was instead of paying twice.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson

from giclee.bus import database, failpoints, outbox, telemetry
from giclee.bus.database import Pool
from giclee.bus.gather import Gathered
from giclee.bus.stage import Burial
from giclee.gpu_worker.claim import Claim, Row, Standing, record_of, row_of
from giclee.gpu_worker.ledger import Ledger
from giclee.gpu_worker.outcome import Decision, Key, attempt_of, hop_of, key_of
from giclee.schemas.events import ImageRouted
from giclee.schemas.models import OWN_PROVIDERS

SCHEMA = "gpu_worker"
LEASE_S = 30.0
RENEW_S = 10.0
PARKED_MAX_S = 30.0
"""How long a claim outlives its handler in this process while the bus waits to try the record again, twice the bus'
longest pause. After a rebalance it waits for nothing: the record goes to another process, which sees a live claim."""
UNACKNOWLEDGED_S = 15.0
"""Age at which a finished claim's event is sent again; a broker that is well acknowledges within one second."""
FORGET_DAYS = 45
TOGETHER_MAX = 200
"""Claims in one statement; more would make the first of them wait for the last."""
_ANSWERS_MAX = 20_000

queries = database.Queries(Path(__file__).with_name("queries.sql"))


class Claims:
    """The claims of one worker process of one pool; its paid calls are in `ledger`. Errors of every method: Transient,
    Poison.

    `place` is what only one process at a time can hold, a port of this host: who holds it now knows that whoever
    claimed from there before has ended, and takes over without waiting for leases.
    """

    def __init__(
        self,
        pool: Pool,
        worker_pool: str,
        *,
        lease_s: float = LEASE_S,
        place: str | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.pool_name, self.lease_s, self.ledger = worker_pool, lease_s, ledger or Ledger(pool)
        self._here = f"{socket.gethostname()}:{place}:" if place else ""
        self.owner = f"{self._here or socket.gethostname() + ':'}{os.getpid()}:{uuid4().hex[:8]}"
        self.in_hand: dict[Key, Claim] = {}
        self._pool = pool
        self._opening: dict[Key, asyncio.Event] = {}
        self._answered: OrderedDict[tuple[Key, str], int] = OrderedDict()
        self._new = Gathered(self._claim_all, TOGETHER_MAX)  # what is asked while a statement runs shares the next
        self._finished = Gathered(self._finish_all, TOGETHER_MAX)
        self._ended = Gathered(self._end_all, TOGETHER_MAX)

    # ---- opening --------------------------------------------------------------------------------

    async def end(self, tenant: str, request_id: UUID) -> None:
        """The request is over: nothing of it is claimed, taken over or opened again from now on."""
        await self._ended((tenant, request_id))

    async def _end_all(self, ended: Sequence[tuple[str, UUID]]) -> Sequence[None]:
        with database.translated():
            await self._pool.execute(queries.end_requests, *_columns(sorted(set(ended))))
        return [None] * len(ended)

    async def open(self, routed: ImageRouted) -> Claim | Row | Standing:
        """Claim a candidate's hop: ours to work on, finished with a row, or nothing to do.

        A record that a rebalance brings back while a handler here still has it waits for that handler.
        """
        key = key_of(routed)
        while (busy := self._busy(key)) is not None:
            await busy.wait()
        mine = self.in_hand.get(key)
        if mine is not None and not mine.lost:
            return mine
        opened = self._opening[key] = asyncio.Event()
        try:
            return await self._open(routed)
        finally:
            del self._opening[key]
            opened.set()

    def _busy(self, key: Key) -> asyncio.Event | None:
        """What to wait for while another task of this process opens or works on the same claim."""
        mine = self.in_hand.get(key)
        return self._opening.get(key) or (mine.idle if mine is not None and mine.working else None)

    async def _open(self, routed: ImageRouted) -> Claim | Row | Standing:
        key = key_of(routed)
        made = await self._new(routed)
        if made is not None:
            return made
        with database.translated():
            row = await self._row(queries.read_claim, *key)
            if row is None:
                return Standing.ENDED
            if row.state == "live":
                mine = self.in_hand.get(key)
                if mine is not None and not mine.lost and mine.row.fence == row.fence:
                    return mine  # who asked before was cut off while the statement ran
                free = await self._moved_on(queries.take_held, *key, self.owner, self.lease_s)
                return self._take(free[0]) if free else Standing.ELSEWHERE
            if row.outcome in ("exhausted", "dead") and routed.envelope.replay_for is not None:
                return await self._again(routed, row)
            return row

    async def _claim_all(self, asked: Sequence[ImageRouted]) -> list[Claim | None]:
        """Ours where nobody had claimed; in hand at once, since whoever asked may have been cancelled meanwhile."""
        rows = []
        for routed in asked:
            origin, key, value, headers, recorded_ms = record_of(routed)
            about = (*key_of(routed), routed.tenant, routed.request_id)
            hop = hop_of(routed)
            money = (routed.spent_usd, hop.price_usd, routed.limit_usd, hop.provider not in OWN_PROVIDERS)
            rows.append((*about, *money, origin, key, value, orjson.dumps(headers).decode(), recorded_ms))
        with database.translated():
            await failpoints.reach("before-claim-commit")
            mine = (self.pool_name, self.owner, self.lease_s)
            found = await self._pool.fetch(queries.open_claims, *mine, *_columns(rows))
            await failpoints.reach("after-claim-commit")
        made = {row.key: self._take(row) for row in map(row_of, found)}
        return [made.pop(key_of(routed), None) for routed in asked]

    async def _again(self, routed: ImageRouted, row: Row) -> Claim | Row | Standing:
        """A replay of a claim that ended in a dead letter."""
        key, record = key_of(routed), record_of(routed)
        opened = await self._row(queries.reopen_claim, *key, self.owner, self.lease_s, *record)
        if opened is not None:
            return self._take(opened)
        if row.record.origin() == record[0]:  # the very record that opened it, delivered once more
            return row
        settled = await self._row(queries.settle_dead, *key, "ended")
        return settled or await self._row(queries.read_claim, *key) or Standing.ENDED

    async def discard(self, routed: ImageRouted) -> Row | Standing:
        """An operator gave the record up: a dead or unclaimed candidate fails for good, any other is left alone."""
        key, hop = key_of(routed), hop_of(routed)
        with database.translated():
            made = await self._row(
                queries.discard_unclaimed,
                *(*key, routed.tenant, routed.request_id, self.pool_name, self.owner),
                *(routed.spent_usd, hop.price_usd, routed.limit_usd),
                *record_of(routed),
            )
            made = made or await self._row(queries.settle_dead, *key, "discarded")
            row = made or await self._row(queries.read_claim, *key)
        return Standing.ELSEWHERE if row is None or row.state == "live" else row

    # ---- ending ---------------------------------------------------------------------------------

    async def finish(self, routed: ImageRouted, claim: Claim, decision: Decision) -> Row | None:
        """Store what the fence came to. None when the fence moved on: someone else decides.

        A dead letter emits nothing of its handler, so its attempt leaves through the outbox. What a paid call cost is
        booked either way.
        """
        row = await self._finished((routed, claim, decision))
        with database.translated():
            if row is None:  # ours all the same if the answer to an earlier try was lost
                row = await self._row(queries.read_claim, *claim.row.key)
                row = row if row is not None and (row.state, row.fence) == ("done", claim.row.fence) else None
        if row is None:
            await self.ledger.late(claim)
        self.drop(claim)
        telemetry.count("giclee_claims_total", pool=self.pool_name, outcome=decision.outcome if row else "fenced")
        return row

    async def _finish_all(self, asked: Sequence[tuple[ImageRouted, Claim, Decision]]) -> list[Row | None]:
        sums = [claim.settled(end.paid_usd) for _, claim, end in asked]
        ends = [
            (*claim.row.key, claim.row.fence, end.outcome, end.detail, settled.paid_usd, settled.job_usd)
            for (_, claim, end), settled in zip(asked, sums, strict=True)
        ]
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                found = await connection.fetch(queries.finish_claims, *_columns(ends))
                rows = {row.key: row for row in map(row_of, found)}
                done = [(routed, rows.get(claim.row.key)) for routed, claim, _ in asked]
                await outbox.put_caused(
                    connection,
                    SCHEMA,
                    [
                        (attempt, routed.envelope)
                        for routed, row in done
                        if row is not None and row.outcome == "exhausted" and (attempt := attempt_of(routed, row))
                    ],
                )
                ended = [(one[1].row.key, settled.ends) for one, settled in zip(asked, sums, strict=True)]
                calls = [(key, call) for key, ends in ended for call in ends if key in rows]
                told = await self.ledger.end(connection, calls)
                await failpoints.reach("before-finish-commit")
            self.ledger.tell(told)
            await failpoints.reach("after-finish-commit")
        return [row for _, row in done]

    async def bury(self, routed: ImageRouted, dead_class: str, message: str) -> Burial:
        """End the claim of a record that is about to become a dead letter, and say whose identity that one has."""
        key = key_of(routed)
        mine = self.in_hand.get(key)
        with database.translated():
            row = None
            if mine is not None:
                detail = {"class": dead_class, "message": message}
                buried = await self._moved_on(queries.bury_claim, *key, mine.row.fence, detail, with_job=True)
                row = buried[0] if buried else None
                self.drop(mine)
            row = row or await self._row(queries.read_claim, *key)
        if row is None:
            return Burial(paid_usd=routed.spent_usd)
        if row.state == "live" or (mine is not None and row.fence != mine.row.fence):
            return Burial(wanted=False)
        self.answering(routed, row)
        return Burial(origin=row.record.origin(), paid_usd=row.spent_usd)

    def answering(self, routed: ImageRouted, row: Row) -> None:
        """Remember which fence's events a delivery tells; only those may be marked when it is settled."""
        self._answered[key_of(routed), routed.envelope.origin] = row.fence
        while len(self._answered) > _ANSWERS_MAX:
            self._answered.popitem(last=False)

    async def acknowledged(self, events: Iterable[ImageRouted]) -> None:
        """The broker has everything these deliveries told."""
        places = [(key_of(event), event.envelope.origin) for event in events]
        rows = [(*place[0], self._answered.pop(place)) for place in places if place in self._answered]
        if rows:
            with database.translated():
                await self._pool.execute(queries.acknowledge, *_columns(rows))

    # ---- what the sweeper does ------------------------------------------------------------------

    async def renew(self) -> None:
        """Keep the leases of what is worked on here, or waits for another try; let go of what waits too long."""
        now = time.monotonic()
        for claim in [one for one in self.in_hand.values() if not one.working and now - one.parked_at > PARKED_MAX_S]:
            await self.give_back(claim, held=False)
            await self.ledger.late(claim)
        mine = list(self.in_hand.values())
        if not mine:
            return
        columns = zip(*((*claim.row.key, claim.row.fence) for claim in mine), strict=True)
        with database.translated():
            await failpoints.reach("before-renew-commit")
            kept = await self._pool.fetch(queries.renew_leases, *(list(one) for one in columns), self.lease_s)
            await failpoints.reach("after-renew-commit")
        still = {(row["candidate_id"], row["hop"]) for row in kept}
        for claim in mine:
            claim.lost = claim.lost or claim.row.key not in still

    async def take_over(self, limit: int) -> list[Claim]:
        """Claims whose owner vanished, ours from now on; their records are to be handled again."""
        with database.translated():
            await failpoints.reach("before-takeover-commit")
            mine = (self.owner, self.lease_s, self._here)
            found = await self._moved_on(queries.take_over, self.pool_name, limit, *mine)
            await failpoints.reach("after-takeover-commit")
        for row in found:
            stale = self.in_hand.get(row.key)
            if stale is not None:
                stale.lost = True
                self.drop(stale)
                await self.ledger.late(stale)
        telemetry.count("giclee_claims_taken_over_total", len(found), pool=self.pool_name)
        return [self._take(row) for row in found]

    async def to_tell(self, limit: int, quiet_s: float = UNACKNOWLEDGED_S) -> list[Row]:
        """Finished claims whose events nobody acknowledged, and vanished ones of ended requests, finished now."""
        with database.translated():
            over = await self._moved_on(queries.end_expired, self.pool_name, limit, self.owner, with_job=True)
            quiet = await self._pool.fetch(queries.unacknowledged, self.pool_name, limit, quiet_s)
        found = {row.key: row for row in [*over, *map(row_of, quiet)]}
        return list(found.values())

    async def give_back(self, claim: Claim, *, held: bool) -> None:
        """Leave a claim that this process did not get to; what its job may have cost stays at risk.

        `held`: its record waits in the held topic and will bring it back, so the sweeper leaves it alone.
        """
        self.drop(claim)
        query = queries.leave_held if held else queries.give_back
        with database.translated():
            kept = (
                claim.row.billed or claim.job is not None
            )  # a call is at risk from its beginning on, which may be now
            await self._pool.execute(query, *claim.row.key, claim.row.fence, kept)

    async def standing(self, keys: Sequence[Key]) -> dict[Key, Any]:
        """How claims stand, for whoever thinks of opening one again: state, outcome, ended, spent_usd, limit_usd."""
        with database.translated():
            rows = await self._pool.fetch(queries.standing, *_columns(keys)) if keys else []
        return {(row["candidate_id"], row["hop"]): row for row in rows}

    async def forget(self) -> None:
        """Delete what no record can ask for any more."""
        with database.translated():
            await self._pool.execute(queries.forget_claims, FORGET_DAYS)
            await self._pool.execute(queries.forget_ended, FORGET_DAYS)
        await self.ledger.forget()

    # ---- rows and hands -------------------------------------------------------------------------

    def drop(self, claim: Claim) -> None:
        """Out of this process' hands; whoever waits for it looks again."""
        if self.in_hand.get(claim.row.key) is claim:
            del self.in_hand[claim.row.key]
        claim.idle.set()

    def _take(self, row: Row) -> Claim:
        claim = self.in_hand[row.key] = Claim(row, job_id=row.job.id if row.job else None)
        return claim

    async def _moved_on(self, query: str, *values: object, with_job: bool = False) -> list[Row]:
        """Claims that a statement moved from their fence; what their calls may have cost counts from then on."""
        async with self._pool.acquire() as connection, connection.transaction():
            rows = [row_of(one) for one in await connection.fetch(query, *values)]
            lost = await self.ledger.lose(connection, [row.key for row in rows if row.billed], with_job=with_job)
        self.ledger.tell(lost)
        return rows

    async def _row(self, query: str, *values: object) -> Row | None:
        found = await self._pool.fetchrow(query, *values)
        return None if found is None else row_of(found)


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows as the arrays that unnest takes."""
    return [list(column) for column in zip(*rows, strict=True)]
