"""One routed candidate in, its image (or why there is none) out; and a closing in, remembered.

Claim, make, store the bytes, store the outcome, tell it: in this order, so that whatever dies in between
leaves a claim that the sweeper finds, and nothing is paid twice without being counted. A provider that bills is
asked only once the ledger knows, and asked after the job of an earlier try instead of being paid again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from giclee.bus import failpoints, telemetry
from giclee.bus.blobs import Blobs
from giclee.bus.errors import Poison, Transient
from giclee.bus.redaction import message_of
from giclee.bus.stage import Burial, Stage
from giclee.gpu_worker import adjusting, outcome
from giclee.gpu_worker.batch import Batcher
from giclee.gpu_worker.bill import bill_of, call_key
from giclee.gpu_worker.calls import Calls
from giclee.gpu_worker.claim import Claim, Row, Standing
from giclee.gpu_worker.claims import Claims
from giclee.gpu_worker.ledger import FenceLost
from giclee.gpu_worker.outcome import Decision
from giclee.gpu_worker.provider import Answer, Ask, Call, Made, NotMade
from giclee.gpu_worker.shelf import Shelf, shape_of
from giclee.schemas.events import (
    Event,
    GenerationFailed,
    ImageGenerated,
    ImageRouted,
    ProviderOutcome,
    RequestClosed,
)
from giclee.schemas.models import Model
from giclee.schemas.parts import BlobRef

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What a worker works with; its methods are the stage. `calls` leads to the providers that bill."""

    claims: Claims
    shelf: Shelf
    batcher: Batcher
    blobs: Blobs
    calls: Calls = field(default_factory=lambda: Calls({}))

    def stage(self, *, concurrency: int = 16, deadline_s: float = 300.0) -> Stage:
        """The stage of this worker's pool. A handler waits in the batch queue, hence the long deadline."""
        pool = self.claims.pool_name
        return Stage(
            name=f"gpu-worker.{pool}",
            reads=(ImageRouted, RequestClosed),
            emits=(ImageGenerated, GenerationFailed, ImageRouted, ProviderOutcome),
            handle=self.handle,
            concurrency=concurrency,
            deadline_s=deadline_s,
            pool=pool,
            bury=self.bury,
            settled=self.settled,
        )

    async def handle(self, event: ImageRouted | RequestClosed) -> Sequence[Event]:
        """Claim the candidate and make its image, or tell what became of it."""
        if isinstance(event, RequestClosed):
            await failpoints.reach("before-ended-commit")
            await self.claims.end(event.tenant, event.request_id)
            await failpoints.reach("after-ended-commit")
            return ()
        if event.envelope.discard:
            return self._tell(event, await self.claims.discard(event))
        standing = await self.claims.open(event)
        if isinstance(standing, Claim):
            standing.begin()
            try:
                return await self._work(event, standing)
            finally:
                standing.park()
        return self._tell(event, standing)

    async def bury(self, event: Event | None, error: BaseException) -> Burial:
        """End the claim of a record that failed. Errors: Transient for a closing, which is never given up."""
        if isinstance(event, RequestClosed):
            raise Transient(f"a closing must be noted: {error}")
        if not isinstance(event, ImageRouted):
            return Burial()
        dead_class = error.dead_class if isinstance(error, Poison) else "bug"
        return await self.claims.bury(event, dead_class, message_of(error))

    async def settled(self, events: Sequence[Event]) -> None:
        """Everything these deliveries told is acknowledged."""
        await failpoints.reach("before-acknowledge-commit")
        await self.claims.acknowledged(event for event in events if isinstance(event, ImageRouted))
        await failpoints.reach("after-acknowledge-commit")

    def _tell(self, event: ImageRouted, standing: Row | Standing | None) -> Sequence[Event]:
        if isinstance(standing, Row):
            self.claims.answering(event, standing)
            return outcome.events_of(event, standing)
        return [outcome.ended(event)] if standing is Standing.ENDED else ()

    # ---- working on a claim ---------------------------------------------------------------------

    async def _work(self, event: ImageRouted, claim: Claim) -> Sequence[Event]:
        if claim.unheard:  # its call failed here: only a higher fence may pay again, and counts what this one may have
            await self.claims.give_back(claim, held=False)
            return ()
        try:
            decision = outcome.waited(event, await self._decide(event, claim))
        except FenceLost as error:
            log.warning("the fence moved on", candidate_id=str(event.candidate_id), error=str(error))
            self.claims.drop(claim)
            return ()
        row = await self.claims.finish(event, claim, decision)
        if row is None:
            log.warning("the fence moved on", candidate_id=str(event.candidate_id), fence=claim.row.fence)
        return self._tell(event, row)

    async def _decide(self, event: ImageRouted, claim: Claim) -> Decision:
        """Make the image and store it, or say why not."""
        if not claim.row.affordable:
            return outcome.not_affordable(event, claim.row.spent_usd)
        hop = outcome.hop_of(event)
        model = self.shelf.find(hop)
        if isinstance(model, NotMade):
            return outcome.not_made(event, model)
        request = event.request
        shape = shape_of(model, hop, negative=bool(request.negative_prompt))
        if request.strict and hop.adjustments:
            return outcome.not_made(event, adjusting.refused(hop.adjustments))
        ask = Ask(
            shape=shape,
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            seed=event.seed,
            asked=adjusting.asked_of(request),
            strict=request.strict,
        )
        answer = await self._answer(event, claim, model, ask)
        if isinstance(answer, Made) and request.strict and answer.adjustments:
            answer = outcome.made_otherwise(event, answer)
        if isinstance(answer, NotMade):
            if answer.code == "limit":
                return outcome.not_affordable(event, claim.row.spent_usd)
            return outcome.not_made(event, answer)
        if claim.image is None:
            claim.image = await self._stored(event, claim, answer)
        telemetry.observe("giclee_generation_seconds", answer.seconds, model=model.name)
        return outcome.made(event, shape, answer, claim.image)

    async def _answer(self, event: ImageRouted, claim: Claim, model: Model, ask: Ask) -> Answer:
        """What the provider says; a try that was cut off is waited for again instead of paid for again."""
        if claim.job is None or claim.failed:
            claim.job = asyncio.create_task(self._made(event, claim, model, ask))
        return await asyncio.shield(claim.job)

    def _made(self, event: ImageRouted, claim: Claim, model: Model, ask: Ask) -> Coroutine[Any, Any, Answer]:
        return self._paid(event, claim, model, ask) if claim.row.billed else self.batcher.make(model, ask)

    async def _paid(self, event: ImageRouted, claim: Claim, model: Model, ask: Ask) -> Answer:
        """What a provider that bills says; booked here where the claim was let go of meanwhile."""
        ledger = self.claims.ledger
        call = Call(
            key=call_key(*claim.row.key),
            job=claim.job_id,
            note=partial(ledger.note, event, claim),
            why_not_again=partial(ledger.why_not_again, claim),
        )
        # prices change while this worker's rows do not: what may be billed is what the router expected
        model = model.model_copy(update={"price_usd": claim.row.price_usd})
        answer = await self.calls.make(model, replace(ask, call=call), partial(ledger.begin, event, claim))
        asked = not isinstance(answer, NotMade) or answer.code not in outcome.NOT_ASKED or answer.paid_usd > 0
        if claim.begun and asked:
            claim.bill = bill_of(answer, claim.row.price_usd)
        if self.claims.in_hand.get(claim.row.key) is not claim:
            await ledger.late(claim)
        return answer

    async def _stored(self, event: ImageRouted, claim: Claim, answer: Made) -> BlobRef:
        key = outcome.blob_key(event, claim.row.fence)
        size = {"width": answer.width, "height": answer.height}
        return await self.blobs.put(key, answer.body, answer.content_type, **size)
