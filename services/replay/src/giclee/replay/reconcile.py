"""The reconciler: compares what the parts of the line say of each other, mends what is safe, reports the rest.

Runs every minute; an operator who asks (`GET /v1/doctor`, `giclee doctor`) gets a look that changes nothing. Every
check has a bound in time and answers good, bad or unknown; one that hangs does not keep the others from answering.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from giclee.bus import database, telemetry
from giclee.bus.database import Pool
from giclee.bus.errors import Poison, Transient
from giclee.replay.checks import QUERIES, Checks
from giclee.replay.findings import BAD, GOOD, UNKNOWN, Finding, unknown
from giclee.replay.objects import Objects
from giclee.replay.offsets import Offsets

CHECK_MAX_S = 20.0
MEND_MAX_S = 300.0
"""Putting offsets back means joining groups, 45 s each at worst."""
FRESH_S = 2.0
"""Two operators who ask at once get one look."""

log = telemetry.logger(__name__)
Check = Callable[[], Awaitable[Finding]]


class Reconciler:
    """Looks, mends and remembers the newest report."""

    def __init__(self, checks: Checks, offsets: Offsets, objects: Objects, pool: Pool, interval_s: float) -> None:
        self._objects = objects
        self._pool = pool
        self._interval_s = interval_s
        self._looking = asyncio.Lock()
        self._newest: dict[str, Any] | None = None
        self._looked_at = -FRESH_S
        self._offsets = offsets
        self._table: dict[str, Check] = {
            "requests": checks.overdue,
            "stalled": checks.stalled,
            "dead letters": checks.letters,
            "outboxes": checks.outboxes,
            "relay": checks.relay,
            "group offsets": offsets.check,
            "approvals": objects.approvals,
            "orphans": objects.orphans,
            "switches": checks.switches,
        }

    async def run(self) -> None:
        """Until cancelled: mend, look, then wait."""
        while True:
            await self._mend()
            report = await self.look()
            for finding in report["checks"]:
                telemetry.gauge("giclee_reconciler_found", finding["count"], check=finding["check"])
                if finding["verdict"] == BAD:
                    log.warning("reconciler", check=finding["check"], says=finding["says"], fix=finding["fix"])
            await asyncio.sleep(self._interval_s)

    async def _mend(self) -> None:
        try:
            async with asyncio.timeout(MEND_MAX_S):
                await self._offsets.mend()
        except (Transient, Poison, TimeoutError) as error:
            log.warning("reconciler waits", error=str(error) or "mending took too long")

    async def look(self) -> dict[str, Any]:
        """A report of now: when, the worst verdict, and one finding per check."""
        clock = asyncio.get_running_loop()
        async with self._looking:
            if self._newest is None or clock.time() - self._looked_at > FRESH_S:
                found = await asyncio.gather(*(_bounded(*row) for row in self._table.items()))
                self._newest = {
                    "at": datetime.now(UTC).isoformat(),
                    "verdict": _worst(found),
                    "checks": [one.as_json() for one in found],
                }
                self._looked_at = clock.time()
            return self._newest

    async def delete_orphans(self, *, actor: str, reason: str) -> list[str]:
        """Delete the orphans found; in the audit before and after. Errors: Transient."""
        async with self._looking:
            await self._note(actor, reason, {"state": "begun"})
            deleted = await self._objects.delete_orphans()
            await self._note(actor, reason, {"deleted": deleted})
            self._newest = None
        return deleted

    async def _note(self, actor: str, reason: str, details: dict[str, Any]) -> None:
        with database.translated():
            await self._pool.execute(QUERIES.note, actor, "delete orphans", reason, details)


def _worst(found: list[Finding]) -> str:
    verdicts = {one.verdict for one in found}
    return BAD if BAD in verdicts else UNKNOWN if UNKNOWN in verdicts else GOOD


async def _bounded(name: str, check: Check) -> Finding:
    try:
        async with asyncio.timeout(CHECK_MAX_S):
            return await check()
    except TimeoutError:
        return unknown(name, f"no answer within {CHECK_MAX_S:.0f} s")
    except (Transient, Poison) as error:
        return unknown(name, str(error))
