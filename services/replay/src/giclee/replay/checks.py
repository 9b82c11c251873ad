"""Checks that only look: at the database and at what the switches say. Each is one bounded question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from giclee.bus import database
from giclee.bus.database import Pool
from giclee.replay.findings import Finding, bad, good

QUERIES = database.Queries(Path(__file__).with_name("reconcile.sql"))

OVERDUE_AFTER = timedelta(minutes=5)
"""Past `closes_by` the publisher's sweeper has its turn, 10 s later intake's clock; both answer in seconds."""
OUTBOX_LATE_S = 60.0
RELAY_LATE_S = 30.0
"""The transactional lane sends within a second; half a minute covers a fenced producer and its restart."""


class Checks:
    """The checks that change nothing. `switches` lists those that are set. Errors: Transient, the database is away."""

    def __init__(self, pool: Pool, switches: Callable[[], Awaitable[list[dict[str, Any]]]]) -> None:
        self._pool = pool
        self._switches = switches

    async def overdue(self) -> Finding:
        """Every accepted request ends by its closing time; if one did not, who has not done its part."""
        with database.translated():
            rows = await self._pool.fetch(QUERIES.overdue, OVERDUE_AFTER)
        if not rows:
            return good("requests", "every request whose time is over has ended")
        total, unsent = rows[0]["total"], rows[0]["unsent"]
        if unsent:
            why, fix = (
                f"intake's clock has sent no expiry for {unsent}",
                "start intake; `giclee dev status` says how it is",
            )
        elif any(row["closed_at_publisher"] for row in rows):
            why, fix = (
                "the publisher has closed them, intake has not read it",
                "giclee lag; then the relay and intake.status",
            )
        else:
            why, fix = (
                "their expiry was sent, the publisher has not closed them",
                "giclee lag; giclee dlq ls --stage publisher",
            )
        return bad(
            "requests", f"{total} past their time without an end: {why}", fix, count=total,
            examples=tuple(f"{row['tenant']} {row['request_id']}" for row in rows),
        )  # fmt: skip

    async def stalled(self) -> Finding:
        """Nothing waits for a dead letter to be brought back."""
        with database.translated():
            rows = await self._pool.fetch(QUERIES.stalled)
        if not rows:
            return good("stalled", "no open request waits for a dead letter")
        return bad(
            "stalled", f"{rows[0]['total']} open requests wait for a dead letter",
            f"giclee dlq ls --request {rows[0]['request_id']}", count=rows[0]["total"],
            examples=tuple(f"{row['tenant']} {row['request_id']}" for row in rows),
        )  # fmt: skip

    async def letters(self) -> Finding:
        """No dead letter waits for an operator."""
        with database.translated():
            rows = await self._pool.fetch(QUERIES.open_letters)
        if not rows:
            return good("dead letters", "none is open")
        total = sum(row["count"] for row in rows)
        oldest = age(max(row["oldest_s"] for row in rows))
        return bad(
            "dead letters", f"{total} open, the oldest since {oldest}", "giclee dlq stats", count=total,
            examples=tuple(f"{row['count']} {row['dead_class']} at {row['stage']}" for row in rows[:5]),
        )  # fmt: skip

    async def outboxes(self) -> Finding:
        """What was decided leaves the database within a minute."""
        return await self._outbox("outboxes", "plain", OUTBOX_LATE_S)

    async def relay(self) -> Finding:
        """Approvals and closings leave within half a minute."""
        return await self._outbox("relay", "transactional", RELAY_LATE_S)

    async def _outbox(self, check: str, lane: str, late_s: float) -> Finding:
        with database.translated():
            rows = [row for row in await self._pool.fetch(QUERIES.outboxes) if row["lane"] == lane]
        late = [row for row in rows if row["oldest_s"] > late_s]
        if not late:
            return good(check, f"{sum(row['count'] for row in rows)} rows under way, none late")
        said = ", ".join(f"{row['count']} of {row['service']} since {age(row['oldest_s'])}" for row in late)
        return bad(
            check, f"not sent: {said}", f"docs/runbooks/outbox-stuck.md; is {late[0]['service']} up, and the broker?",
            count=sum(row["count"] for row in late),
        )  # fmt: skip

    async def switches(self) -> Finding:
        """What stops on purpose is said, and is no fault."""
        rows = await self._switches()
        in_force = [f"{row['scope']} ({row['mode']}, {row['held']} wait)" for row in rows if row["in_force"]]
        return good("switches", f"in force: {', '.join(in_force)}" if in_force else "none is in force")


def age(seconds: float) -> str:
    """A time span as people say it."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
