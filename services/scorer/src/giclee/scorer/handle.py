"""One generated image in, its scores out. What cannot be fetched waits; what cannot be measured does not pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from giclee.bus import telemetry
from giclee.bus.blobs import Blobs
from giclee.bus.stage import Stage
from giclee.schemas.events import Event, GenerationFailed, ImageGenerated, ImageScored
from giclee.schemas.parts import Reason, Score
from giclee.scorer import phash
from giclee.scorer.decode import BODY_MAX_BYTES, Decoder, Refused
from giclee.scorer.dimension import Measured, Picture
from giclee.scorer.gate import Gate, Gates, overall
from giclee.scorer.lane import Lane
from giclee.scorer.store import Verdicts

STAGE = "scorer"

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """What scoring needs; its methods are the stage."""

    blobs: Blobs
    decoder: Decoder
    lanes: Mapping[str, Lane]
    store: Verdicts
    gates: Gates = field(default_factory=lambda: Gates({}))

    def stage(self, *, concurrency: int = 16, deadline_s: float = 120.0) -> Stage:
        """The stage `scorer`."""
        return Stage(
            name=STAGE,
            reads=(ImageGenerated,),
            emits=(ImageScored, GenerationFailed),
            handle=self.handle,
            concurrency=concurrency,
            deadline_s=deadline_s,
        )

    async def handle(self, event: ImageGenerated) -> Sequence[Event]:
        """The stored verdict on these bytes, else a new one, stored before it is told."""
        if event.envelope.discard:
            return [given_up(event)]
        known = await self.store.find(event.candidate_id, event.image.sha256)
        if known is not None:
            return [known]
        began = time.perf_counter()
        gate = self.gates.now()
        scores, picture, print_ = await self._scores(event, gate)
        verdict = overall(scores, gate.required())
        scored = ImageScored(
            **event.echo(),
            candidate_id=event.candidate_id,
            index=event.index,
            hop=event.hop,
            sha256=event.image.sha256,
            scores=scores,
            verdict=verdict,
            gate_version=gate.version,
            asset_type=event.asset_type,
            provider=event.provider,
            seconds=round(time.perf_counter() - began, 4),
            phash=print_,
            long_side_px=picture.long_side_px if picture is not None else None,
        )
        _count(scored)
        return [await self.store.keep(scored)]

    async def _scores(self, event: ImageGenerated, gate: Gate) -> tuple[dict[str, Score], Picture | None, str | None]:
        """The scores, and the picture with its fingerprint where there are pixels."""
        image = event.image
        if image.size_bytes > BODY_MAX_BYTES:
            too_large = Refused(f"{image.size_bytes} bytes; at most {BODY_MAX_BYTES}")
            return self._judged(gate, event, _refused(too_large)), None, None
        found = await self.decoder.decode(await self.blobs.get(image))
        if isinstance(found, Refused):
            return self._judged(gate, event, _refused(found)), None, None
        claims = (image.content_type, image.width, image.height)
        picture = Picture(
            pixels=found.pixels, prompt=event.prompt, asset_type=event.asset_type, format=found.format, claims=claims
        )
        measured, print_ = await asyncio.gather(
            self._measured(picture), asyncio.to_thread(phash.fingerprint, picture.pixels)
        )
        return self._judged(gate, event, measured, picture.long_side_px), picture, print_

    async def _measured(self, picture: Picture) -> dict[str, Measured | None]:
        """What every dimension says, all at once; one that raises did not measure, and the others still count."""
        answers = await asyncio.gather(*(lane.measure(picture) for lane in self.lanes.values()), return_exceptions=True)
        return {name: _safe(name, answer) for name, answer in zip(self.lanes, answers, strict=True)}

    def _judged(
        self, gate: Gate, event: ImageGenerated, measured: Mapping[str, Measured | None], long_side_px: int = 0
    ) -> dict[str, Score]:
        evaluators = {name: lane.evaluator for name, lane in self.lanes.items()}
        return gate.scores(measured, evaluators, asset_type=event.asset_type, long_side_px=long_side_px)


def given_up(event: ImageGenerated) -> GenerationFailed:
    """An operator discarded the image's record: contract rule 11. The publisher ends the candidate by it."""
    reason = Reason(code="discarded", stage=STAGE, message="an operator discarded this candidate")
    return GenerationFailed(
        **event.echo(),
        candidate_id=event.candidate_id,
        index=event.index,
        hop=event.hop,
        reasons=(reason,),
        spent_usd=event.spent_usd,
    )


def _refused(found: Refused) -> dict[str, Measured | None]:
    """A file without pixels: it is not what its reference says, and nothing else is known of it."""
    return {"format": Measured(0.0, certain=found.certain, reason=f"decoding: {found.reason}")}


def _safe(name: str, answer: Measured | BaseException) -> Measured:
    if isinstance(answer, Measured):
        return answer
    if not isinstance(answer, Exception):  # cancelled from outside: nobody waits for a verdict
        raise answer
    telemetry.count("giclee_dimension_failures_total", dimension=name, why=type(answer).__name__)
    log.error("a dimension failed", dimension=name, error=str(answer), exc_info=answer)
    return Measured(None, certain=False, reason=f"failed: {type(answer).__name__}")


def _count(scored: ImageScored) -> None:
    telemetry.count("giclee_verdicts_total", verdict=scored.verdict)
    for name, score in scored.scores.items():
        telemetry.count("giclee_dimension_verdicts_total", dimension=name, verdict=score.verdict)
