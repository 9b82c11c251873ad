"""Switches: set as events on a compacted topic, and what they held is let go when they no longer stop it.

A held record is sent back to its own topic for the one stage that held it. That stage looks at the
switches again, so a record that another switch stops is simply held once more.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from giclee.bus import dlq, telemetry
from giclee.bus.errors import Transient
from giclee.bus.layers import codec
from giclee.bus.layers.switches import stops
from giclee.bus.table import Table
from giclee.bus.transport import Record, Send
from giclee.replay.rows import held_record
from giclee.replay.store import Note, Store
from giclee.schemas import envelope as wire
from giclee.schemas.events import SwitchSet

LOOK_EVERY_S = 0.5
EXPIRED_EVERY_S = 30.0
"""How often what an expired switch holds is let go: a stage whose clock is behind holds it again."""
AT_ONCE = 100

log = telemetry.logger(__name__)


class Switches:
    """Sets switches, lists them, and lets go what waits under one that is over."""

    def __init__(self, table: Table[SwitchSet], store: Store, send: Send) -> None:
        self._table = table
        self._store = store
        self._send = send
        self._let_go_at: dict[str, datetime] = {}

    async def set(self, switch: SwitchSet) -> None:
        """Publish a switch; every stage follows the topic. Written to the audit first."""
        details = switch.model_dump(mode="json", exclude_none=True)
        await self._store.note(Note(switch.actor, f"switch {switch.mode}", switch.reason), details)
        await self._send([codec.encode(switch, source="giclee/replay")])

    async def listed(self) -> list[dict[str, object]]:
        """Every switch that is set, with how many records wait under it."""
        now, waiting = await self._store.now(), await self._store.waiting()
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
        """Until cancelled: send back what no hold in force keeps waiting."""
        await self._table.caught_up.wait()
        while True:
            try:
                now = await self._store.now()
                over = [scope for scope in await self._store.waiting() if self._is_over(scope, now)]
                if over:
                    await self._let_go(over, now)
            except Transient as error:
                log.warning("release waits", error=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    def _is_over(self, scope: str, now: datetime) -> bool:
        """Whether what waits under a scope may go: its switch was cleared, refuses from now on, or has expired."""
        switch = self._table.rows.get(scope)
        if switch is None or switch.mode != "hold":
            return True
        if stops(switch, now):
            return False
        before = self._let_go_at.get(scope)
        return before is None or now - before > timedelta(seconds=EXPIRED_EVERY_S)

    async def _let_go(self, scopes: list[str], now: datetime) -> None:
        self._let_go_at |= dict.fromkeys(scopes, now)
        count = AT_ONCE
        while count == AT_ONCE:
            async with self._store.letting_go(scopes, now, AT_ONCE) as rows:
                await self._send([_back(held_record(row, row["topic"]), row["stage"]) for row in rows])
            count = len(rows)
            log.info("held records flow on", scopes=scopes, count=count)


def _back(record: Record, stage: str) -> Record:
    """The record as it was, for the stage that held it. A replay that was held stays a replay of its run."""
    named = {name: raw.decode(errors="replace") for name, raw in record.headers if name.startswith("held-")}
    mine = [pair for pair in record.headers if not pair[0].startswith("held-") and pair[0] != wire.REPLAY_FOR]
    kept = dlq.about(named.get("held-request-id"), mine)
    return Record(
        topic=record.topic, key=record.key, value=record.value, headers=(*kept, (wire.REPLAY_FOR, stage.encode()))
    )
