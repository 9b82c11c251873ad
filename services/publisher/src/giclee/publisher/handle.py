"""Stages `publisher` and `publisher.hedges`: an event in, facts stored and the order decided; what it emits are outbox
rows (rule 16)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from giclee.bus.stage import Stage
from giclee.publisher.closing import STAGE
from giclee.publisher.facts import READS, facts_of, facts_of_discard, facts_of_routed
from giclee.publisher.seal import Sealer
from giclee.publisher.store import Lesson, Store
from giclee.schemas.events import (
    CandidatesRequested,
    Event,
    ImageApproved,
    ImageGenerated,
    ImageReviewed,
    ImageRevoked,
    ImageRouted,
    ImageScored,
    ImageStalled,
    RequestClosed,
    RequestEvent,
    ReviewRequested,
)

EMITS = (CandidatesRequested, ReviewRequested, ImageReviewed, ImageApproved, ImageRevoked, RequestClosed)


def stages(store: Store, sealer: Sealer, *, concurrency: int = 64) -> tuple[Stage, Stage]:
    """What the publisher reads its events with.

    Who is waited for is read apart, as a projection: switches and dead letters of routed work are its workers' matter.
    """
    orders = Stage(
        name=STAGE,
        reads=READS,
        emits=EMITS,
        handle=partial(handle, store=store, sealer=sealer),
        concurrency=concurrency,
    )
    hedges = Stage(
        name=f"{STAGE}.hedges",
        reads=(ImageRouted,),
        emits=(),
        handle=partial(watch, store=store),
        concurrency=concurrency,
        projection=True,
    )
    return orders, hedges


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


async def watch(event: ImageRouted, *, store: Store) -> tuple[Event, ...]:
    """Store whom somebody waits for, and until when; the clock does the rest."""
    if facts := facts_of_routed(event):
        cause = event.envelope
        await store.learn(Lesson(tenant=event.tenant, request_id=event.request_id, facts=facts, cause=cause))
    return ()
