"""Stage `publisher`: an event in, facts stored and the order decided; what it emits are outbox rows (rule 16)."""

from __future__ import annotations

from dataclasses import replace

from giclee.publisher.facts import facts_of, facts_of_discard
from giclee.publisher.seal import Sealer
from giclee.publisher.store import Lesson, Store
from giclee.schemas.events import (
    CandidatesRequested,
    Event,
    ImageApproved,
    ImageGenerated,
    ImageReviewed,
    ImageRevoked,
    ImageScored,
    ImageStalled,
    RequestClosed,
    RequestEvent,
    ReviewRequested,
)

EMITS = (CandidatesRequested, ReviewRequested, ImageReviewed, ImageApproved, ImageRevoked, RequestClosed)


async def handle(event: RequestEvent | ImageStalled, *, store: Store, sealer: Sealer) -> tuple[Event, ...]:
    """Store what the event teaches, decide its order, and seal the event's own candidate if it passed.

    Each event seals only its own candidate, so that a broken image becomes its own dead letter; what a crash
    leaves over is the sweeper's.
    """
    facts = facts_of_discard(event) if event.envelope.discard else facts_of(event)
    if not facts or event.request_id is None:
        return ()
    lesson = Lesson(tenant=event.tenant, request_id=event.request_id, facts=facts, cause=event.envelope)
    known = await store.learn(lesson)
    if event.envelope.discard:
        return ()
    if isinstance(event, ImageGenerated | ImageScored) and known and event.index in known.order.unsealed():
        seal = await sealer.seal(known.order, event.index)
        await store.learn(replace(lesson, facts=[seal]))
    return ()
