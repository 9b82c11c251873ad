"""Runs as rows: letters taken by compare-and-set, leases, progress. The SQL of runs.py, and nothing that decides."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from giclee.bus import database
from giclee.replay.selection import Selection
from giclee.replay.store import QUERIES, TAKING_S, Note, Row, note, one_at_a_time, selecting

LEASE_S = 15.0
"""How long a run waits for the process that works on it; a batch takes a second or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an operator asks of a run. `ids` and `selection` say which letters; amounts in US dollars."""

    action: str = "replay"
    selection: Selection = field(default_factory=Selection)
    ids: list[uuid.UUID] | None = None
    limit: int = 1_000_000
    again: bool = False
    canary: int = 0
    rate_per_s: float | None = None
    max_cost_usd: Decimal | None = None
    patch: list[dict[str, Any]] | None = None

    def selected(self) -> dict[str, Any]:
        """The selection as it is kept with the run."""
        named = self.selection.as_json()
        return {**named, "ids": [str(one) for one in self.ids]} if self.ids else named


class Ledger:
    """The runs of the service. Errors of every method: Transient, Poison."""

    def __init__(self, pool: database.Pool, allowed: Sequence[str], replays_max: int) -> None:
        self._pool = pool
        self._allowed = list(allowed)
        self._replays_max = replays_max

    async def freeze(self, order: Order, who: Note) -> Row:
        """Take the letters of a run, and make it, in one transaction. `who.operation` is its id."""
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                await one_at_a_time(connection)
                taken: Any = await connection.fetchrow(
                    selecting("freeze"), *order.selection.filters(order.ids), order.action, self._allowed, order.again,
                    self._replays_max, order.limit, who.operation, order.max_cost_usd, timeout=TAKING_S,
                )  # fmt: skip
                await connection.execute(
                    QUERIES.make_run, who.operation, order.action, who.actor, who.reason, order.selected(), order.again,
                    order.canary, order.rate_per_s, order.max_cost_usd, order.patch, taken["cost_max_usd"],
                    taken["total"],
                )  # fmt: skip
                await note(connection, who, {"total": taken["total"], "selection": order.selected()})
                made: list[Row] = await connection.fetch(QUERIES.one_run, who.operation)
        return made[0]

    async def one(self, run_id: uuid.UUID) -> Row | None:
        """A run with what came back of it."""
        with database.translated():
            return await self._pool.fetchrow(QUERIES.one_run, run_id)

    async def page(self, state: str | None, before: int | None, limit: int) -> list[Row]:
        """Runs, newest first, those numbered below `before`."""
        with database.translated():
            return list(await self._pool.fetch(QUERIES.page_of_runs, state, before, limit))

    async def take(self, owner: str) -> Row | None:
        """A run that wants work and that nobody works on, ours for `LEASE_S`."""
        with database.translated():
            return await self._pool.fetchrow(QUERIES.take_run, owner, LEASE_S)

    async def keep(self, run_id: uuid.UUID, owner: str) -> Row | None:
        """The run as it stands, the lease renewed; None when another has it."""
        with database.translated():
            return await self._pool.fetchrow(QUERIES.keep_run, run_id, owner, LEASE_S)

    async def leave(self, run_id: uuid.UUID, owner: str) -> None:
        """Let whoever comes first work on it."""
        with database.translated():
            await self._pool.execute(QUERIES.leave_run, run_id, owner)

    async def move(self, run_id: uuid.UUID, states: tuple[Sequence[str], str], why: str | None, who: Note) -> bool:
        """From one of some states to another, with the audit; whether it was in one of them."""
        before, after = states
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                moved = await connection.fetchrow(QUERIES.move_run, run_id, list(before), after, why)
                if moved is None:
                    return False
                if after == "aborted":
                    await connection.execute(QUERIES.give_up_letters, run_id, None, "open")
                await note(connection, who, {"before": list(before), "after": after, "why": why, "sent": moved["sent"]})
        return True

    async def next_letters(self, run_id: uuid.UUID, limit: int) -> list[Row]:
        """What is yet to be sent, in the order of the topics."""
        with database.translated():
            return list(await self._pool.fetch(QUERIES.next_letters, run_id, limit))

    async def last_sent(self, run_id: uuid.UUID, limit: int) -> list[Row]:
        """Where the newest replays of a run lie: stage, topic, partition, offset."""
        with database.translated():
            return list(await self._pool.fetch(QUERIES.last_sent, run_id, limit))

    async def sent(self, run: Row, places: Mapping[uuid.UUID, tuple[int, int]]) -> None:
        """The broker has these, at (partition, offset): done, and counted, in one transaction."""
        state = "replayed" if run["action"] == "replay" else "discarded"
        columns = list(places), [one[0] for one in places.values()], [one[1] for one in places.values()]
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                tag = await connection.execute(QUERIES.end_letters, run["run_id"], state, *columns)
                await connection.execute(QUERIES.count_run, run["run_id"], int(tag.split()[-1]), 0)

    async def gave_up(self, run: Row, letters: Mapping[uuid.UUID, str], state: str) -> None:
        """These are not sent, each for its reason: open again, or parked; each in the audit."""
        who = Note("giclee", "refuse" if state == "open" else "park", "see details", run["run_id"])
        details = [{"before": "replaying", "after": state, "why": why} for why in letters.values()]
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(QUERIES.give_up_letters, run["run_id"], list(letters), state)
                await connection.execute(QUERIES.count_run, run["run_id"], 0, len(letters))
                await note(connection, who, *details, letters=list(letters))

    async def edited(self, run: Row, changes: Mapping[uuid.UUID, list[dict[str, Any]]]) -> None:
        """What a run's patch changes in letters, kept before they are sent."""
        who = Note(run["actor"], "edit", run["reason"], run["run_id"])
        with database.translated():
            async with self._pool.acquire() as connection:
                await note(connection, who, *({"changes": one} for one in changes.values()), letters=list(changes))

    async def came_back(self, run_id: uuid.UUID, topic: str, places: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
        """Which of these (partition, offset) of a topic, where replays of a run lie, are dead letters again."""
        columns = [at for at, _ in places], [offset for _, offset in places]
        with database.translated():
            rows = await self._pool.fetch(QUERIES.came_back, topic, run_id, *columns)
        return {(row["partition"], row["place"]) for row in rows}
