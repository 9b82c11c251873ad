"""The projection behind GET, the list and the streams: events become facts, facts become columns.

One transaction per batch of events, under the row locks of their requests. What it must send (a cancel with the
request's own fields, contract 3.2 rule 15) is an outbox row of that transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from giclee.bus import database, failpoints, outbox
from giclee.bus.database import Connection, Pool
from giclee.intake import facts, routes, status
from giclee.intake.facts import Candidate, Known, Shown, moment
from giclee.intake.store import QUERIES, SCHEMA, cancel_of
from giclee.intake.stream import LAST, Bell
from giclee.schemas.events import CancelRequested, Event, ImageRequested

PATIENCE = timedelta(seconds=5)
"""How long a stream's last word waits for approvals that the closing names: the two topics are read side by side."""

Key = tuple[str, UUID]


def _key(event: Any) -> Key:
    return event.tenant, event.request_id


class Projection:
    """Applies events to the rows of their requests. `ttl` is the life of a request without a deadline."""

    def __init__(self, pool: Pool, bell: Bell, ttl: timedelta) -> None:
        self._pool = pool
        self._bell = bell
        self._ttl = ttl

    async def apply(self, batch: Sequence[Event]) -> Sequence[None]:
        """Store what these events say, all or none; any order, any number of times. Errors: Transient, Poison."""
        by_key: dict[Key, list[Event]] = {}
        for event in batch:
            by_key.setdefault(_key(event), []).append(event)
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                known = await self._locked(connection, sorted(by_key))
                await self._load_candidates(connection, known, batch)
                for key, events in by_key.items():
                    for event in events:
                        facts.learn(known[key], event)
                changed = [one for one in known.values() if one.changed or one.touched or one.news]
                await self._save(connection, changed, patient=True)
                await failpoints.reach("before-projection-commit")
        await failpoints.reach("after-projection-commit")
        routes.tell(one.candidates[candidate_id] for one in changed for candidate_id in one.touched)
        self._bell.ring(one.number for one in changed)
        return [None] * len(batch)

    async def tell_closings(self) -> int:
        """Let streams end whose approvals did not come in time; how many there were. Errors: Transient."""
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                rows = await connection.fetch(QUERIES.untold_closings, PATIENCE)
                known = await self._locked(connection, sorted((row["tenant"], row["request_id"]) for row in rows))
                await self._save(connection, list(known.values()), patient=False)
        self._bell.ring(one.number for one in known.values())
        return len(known)

    # ---- reading --------------------------------------------------------------------------------

    async def _locked(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Known]:
        """Every request of `keys`, locked; rows are made for those nobody had heard of."""
        known = await self._lock(connection, keys)
        missing = [key for key in keys if key not in known]
        if missing:
            await connection.execute(QUERIES.add_requests, *zip(*missing, strict=True))
            known |= await self._lock(connection, missing)
        return known

    async def _lock(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Known]:
        if not keys:
            return {}
        rows = await connection.fetch(QUERIES.lock_requests, *zip(*keys, strict=True))
        return {(row["tenant"], row["request_id"]): self._known(row) for row in rows}

    def _known(self, row: Any) -> Known:
        return Known(
            number=row["number"],
            tenant=row["tenant"],
            request_id=row["request_id"],
            now=row["now"],
            ttl=self._ttl,
            request=ImageRequested.model_validate_json(row["request"]) if row["request"] else None,
            accepted_at=row["accepted_at"],
            closes_by=row["closes_by"],
            cancel_sent=row["cancel_sent"],
            facts=row["facts"],
            shown=Shown(row["told"], row["shown"], row["closing_told"]),
        )

    async def _load_candidates(self, connection: Connection, known: dict[Key, Known], batch: Iterable[Event]) -> None:
        pairs = {(known[_key(event)].number, at) for event in batch if (at := facts.candidate_of(event)) is not None}
        if not pairs:
            return
        by_number = {one.number: one for one in known.values()}
        for row in await connection.fetch(QUERIES.facts_of_candidates, *zip(*pairs, strict=True)):
            found = Candidate(row["candidate_id"], row["facts"], routes.came_to(row["facts"]))
            by_number[row["number"]].candidates[found.candidate_id] = found

    # ---- writing --------------------------------------------------------------------------------

    async def _save(self, connection: Connection, changed: Sequence[Known], *, patient: bool) -> None:
        if not changed:
            return
        candidates = [
            {"number": one.number, **status.columns_of(one.candidates[candidate_id])}
            for one in changed
            for candidate_id in one.touched
        ]
        if candidates:
            await connection.execute(QUERIES.save_candidates, candidates)
        decisions = [
            {"number": one.number, "wave": wave, "decision": decision}
            for one in changed
            for wave, decision in one.routes.items()
        ]
        if decisions:
            await connection.execute(QUERIES.save_routes, decisions)
        standings = await self._standings(connection, changed)
        await outbox.put(connection, SCHEMA, [cancel for one in changed if (cancel := _owed_cancel(one))])
        rows = [_columns(one, standings[one.number]) for one in changed]
        states = {row["number"]: row["state"] for row in await connection.fetch(QUERIES.save_requests, rows)}
        said = []
        for one in changed:
            said += _news(one, standings[one.number], states[one.number], patient=patient)
        if said:
            await connection.execute(QUERIES.tell, said)
        await connection.execute(QUERIES.note_told, [_told(one) for one in changed])

    async def _standings(self, connection: Connection, changed: Sequence[Known]) -> dict[int, status.Standing]:
        tallies: dict[int, list[status.Tally]] = {one.number: [] for one in changed}
        for row in await connection.fetch(QUERIES.tallies, list(tallies)):
            counted = (row["state"], row["stalled"], row["count"], row["settled"], row["spent_usd"], row["wave"])
            tallies[row["number"]].append(status.Tally(*counted))
        return {one.number: status.standing(one, tallies[one.number]) for one in changed}


def _owed_cancel(known: Known) -> CancelRequested | None:
    """The cancel with the request's own fields that a stored cancel still lacks."""
    if known.request is None or known.cancel_sent or "cancel" not in known.facts or "closed" in known.facts:
        return None
    known.cancel_sent = True
    return cancel_of(known.request, known.accepted_at, note=known.facts["cancel"].get("note"))


def _columns(known: Known, standing: status.Standing) -> dict[str, Any]:
    """The row of a request as save_requests takes it."""
    closing = known.facts.get("closed", {}).get("closing")
    cleared = known.facts.get("cleared")
    closes_by = cleared["closes_by"] if cleared else known.closes_by and moment(known.closes_by)
    row: dict[str, Any] = {
        "number": known.number,
        "facts": known.facts,
        "stage": standing.stage,
        "stalled": standing.stalled,
        "stuck": standing.stuck,
        "cancelling": "cancel" in known.facts,
        "cancel_sent": known.cancel_sent,
        "outcome": closing["outcome"] if closing else None,
        "closed_at": closing["closed_at"] if closing else None,
        "closes_by": closes_by,
    }
    if known.accepted_here and known.request is not None and known.accepted_at is not None:
        request = known.request
        row |= {"request": request.model_dump_json(exclude_none=True), "accepted_at": known.accepted_at.isoformat()}
        row |= {"client_ref": request.client_ref, "batch_id": request.batch_id}
        row |= {"asset_type": request.asset_type, "labels": request.labels}
    return row


def _news(known: Known, standing: status.Standing, state: str, *, patient: bool) -> list[dict[str, Any]]:
    """Rows of everything that the stream should say now; it says no more progress after its last word."""
    news = list(known.news)
    progress = {"state": state, "stalled": standing.stalled, **standing.shown}
    changed = progress != known.shown.progress
    known.shown.progress = progress
    if changed and not known.shown.closing:
        news.append(("progress", orjson.dumps({"request_id": str(known.request_id), **progress}).decode()))
    closed = known.facts.get("closed")
    if closed and not known.shown.closing and (standing.all_approved_seen or not patient):
        known.shown.closing = True
        news.append((LAST, orjson.dumps(closed["closing"]).decode()))
    rows = []
    for event, document in news:
        known.shown.id += 1
        rows.append({"number": known.number, "id": known.shown.id, "event": event, "document": document})
    return rows


def _told(known: Known) -> dict[str, Any]:
    """What the stream has said by now, as note_told takes it."""
    shown = known.shown
    return {"number": known.number, "told": shown.id, "shown": shown.progress, "closing_told": shown.closing}
