"""Orders, facts and assets in Postgres: facts stored, orders locked, decided and written in one transaction.

Handlers ask one at a time; what is asked while a transaction runs shares the next one. All times are the
database's. SQL is in queries.sql.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from giclee.bus import database, failpoints, outbox
from giclee.bus.errors import Transient
from giclee.bus.gather import Gathered
from giclee.publisher import announce, likeness
from giclee.publisher.closing import STAGE, Evidence, Terms, asset_of, events_of
from giclee.publisher.facts import Fact, copy_fact
from giclee.publisher.funnel import CANCELS_KEPT, decide, facts_of_decision, wake_at
from giclee.publisher.order import Order
from giclee.publisher.plan import Key, Plan, Row, compared
from giclee.publisher.rates import Counts, Rates
from giclee.publisher.review_queue import Effect, ReviewQueue
from giclee.publisher.standing import Outlook, Pace
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import Event, ImageApproved, ReviewRequested

TOGETHER_MAX = 256
"""Events in one transaction; more would make the first of them wait for the last."""

LINGER_S = 0.002
"""How long the first event of a transaction waits for company; the transaction itself takes longer."""

CLAIM_S = 60.0
"""How long an order that the sweeper took stays out of other sweepers' sight."""

RATES_KEPT = 500.0
"""Candidates of a kind that its pass rate is made of; earlier ones fade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Facts about one request and the event that taught them; no facts means: look at the order again, and at what
    people said about it although it has ended."""

    tenant: str
    request_id: uuid.UUID
    facts: Sequence[Fact] = ()
    cause: Envelope | None = None

    @property
    def key(self) -> Key:
        return self.tenant, self.request_id


@dataclass(frozen=True, slots=True)
class Known:
    """An open order after its decision, and the passers that an ending waits for."""

    order: Order
    to_seal: tuple[int, ...]


class Store:
    """All that the publisher keeps. Errors of every method: Transient and Poison, as `database.translated` says."""

    def __init__(self, pool: database.Pool, pace: Pace, public_url: str) -> None:
        self._pool = pool
        self._pace = pace
        self._terms = Terms(public_url, pace.review_due_s)
        self.rates = Rates()
        self.reviews = ReviewQueue(pool)
        self._queries = database.Queries(Path(__file__).with_name("queries.sql"))
        self.learn = Gathered(self._learn_all, TOGETHER_MAX, linger_s=LINGER_S)

    async def check(self) -> None:
        """For /readyz."""
        await database.ping(self._pool)

    # ---- deciding

    async def _learn_all(self, lessons: Sequence[Lesson]) -> list[Known | None]:
        """Store what was learned and decide every order it is about. None for one that has ended."""
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                rows = await self._lock(connection, sorted({lesson.key for lesson in lessons}))
                told = [(rows[lesson.key].id, fact) for lesson in lessons for fact in lesson.facts]
                await self._store(connection, told)
                causes = {lesson.key: lesson.cause for lesson in lessons}
                open_rows = [row for row in rows.values() if not row.closed]
                plans, emitted, effects = await self._decide(connection, open_rows, causes)
                ended = [rows[one.key].id for one in lessons if not one.facts and rows[one.key].closed]
                effects += await self._take_effect(connection, ended)
                await failpoints.reach("before-decision-commit")
        await failpoints.reach("after-decision-commit")
        announce.decided(emitted)
        announce.reviewed(effects)
        for plan in plans:
            if plan.decision.ending:
                self.rates.note(plan.order)
        known = {
            plan.row.key: None if plan.decision.ending else Known(plan.after, plan.decision.seal) for plan in plans
        }
        return [known.get(lesson.key) for lesson in lessons]

    async def _lock(self, connection: database.Connection, keys: Sequence[Key]) -> dict[Key, Row]:
        """The rows of these requests, locked; those of unheard ones are opened."""
        found = await self._locked(connection, keys)
        if missing := [key for key in keys if key not in found]:
            await connection.execute(self._queries.open_orders, *_columns(missing, 2))
            found |= await self._locked(connection, missing)
        return found

    async def _locked(self, connection: database.Connection, keys: Sequence[Key]) -> dict[Key, Row]:
        rows = await connection.fetch(self._queries.lock_orders, *_columns(keys, 2))
        return {
            (row["tenant"], row["request_id"]): Row(
                row["id"], (row["tenant"], row["request_id"]), row["wake_at"], row["closed"]
            )
            for row in rows
        }

    async def _store(self, connection: database.Connection, told: Sequence[tuple[int, Fact]]) -> None:
        if told:
            rows = [(id_, f.kind, f.name, orjson.dumps(dict(f.says)).decode(), f.evidence) for id_, f in told]
            await connection.execute(self._queries.store_facts, *_columns(rows, 5))

    async def _decide(
        self, connection: database.Connection, rows: Sequence[Row], causes: Mapping[Key, Envelope | None]
    ) -> tuple[list[Plan], list[Event], list[Effect]]:
        """Decide these locked orders and write everything that follows."""
        if not rows:
            return [], [], []
        facts: dict[int, list[Fact]] = {row.id: [] for row in rows}
        for stored in await connection.fetch(self._queries.read_facts, list(facts)):
            facts[stored["order_id"]].append(_fact(stored))
        effects = await self._take_effect(connection, [id_ for id_, known in facts.items() if _ask_people(known)])
        now: datetime = await connection.fetchval("SELECT clock_timestamp()")
        for effect in effects:
            facts[effect.order_id].append(replace(effect.fact, at=now))
        plans = {row.id: self._plan(row, facts[row.id], now) for row in rows}
        await self._leave_out_copies(connection, plans, facts, now)
        decided = list(plans.values())
        emitted = await self._publish(connection, [p for p in decided if not p.decision.is_empty()], causes, now)
        await self._store(connection, [(plan.row.id, fact) for plan in decided for fact in plan.own])
        await self._set_alarms(connection, decided, now)
        return decided, emitted, effects

    async def _take_effect(self, connection: database.Connection, orders: Sequence[int]) -> list[Effect]:
        """What people said becomes facts of these locked orders once it can no longer be undone (rule 18)."""
        effects = await self.reviews.take_effect(connection, orders)
        await self._store(connection, [(effect.order_id, effect.fact) for effect in effects])
        return effects

    async def _leave_out_copies(
        self, connection: database.Connection, plans: dict[int, Plan], facts: dict[int, list[Fact]], now: datetime
    ) -> None:
        """Plan again, without them, what would approve near-duplicates of what the tenant has approved before.

        The tenant's lock is held from here to the commit: of two orders with the same picture one sees the other's.
        """
        looked_at: set[tuple[int, int]] = set()
        known: defaultdict[str, dict[uuid.UUID, str]] = defaultdict(dict)
        while asked := [one for one in compared(plans.values()) if one[:2] not in looked_at]:
            tenants = sorted({plans[id_].row.key[0] for id_, _, _ in asked})
            await connection.execute(self._queries.lock_tenants, tenants)
            wanted = [part for id_, _, phash in asked for part in likeness.parts(plans[id_].row.key[0], phash)]
            for row in await connection.fetch(self._queries.near_fingerprints, wanted):
                known[row["tenant"]][row["asset_id"]] = row["phash"]
            for id_, index, phash in asked:
                plan = plans[id_]
                looked_at.add((id_, index))
                mine = asset_of(plan.order, index)
                others = {asset: other for asset, other in known[plan.row.key[0]].items() if asset != mine}
                if (of := likeness.nearest(phash, others)) is None:
                    known[plan.row.key[0]][mine] = phash
                    continue
                fact = copy_fact(index, of)
                await self._store(connection, [(id_, fact)])
                facts[id_].append(replace(fact, at=now))
                plans[id_] = self._plan(plan.row, facts[id_], now)

    def _plan(self, row: Row, facts: Sequence[Fact], now: datetime) -> Plan:
        order = Order.of(*row.key, facts)
        decision = decide(order, now, self._outlook())
        own = facts_of_decision(order, decision)
        after = Order.of(*row.key, [*facts, *(replace(fact, at=now) for fact in own)]) if own else order
        return Plan(row, order, decision, own, after)

    def _outlook(self) -> Outlook:
        return Outlook(self._pace, self.rates.beliefs)

    async def _publish(
        self,
        connection: database.Connection,
        plans: Sequence[Plan],
        causes: Mapping[Key, Envelope | None],
        now: datetime,
    ) -> list[Event]:
        """Assets, closings and outbox rows of one decision are one transaction (rule 6)."""
        if not plans:
            return []
        publishing = [plan.row.id for plan in plans if plan.decision.publishes()]
        asking = [plan.row.id for plan in plans if not plan.decision.publishes()]
        evidence: dict[int, list[Fact]] = {plan.row.id: [] for plan in plans}
        for stored in await connection.fetch(self._queries.read_evidence, publishing, asking):
            evidence[stored["order_id"]].append(_fact(stored))
        caused: list[tuple[Event, Envelope | None]] = []
        for plan in plans:
            known, cause = Evidence.of(evidence[plan.row.id]), causes.get(plan.row.key)
            events = events_of(plan.order, plan.decision, known, now, self._terms)
            caused += [(event, cause) for event in events]
        await outbox.put_caused(connection, STAGE, caused)
        emitted = [event for event, _ in caused]
        await self._add_assets(connection, [one for one in emitted if isinstance(one, ImageApproved)], now)
        await self._add_fingerprints(connection, plans)
        await self.reviews.add(connection, plans, [one for one in emitted if isinstance(one, ReviewRequested)])
        ended = [(plan.row.id, plan.decision.ending) for plan in plans if plan.decision.ending]
        if ended:
            status = await connection.execute(self._queries.close_orders, *_columns(ended, 2), now)
            if status != f"UPDATE {len(ended)}":  # the first to close wins; under the row lock that is always us
                raise Transient("an order was closed by somebody else meanwhile", scope="record")
        return emitted

    async def _add_assets(
        self, connection: database.Connection, approvals: Sequence[ImageApproved], now: datetime
    ) -> None:
        if approvals:
            rows = [
                (a.asset_id, a.tenant, a.request_id, a.candidate_id, a.version, a.model_dump_json(exclude_none=True))
                for a in approvals
            ]
            await connection.execute(self._queries.add_assets, *_columns(rows, 6), now)

    async def _add_fingerprints(self, connection: database.Connection, plans: Sequence[Plan]) -> None:
        rows = [
            (asset_of(plan.order, index), plan.row.key[0], score.phash)
            for plan in plans
            for index in plan.decision.approve
            if (score := plan.order.score_of(index)) is not None and score.phash is not None
        ]
        if rows:
            parts = [part for _, tenant, phash in rows for part in likeness.parts(tenant, phash)]
            await connection.execute(self._queries.add_fingerprints, *_columns(rows, 3), parts, likeness.PARTS)

    async def _set_alarms(self, connection: database.Connection, plans: Sequence[Plan], now: datetime) -> None:
        alarms = [
            (plan.row.id, at)
            for plan in plans
            if not plan.decision.ending and (at := wake_at(plan.after, now, self._outlook())) != plan.row.alarm
        ]
        if alarms:
            await connection.execute(self._queries.set_alarms, *_columns(alarms, 2))

    # ---- the clock

    async def claim_due(self, limit: int) -> list[Key]:
        """Orders whose time has come; whoever gets them has CLAIM_S seconds to look at them."""
        with database.translated():
            await failpoints.reach("before-sweep-commit")
            rows = await self._pool.fetch(self._queries.claim_due, limit, CLAIM_S)
            await failpoints.reach("after-sweep-commit")
        return [(row["tenant"], row["request_id"]) for row in rows]

    async def forget_unclaimed(self) -> None:
        """Drop cancels of requests that nobody ever heard of."""
        with database.translated():
            await self._pool.execute(self._queries.forget_unclaimed, CANCELS_KEPT.days)

    async def add_rates(self, fresh: Counts) -> Counts:
        """Add counts of candidates by kind, and give the sums of all replicas."""
        rows = [(*kind, *counts) for kind, counts in fresh.items()]
        with database.translated():
            if rows:
                await self._pool.execute(self._queries.add_rates, *_columns(rows, 5), RATES_KEPT)
            found = await self._pool.fetch(self._queries.read_rates)
        return {(row["asset_type"], row["quality"], row["model"]): (row["passes"], row["fails"]) for row in found}

    # ---- assets

    async def page_of_assets(
        self,
        tenant: str,
        *,
        status: str | None,
        updated_after: datetime | None,
        labels: Mapping[str, str],
        after: tuple[datetime, uuid.UUID] | None,
        limit: int,
        request_id: uuid.UUID | None = None,
    ) -> list[asyncpg.Record]:
        """Rows (asset_id, document, updated_at), oldest change first; `after` is the last row of the page before."""
        wanted = orjson.dumps(dict(labels)).decode() if labels else None
        moment, asset = after or (None, None)
        arguments = (tenant, status, updated_after, wanted, moment, asset, limit, request_id)
        with database.translated():
            return await self._pool.fetch(self._queries.page_of_assets, *arguments)

    async def standing(self, keys: Sequence[Key]) -> dict[Key, tuple[str, str | None]]:
        """("open" or "closed", outcome) of these requests' orders; nothing of requests that nobody heard of."""
        with database.translated():
            rows = await self._pool.fetch(self._queries.standing, *_columns(keys, 2))
        return {(row["tenant"], row["request_id"]): (row["state"], row["outcome"]) for row in rows}

    async def one_asset(self, tenant: str, asset: uuid.UUID) -> asyncpg.Record | None:
        """The row of one asset; None when the tenant has no such one."""
        with database.translated():
            return await self._pool.fetchrow(self._queries.one_asset, tenant, asset)


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as the arrays that unnest takes."""
    return [[row[place] for row in rows] for place in range(width)]


def _ask_people(facts: Sequence[Fact]) -> bool:
    return any(fact.kind == "review-asked" for fact in facts)


def _fact(row: asyncpg.Record) -> Fact:
    return Fact(kind=row["kind"], name=row["name"], says=row["says"], at=row.get("at"), evidence=row.get("evidence"))
