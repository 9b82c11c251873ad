"""Switches: set as events on a compacted topic, and what they held is let go when they no longer stop it.

A held record is sent back to its own topic for the one stage that held it. That stage looks at the
switches again, so a record that another switch stops is simply held once more.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from giclee.bus import dlq, telemetry
from giclee.bus.errors import Transient
from giclee.bus.layers import codec
from giclee.bus.table import Table
from giclee.bus.transport import Record, Send
from giclee.replay.store import Store, record_of
from giclee.schemas import envelope as wire
from giclee.schemas.events import SwitchSet

LOOK_EVERY_S = 0.5

log = telemetry.logger(__name__)


def stops(switch: SwitchSet | None, now: datetime) -> bool:
    """Whether a switch is in force at `now`."""
    return (
        switch is not None
        and switch.mode in ("hold", "refuse")
        and not (switch.expires_at and switch.expires_at <= now)
    )


class Switches:
    """Sets switches, lists them, and lets go what waits under one that is over."""

    def __init__(self, table: Table[SwitchSet], store: Store, send: Send) -> None:
        self._table = table
        self._store = store
        self._send = send

    async def set(self, switch: SwitchSet) -> None:
        """Publish a switch; every stage follows the topic. Written to the audit first."""
        details = switch.model_dump(mode="json", exclude_none=True)
        await self._store.note(switch.actor, f"switch {switch.mode}", switch.reason, None, details)
        await self._send([codec.encode(switch, source="giclee/replay")])

    async def listed(self) -> list[dict[str, object]]:
        """Every switch that is set, with how many records wait under it."""
        now, waiting = datetime.now(UTC), await self._store.waiting()
        rows = [row for _, row in sorted(self._table.rows.items()) if row.mode != "clear"]
        return [
            {
                **row.model_dump(mode="json", exclude_none=True),
                "in_force": stops(row, now),
                "held": waiting.get(row.scope, 0),
            }
            for row in rows
        ]

    async def release(self) -> None:
        """Until cancelled: send back what no switch in force keeps waiting."""
        await self._table.caught_up.wait()
        while True:
            try:
                now = datetime.now(UTC)
                over = [scope for scope in await self._store.waiting() if not stops(self._table.rows.get(scope), now)]
                if over:
                    await self._let_go(over)
            except Transient as error:
                log.warning("release waits", error=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _let_go(self, scopes: list[str]) -> None:
        rows = await self._store.held(scopes)
        await self._send([_back(record_of(row, row["topic"]), row["stage"]) for row in rows])
        await self._store.released([row["held_id"] for row in rows])
        log.info("held records flow on", scopes=scopes, count=len(rows))


def _back(record: Record, stage: str) -> Record:
    """The record as it was, for the stage that held it. A replay that was held stays a replay of its run."""
    named = {name: raw.decode(errors="replace") for name, raw in record.headers if name.startswith("held-")}
    mine = [pair for pair in record.headers if not pair[0].startswith("held-") and pair[0] != wire.REPLAY_FOR]
    kept = dlq.about(named.get("held-request-id"), mine)
    return Record(
        topic=record.topic, key=record.key, value=record.value, headers=(*kept, (wire.REPLAY_FOR, stage.encode()))
    )
