"""Stage `policy`: one request in, its clearance or refusal out. Contract 3.2, rules 2, 4, 5, 11 and 13."""

from __future__ import annotations

from typing import Protocol

from giclee.bus import telemetry
from giclee.policy.verdict import Asked, Judge, RequestIdConflict, Ruling, Stored, differences, digests, event_of
from giclee.schemas.events import CancelRequested, ImageCleared, ImageRefused, ImageRequested
from giclee.schemas.parts import Reason

STAGE = "policy"


class Store(Protocol):
    """Remembers the first verdict of every id."""

    async def first(self, asked: Asked) -> Stored: ...


class Policy:
    """The stage's handler with what it decides by and what it remembers in."""

    def __init__(self, judge: Judge, store: Store, ttl_h: int) -> None:
        self._judge = judge
        self._store = store
        self._ttl_h = ttl_h

    async def handle(self, event: ImageRequested) -> list[ImageCleared | ImageRefused | CancelRequested]:
        """Clear or refuse. A redelivery and a replay get the stored verdict, a copy gets nothing.

        Errors: RequestIdConflict where the id is known with other values.
        """
        if event.envelope.discard:
            return await self._give_up(event)
        return await self._rule(event, self._judge.rule(event))

    async def refuse(
        self, event: ImageRequested, reason: Reason
    ) -> list[ImageCleared | ImageRefused | CancelRequested]:
        """Refuse a request by a switch, unless it has a verdict. Errors: as `handle`."""
        return await self._rule(event, self._judge.refused(reason))

    async def _rule(self, event: ImageRequested, ruling: Ruling) -> list[ImageCleared | ImageRefused | CancelRequested]:
        stored = await self._store.first(self._asked(event, ruling))
        if stored.origin != event.envelope.origin:
            if differ := differences(event, stored.asked):
                raise RequestIdConflict(event, differ)
            if event.envelope.replay_for != STAGE:
                telemetry.count("giclee_policy_copies_total")
                return []
        telemetry.count("giclee_policy_verdicts_total", rule=stored.ruling.cause)
        return [event_of(event, stored.ruling, stored.times)]

    async def _give_up(self, event: ImageRequested) -> list[ImageCleared | ImageRefused | CancelRequested]:
        """End a request that has no verdict: whichever is stored first, verdict or discard, is the only one."""
        stored = await self._store.first(self._asked(event, self._judge.discarded()))
        if not stored.ruling.discarded or differences(event, stored.asked):
            return []
        telemetry.count("giclee_policy_verdicts_total", rule=stored.ruling.cause)
        return [event_of(event, stored.ruling, stored.times)]

    def _asked(self, event: ImageRequested, ruling: Ruling) -> Asked:
        return Asked(
            tenant=event.tenant,
            request_id=event.request_id,
            origin=event.envelope.origin,
            asked=digests(event),
            ruling=ruling,
            recorded_at=event.envelope.recorded_at,
            deadline=event.deadline,
            ttl_h=self._ttl_h,
        )
