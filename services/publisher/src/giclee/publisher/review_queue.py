"""The queue of what people look at, in Postgres: put there by decisions, leased, judged, undone, taken into effect.

A verdict counts UNDO_S after it was given, by the database's clock; until then it can be undone, and an order that
ends withdraws it. Every change is made under the row's lock: of two that exclude each other exactly one happens.
Locks are taken in one order: the order's, the review's, the asset's. SQL is in reviews.sql.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from giclee.bus import database, outbox, telemetry
from giclee.publisher import review
from giclee.publisher.closing import STAGE
from giclee.publisher.facts import Fact, review_fact
from giclee.publisher.funnel import reviews_of
from giclee.publisher.plan import Key, Plan
from giclee.publisher.revocation import Revoked, Wish, revoke
from giclee.schemas.events import ImageReviewed, ReviewRequested
from giclee.schemas.parts import asset_id

UNDO_S = 10.0
"""How long a verdict can be undone (contract rule 18)."""
LEASE_S = 300.0
"""How long an image is one reviewer's; long enough to look, short enough for the next when somebody went home."""
CLAIM_S = 60.0
"""How long verdicts that the sweeper took stay out of other sweepers' sight."""
NOBODY = "api-key"
"""The reviewer of a call that names none."""


class Conflict(Exception):
    """The review is not in a state for that; `code` is a row of `reasons.TABLE`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a reviewer says about an image; `seconds` is how long they looked."""

    reviewer: str
    verdict: str
    sha256: str
    reason_codes: Sequence[str] = ()
    note: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which reviews; None means any. `after` is where the page before ended."""

    state: str | None = None
    asset_type: str | None = None
    kind: str | None = None
    after: tuple[datetime, float, uuid.UUID] | None = None
    ids: Sequence[uuid.UUID] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Effect:
    """A person's verdict, now that nobody can undo it."""

    order_id: int
    kind: review.Kind
    event: ImageReviewed

    @property
    def fact(self) -> Fact:
        """What it makes known about its order."""
        return review_fact(self.event)

    @property
    def revokes(self) -> bool:
        """Whether it takes an approval back."""
        return self.kind == "sample" and self.event.verdict == "fail"


class ReviewQueue:
    """All that the publisher keeps of reviews. Errors of every method: Transient and Poison."""

    def __init__(self, pool: database.Pool) -> None:
        self._pool = pool
        self._queries = database.Queries(Path(__file__).with_name("reviews.sql"))

    # ---- inside the transaction of a decision, under the orders' locks

    async def add(
        self, connection: database.Connection, plans: Iterable[Plan], asked: Iterable[ReviewRequested]
    ) -> None:
        """Put to people what decisions ask them about, and withdraw what the ended need no more."""
        plans = list(plans)
        events = {(one.tenant, one.request_id, one.index): one for one in asked}
        rows = [
            _row(plan, index, kind, events)
            for plan in plans
            for index, _, kind in reviews_of(plan.order, plan.decision)
        ]
        if rows:
            await connection.execute(self._queries.add_reviews, *(list(column) for column in zip(*rows, strict=True)))
        if ended := [plan.row.id for plan in plans if plan.decision.ending and plan.order.asked]:
            await connection.execute(self._queries.withdraw_reviews, ended)

    async def take_effect(self, connection: database.Connection, orders: Sequence[int]) -> list[Effect]:
        """People's verdicts that count by now, told to the world; a failed sample revokes its asset.

        The caller stores their facts.
        """
        rows = await connection.fetch(self._queries.take_effect, list(orders)) if orders else ()
        found = [Effect(row["order_id"], row["kind"], _reviewed(row)) for row in rows]
        await outbox.put(connection, STAGE, [effect.event for effect in found])
        for effect in found:
            if effect.revokes:
                await self._revoke_sample(connection, effect.event)
        return found

    async def _revoke_sample(self, connection: database.Connection, event: ImageReviewed) -> None:
        said = f": {event.note}" if event.note else ""
        wish = Wish(
            reason_code=review.revokes_as(event.reason_codes),
            reason=f"a reviewer failed it as {', '.join(event.reason_codes)}{said}",
            by=event.reviewer,
        )
        await revoke(connection, self._queries, event.tenant, asset_id(event.candidate_id), wish)

    # ---- the clock

    async def claim_effective(self, limit: int) -> list[Key]:
        """Requests with verdicts that have an effect now; whoever gets them has CLAIM_S seconds to look at them."""
        with database.translated():
            rows = await self._pool.fetch(self._queries.claim_effective, limit, CLAIM_S)
        return sorted({(row["tenant"], row["request_id"]) for row in rows})

    async def show(self) -> None:
        """Set the gauges."""
        with database.translated():
            rows = {row["kind"]: row for row in await self._pool.fetch(self._queries.queue)}
        for kind in ("doubt", "required", "sample", "override"):
            row = rows.get(kind)
            telemetry.gauge("giclee_reviews_pending", row["waiting"] if row else 0, kind=kind)
            telemetry.gauge("giclee_reviews_oldest_seconds", float(row["oldest_s"]) if row else 0.0, kind=kind)

    # ---- what reviewers do

    async def page(self, tenant: str, which: Filters) -> list[Any]:
        """Rows with `scored` and `cleared`, the soonest due first."""
        due_at, place, candidate = which.after or (None, None, None)
        ids = None if which.ids is None else list(which.ids)
        asked = (tenant, which.state, which.asset_type, which.kind, due_at, place, candidate, ids, which.limit)
        with database.translated():
            return await self._pool.fetch(self._queries.page_of_reviews, *asked)

    async def one(self, tenant: str, candidate: uuid.UUID) -> Any:
        """The row of one review; None when the tenant has no such one."""
        rows = await self.page(tenant, Filters(ids=[candidate], limit=1))
        return rows[0] if rows else None

    async def lease(self, tenant: str, reviewer: str, which: Filters) -> list[Any]:
        """The next images, which are this reviewer's for LEASE_S seconds; no two reviewers get the same."""
        asked = (tenant, reviewer, LEASE_S, which.limit, which.asset_type, which.kind)
        return await self._leased(tenant, self._queries.lease_reviews, *asked)

    async def renew(self, tenant: str, reviewer: str, ids: Sequence[uuid.UUID]) -> list[Any]:
        """More time for these; those that are not this reviewer's any more are left out."""
        return await self._leased(tenant, self._queries.renew_leases, tenant, reviewer, LEASE_S, list(ids))

    async def _leased(self, tenant: str, query: str, *arguments: Any) -> list[Any]:
        with database.translated():
            got = [row["candidate_id"] for row in await self._pool.fetch(query, *arguments)]
        return await self.page(tenant, Filters(ids=got, limit=len(got))) if got else []

    async def give(self, tenant: str, candidate: uuid.UUID, said: Said) -> bool:
        """Write a verdict; False when there is no such review. The same one said again changes nothing.

        Errors: Conflict.
        """
        return await self._change(tenant, candidate, lambda row, now: given(row, said, now))

    async def undo(self, tenant: str, candidate: uuid.UUID, reviewer: str) -> bool:
        """Take a verdict back that has no effect yet; False when there is no such review. Errors: Conflict."""
        return await self._change(tenant, candidate, lambda row, now: undone(row, reviewer, now))

    async def _change(self, tenant: str, candidate: uuid.UUID, change: Any) -> bool:
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(self._queries.lock_review, tenant, candidate)
                if row is None:
                    return False
                # asked for only now: waiting for the lock may have taken longer than an undo has time
                now: datetime = await connection.fetchval("SELECT clock_timestamp()")
                if (columns := change(row, now)) is not None:
                    await connection.execute(self._queries.write_review, candidate, *columns.values())
        return True

    async def revoke(self, tenant: str, asset: uuid.UUID, wish: Wish) -> Revoked | None:
        """Revoke an asset, unless it is revoked already; None when the tenant has no such asset."""
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                return await revoke(connection, self._queries, tenant, asset, wish)


# ---- pure ---------------------------------------------------------------------------------------

Columns = dict[str, Any]
"""Of `write_review`, in its order."""


def given(row: Mapping[str, Any], said: Said, now: datetime) -> Columns | None:
    """The columns after a verdict; None when just that was said before. Errors: Conflict."""
    if row["state"] == "withdrawn":
        raise Conflict("review_withdrawn", "the request ended before a verdict took effect; nobody need look any more")
    if row["state"] != "pending":
        if (row["reviewer"], row["verdict"], row["sha256"]) == (said.reviewer, said.verdict, said.sha256):
            return None
        raise Conflict("review_decided", f"{row['reviewer']} said {row['verdict']}")
    if row["sha256"] != said.sha256:
        raise Conflict(
            "review_other_bytes", f"the verdict names {said.sha256[:12]}…, the image is {row['sha256'][:12]}…"
        )
    if row["leased_by"] not in (None, said.reviewer) and row["leased_until"] > now:
        raise Conflict("review_leased", f"{row['leased_by']} has it until {row['leased_until']:%H:%M:%S} UTC")
    if row["eyes"] == 2 and said.verdict == "pass":
        if said.reviewer in (NOBODY, row["seconded_by"]):
            raise Conflict("review_second_reviewer", "the gate failed this image: two named reviewers must pass it")
        if row["seconded_by"] is None:
            return _columns(row, seconded_by=said.reviewer, leased_by=None, leased_until=None)
    return _columns(
        row, state="given", verdict=said.verdict, reviewer=said.reviewer, reason_codes=list(said.reason_codes),
        note=said.note, seconds=said.seconds, given_at=now, effective_at=now + timedelta(seconds=UNDO_S),
    )  # fmt: skip


def undone(row: Mapping[str, Any], reviewer: str, now: datetime) -> Columns:
    """The columns after an undo: the reviewer has it again. Of two who passed it either may. Errors: Conflict."""
    if row["state"] == "withdrawn":
        raise Conflict("review_withdrawn", "the request ended before the verdict took effect")
    if row["state"] == "pending" and row["seconded_by"] == reviewer:
        return _columns(row, seconded_by=None)
    if row["state"] != "given" or row["effective_at"] <= now:
        raise Conflict("review_not_undoable", "there is no verdict that could still be undone")
    if reviewer not in (row["reviewer"], row["seconded_by"]):
        raise Conflict("review_not_undoable", f"the verdict is {row['reviewer']}'s")
    first = None if row["seconded_by"] == reviewer else row["seconded_by"]
    return _columns(
        row, state="pending", verdict=None, reviewer=None, seconded_by=first, reason_codes=[], note=None, seconds=None,
        given_at=None, effective_at=None, leased_by=reviewer, leased_until=now + timedelta(seconds=LEASE_S),
    )  # fmt: skip


_WRITTEN = ("state", "verdict", "reviewer", "seconded_by", "reason_codes", "note", "seconds", "given_at",
            "effective_at", "leased_by", "leased_until")  # fmt: skip


def _columns(row: Mapping[str, Any], **changed: Any) -> Columns:
    return {name: changed.get(name, row[name]) for name in _WRITTEN}


def _row(plan: Plan, index: int, kind: review.Kind, events: Mapping[Any, ReviewRequested]) -> tuple[Any, ...]:
    event, verdict, score = events[(*plan.row.key, index)], plan.order.verdict, plan.order.score_of(index)
    asset_type = verdict.asset_type if verdict is not None else "generic"
    measure = score.measure if score is not None else 0.0
    document = event.model_dump(mode="json", exclude_none=True)
    return (
        event.candidate_id, plan.row.id, event.tenant, asset_type, kind, event.sha256,
        review.EYES.get(kind, 1), -measure, document, event.due_at,
    )  # fmt: skip


def _reviewed(row: Any) -> ImageReviewed:
    asked = ReviewRequested.model_validate(row["document"])
    both = filter(None, (row["seconded_by"], row["reviewer"])) if row["verdict"] == "pass" else (row["reviewer"],)
    return ImageReviewed(
        **asked.echo(),
        candidate_id=asked.candidate_id,
        index=asked.index,
        hop=asked.hop,
        sha256=asked.sha256,
        verdict=row["verdict"],
        reviewer=", ".join(both),
        reason_codes=tuple(row["reason_codes"]),
        note=row["note"],
        seconds=row["seconds"],
        reviewed_at=row["given_at"],
    )
