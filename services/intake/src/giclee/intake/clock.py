"""Intake's own clock (contract 3.2 rule 5): what must happen although no event comes.

Requests past their closing time get an `expired` cancel with their own fields, hourly until they close, so that
even a request that nobody else heard of ends. It also lets waiting streams end, flags what switches hold, and
forgets what nobody may ask for any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from giclee.bus import telemetry
from giclee.bus.errors import Poison, Transient
from giclee.intake.projection import Projection
from giclee.intake.store import Holds, Store
from giclee.schemas.events import SwitchSet

TICK_S = 3.0
EXPIRY_PAUSE = timedelta(seconds=10)
"""Past its closing time an order that has a verdict is closed by the publisher's sweeper; it gets the first turn."""
FORGET_EVERY_S = 3600.0
BATCH = 100
"""As many as one statement of queries.sql takes; a full one means that there may be more."""

_STAGES = {"policy": ("pending", "clearing"), "router": ("routing",), "scorer": ("scoring",)}
"""What a stage of the line holds up, in stages of requests."""

log = telemetry.logger(__name__)


def holds_of(switches: Mapping[str, SwitchSet], now: datetime) -> Holds:
    """What the switches hold at `now`, by kind of scope."""
    named: dict[str, list[str]] = {}
    for switch in switches.values():
        if switch.mode == "hold" and not (switch.expires_at and switch.expires_at <= now):
            kind, _, name = switch.scope.partition(":")
            named.setdefault(kind, []).append(name)
    stages = [stage for name in named.get("stage", ()) for stage in _held_up(name)]
    return Holds(
        all="all" in named,
        tenants=tuple(named.get("tenant", ())),
        batches=tuple(named.get("batch", ())),
        asset_types=tuple(named.get("asset-type", ())),
        stages=tuple(stages),
        templates=tuple(named.get("template", ())),
        models=tuple(named.get("model", ())),
    )


def _held_up(stage: str) -> tuple[str, ...]:
    return ("generating",) if stage.startswith("gpu-worker") else _STAGES.get(stage, ())


class Clock:
    """Ticks; several replicas may. `switches` is the followed table, by scope."""

    def __init__(self, store: Store, projection: Projection, switches: Mapping[str, SwitchSet]) -> None:
        self._store = store
        self._projection = projection
        self._switches = switches
        self._held: Holds = Holds()
        self._forget_at = 0.0

    async def run(self) -> None:
        """Until cancelled; an outage is waited out."""
        while True:
            try:
                await self.tick()
            except (Transient, Poison) as error:
                log.warning("clock waits", error=str(error))
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Everything that is due now. Errors: Transient when the database is away."""
        while await self._store.expire_overdue(EXPIRY_PAUSE) == BATCH:
            pass
        while await self._projection.tell_closings() == BATCH:
            pass
        await self._flag_held()
        if time.monotonic() >= self._forget_at:
            await self._store.forget()
            self._forget_at = time.monotonic() + FORGET_EVERY_S

    async def _flag_held(self) -> None:
        """Follow the switches; while they hold nothing and held nothing, there is nothing to look at."""
        holds = holds_of(self._switches, datetime.now(UTC))
        if holds != Holds() or self._held != Holds():
            await self._store.flag_held(holds)
        self._held = holds
