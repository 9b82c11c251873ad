"""The stage `intake.status`: every event of a request becomes part of what its caller sees. Emits nothing itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from giclee.intake.facts import TABLE
from giclee.schemas.events import Event
from giclee.schemas.topics import STATUS

STAGE = STATUS
READS = tuple(TABLE)

Apply = Callable[[Event], Awaitable[None]]


async def handle(event: Event, *, apply: Apply) -> Sequence[Event]:
    """Add the event to its request; one that names no request (an undecodable record's stall) is nobody's, and one
    that an operator discarded is left out."""
    if event.envelope.discard:
        return ()
    if getattr(event, "request_id", None) is not None:
        await apply(event)
    return ()
