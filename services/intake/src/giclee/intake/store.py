"""Requests as Postgres keeps them: accepting, cancelling, reading, and the clock's updates.

The projection of events (projection.py) writes the same tables under the same row locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from giclee.bus import database, failpoints, outbox
from giclee.bus.database import Connection, Pool
from giclee.intake.facts import moment
from giclee.intake.stream import Told
from giclee.schemas.events import CancelRequested, ImageRequested

Row = asyncpg.Record
SCHEMA = "intake"
QUERIES = database.Queries(Path(__file__).with_name("queries.sql"))


class KeyInFlight(Exception):
    """Another request with this Idempotency-Key is being answered right now."""


class KeyMismatch(Exception):
    """The Idempotency-Key was used with another body."""


class IdConflict(Exception):
    """The request id is known with other values."""


class Ended(Exception):
    """The request has ended."""


@dataclass(frozen=True, slots=True)
class Key:
    """An Idempotency-Key as it was sent, for one tenant and route, and the sha256 of the body it came with."""

    tenant: str
    route: str
    text: str
    body_sha256: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an accepted request is answered with; `replayed` when it, or its key, was known before."""

    request_id: UUID
    state: str
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a list is narrowed to; None filters nothing. `before` is the number of a page's last row."""

    state: str | None = None
    outcome: str | None = None
    batch_id: str | None = None
    client_ref: str | None = None
    asset_type: str | None = None
    labels: dict[str, str] | None = None
    created_after: datetime | None = None
    closed_after: datetime | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Holds:
    """What the switches hold now, by scope; `stages` are stages of requests, not of the line."""

    all: bool = False
    tenants: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    asset_types: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def cancel_of(
    request: ImageRequested, accepted_at: datetime | None, *, reason: str = "user", note: str | None = None
) -> CancelRequested:
    """A cancel that carries the request's own fields, so that it closes a request nobody else heard of."""
    fields = {"reason": reason, "note": note, "request": request, "accepted_at": accepted_at}
    return CancelRequested(**request.echo(), **fields)


class Store:
    """Requests over HTTP and the clock. `ttl` is the life of a request without a deadline."""

    def __init__(self, pool: Pool, ttl: timedelta) -> None:
        self._pool = pool
        self._ttl = ttl

    async def check(self) -> None:
        """Errors: Transient when the database does not answer."""
        await database.ping(self._pool)

    # ---- accepting and cancelling ---------------------------------------------------------------

    async def accept(self, request: ImageRequested, key: Key | None) -> Accepted:
        """Key, request row and outbox row in one transaction.

        Errors: KeyInFlight, KeyMismatch, IdConflict, Transient, Poison.
        """
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                if key is not None and (answered := await self._answered(connection, key)):
                    return answered
                accepted = await self._accept(connection, request)
                if key is not None:
                    row = (key.tenant, key.route, key.text, key.body_sha256)
                    answer = {"request_id": str(accepted.request_id), "state": accepted.state}
                    await connection.execute(QUERIES.remember_answer, *row, answer)
                await failpoints.reach("before-accept-commit")
        await failpoints.reach("after-accept-commit")
        return accepted

    async def _answered(self, connection: Connection, key: Key) -> Accepted | None:
        """The answer already given under a key."""
        name = f"{key.tenant}\x1f{key.route}\x1f{key.text}"
        if not await connection.fetchval(QUERIES.take_key, name):
            raise KeyInFlight
        row = await connection.fetchrow(QUERIES.answer_under_key, key.tenant, key.route, key.text)
        if row is None:
            return None
        if row["body_sha256"] != key.body_sha256:
            raise KeyMismatch
        return Accepted(UUID(row["answer"]["request_id"]), row["answer"]["state"], replayed=True)

    async def _accept(self, connection: Connection, request: ImageRequested) -> Accepted:
        text = request.model_dump_json(exclude_none=True)
        own = (request.client_ref, request.batch_id, request.asset_type, request.labels)
        named = (request.tenant, request.request_id)
        row = await connection.fetchrow(QUERIES.insert_request, *named, text, request.deadline, self._ttl, *own)
        if row is not None:
            await outbox.put(connection, SCHEMA, [request])
            return Accepted(request.request_id, row["state"])
        known = await connection.fetchrow(QUERIES.lock_request, *named)
        assert known is not None  # it kept us from inserting, and rows that young are not forgotten
        if known["request"] is None:
            filled = (known["number"], text, request.deadline, self._ttl, *own)
            row = await connection.fetchrow(QUERIES.fill_request, *filled)
            assert row is not None
            await outbox.put(connection, SCHEMA, [request])
            await self._send_stored_cancel(connection, request, known, row["accepted_at"])
            return Accepted(request.request_id, row["state"])
        if ImageRequested.model_validate_json(known["request"]).values() != request.values():
            raise IdConflict
        return Accepted(request.request_id, known["state"], replayed=True)

    async def _send_stored_cancel(
        self, connection: Connection, request: ImageRequested, known: Row, accepted_at: datetime
    ) -> None:
        """A cancel came before its request: send it again with the request's fields (contract rule 15)."""
        stored = known["facts"].get("cancel")
        if stored is None or known["cancel_sent"] or known["outcome"] is not None:
            return
        await outbox.put(connection, SCHEMA, [cancel_of(request, accepted_at, note=stored.get("note"))])
        await connection.execute(QUERIES.note_cancel, known["number"], {"cancel": stored})

    async def cancel(self, tenant: str, request_id: UUID, note: str | None) -> Accepted | None:
        """Store a cancel and send it, once; None for an id without a request. Errors: Ended, Transient."""
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(QUERIES.lock_request, tenant, request_id)
                if row is None or row["request"] is None:
                    return None
                if row["outcome"] is not None:
                    raise Ended
                stored = row["facts"].get("cancel")
                if row["cancel_sent"] and stored:
                    return Accepted(request_id, row["state"], replayed=True)
                fact = stored or {"at": moment(row["now"])} | ({"note": note} if note else {})
                request = ImageRequested.model_validate_json(row["request"])
                cancel = cancel_of(request, row["accepted_at"], note=fact.get("note"))
                await outbox.put(connection, SCHEMA, [cancel])
                state = await connection.fetchval(QUERIES.note_cancel, row["number"], {"cancel": fact})
                await failpoints.reach("before-cancel-commit")
        await failpoints.reach("after-cancel-commit")
        return Accepted(request_id, state)

    # ---- evaluations ----------------------------------------------------------------------------

    async def claim(self, key: Key, claim: UUID, within: timedelta) -> dict[str, Any] | None:
        """The answer given under a key, else None: the key is ours for so long, under the name of `claim`.

        Errors: KeyInFlight, KeyMismatch, Transient.
        """
        named = (key.tenant, key.route, key.text)
        with database.translated():
            if await self._pool.fetchval(QUERIES.claim_key, *named, key.body_sha256, claim, within):
                return None
            row = await self._pool.fetchrow(QUERIES.answer_under_key, *named)
        if row is None:  # freed or forgotten in this moment; the next try will have it
            raise KeyInFlight
        if row["body_sha256"] != key.body_sha256:
            raise KeyMismatch
        if row["answer"] is None:
            raise KeyInFlight
        answer: dict[str, Any] = row["answer"]
        return answer

    async def release(self, key: Key, claim: UUID) -> None:
        """Nothing came of a claim."""
        with database.translated():
            await self._pool.execute(QUERIES.release_claim, key.tenant, key.route, key.text, claim)

    async def keep_answer(
        self, tenant: str, evaluation_id: UUID, answer: dict[str, Any], *, key: Key | None, prompt: str | None
    ) -> None:
        """The answer under its claimed key, and the evaluation where a prompt comes with it, in one transaction.

        Errors: KeyInFlight when the claim ran out and another took it, Transient.
        """
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                if key is not None:
                    claimed = (key.tenant, key.route, key.text, evaluation_id)
                    if not await connection.fetchval(QUERIES.answer_claim, *claimed, answer):
                        raise KeyInFlight
                if prompt is not None:
                    await connection.execute(QUERIES.keep_evaluation, tenant, evaluation_id, prompt, answer)

    async def evaluation(self, tenant: str, evaluation_id: UUID) -> Row | None:
        """One evaluation that was kept."""
        with database.translated():
            return await self._pool.fetchrow(QUERIES.evaluation, tenant, evaluation_id)

    # ---- reading --------------------------------------------------------------------------------

    async def request(self, tenant: str, request_id: UUID) -> Row | None:
        """One request's row."""
        with database.translated():
            return await self._pool.fetchrow(QUERIES.request, tenant, request_id)

    async def shown(self, tenant: str, request_id: UUID) -> tuple[Row, list[Row], list[Row]] | None:
        """One request, its candidates and what the router decided for its waves, of one moment."""
        with database.translated():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                row = await connection.fetchrow(QUERIES.request, tenant, request_id)
                if row is None:
                    return None
                candidates = await connection.fetch(QUERIES.candidates, row["number"])
                return row, candidates, await connection.fetch(QUERIES.routes, row["number"])

    async def page(self, tenant: str, filters: Filters, limit: int) -> list[Row]:
        """At most `limit` requests, newest first."""
        narrowed = (filters.state, filters.outcome, filters.batch_id, filters.client_ref, filters.asset_type)
        times = (filters.created_after, filters.closed_after)
        with database.translated():
            return await self._pool.fetch(
                QUERIES.page, tenant, *narrowed, filters.labels, *times, filters.before, limit
            )

    async def told_after(self, number: int, after: int) -> tuple[list[Told], bool]:
        """What the stream of a request says after an id, and whether it had ended before that was read."""
        with database.translated():
            ended = bool(await self._pool.fetchval(QUERIES.stream_told, number))
            rows = await self._pool.fetch(QUERIES.stream_after, number, after)
        return [Told(row["id"], row["event"], row["document"]) for row in rows], ended

    # ---- the clock ------------------------------------------------------------------------------

    async def expire_overdue(self, pause: timedelta) -> int:
        """Send an `expired` cancel for every request past its closing time by `pause`; how many there were."""
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                rows = await connection.fetch(QUERIES.take_overdue, pause)
                requests = [(ImageRequested.model_validate_json(row["request"]), row["accepted_at"]) for row in rows]
                cancels = [cancel_of(request, at, reason="expired") for request, at in requests]
                await outbox.put(connection, SCHEMA, cancels)
                await failpoints.reach("before-expiry-commit")
        await failpoints.reach("after-expiry-commit")
        return len(rows)

    async def flag_held(self, holds: Holds) -> None:
        """Flag the open requests that a switch holds."""
        lists: Sequence[Any] = (holds.tenants, holds.batches, holds.asset_types, holds.stages)
        with database.translated():
            await self._pool.execute(QUERIES.set_held, holds.all, *lists, holds.templates, holds.models)

    async def forget(self) -> None:
        """Drop what nobody may ask for any more."""
        with database.translated():
            forgetting = (QUERIES.forget_answers, QUERIES.forget_unseen, QUERIES.forget_closed)
            for query in (*forgetting, QUERIES.forget_evaluations):
                await self._pool.execute(query)
