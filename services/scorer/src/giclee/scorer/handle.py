"""One generated image in, its scores out. What cannot be fetched waits; what cannot be measured does not pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from giclee.bus import telemetry
from giclee.bus.blobs import Blobs
from giclee.bus.stage import Stage
from giclee.schemas.events import Event, GenerationFailed, ImageGenerated, ImageScored
from giclee.schemas.parts import Judgement, Reason, Score
from giclee.scorer.judge import Judge, Judged, judged_blob
from giclee.scorer.store import Verdicts
from giclee.scorer.watch import Holds, Unwatched

STAGE = "scorer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """What scoring needs; its methods are the stage."""

    blobs: Blobs
    judge: Judge
    store: Verdicts
    watch: Holds = field(default_factory=Unwatched)

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
        judged = await judged_blob(self.judge, self.blobs, event.image, event.prompt, event.asset_type, event.slots)
        scores = await self.watch.held_back(judged.scores, event.asset_type, event.model)
        scored = ImageScored(
            **event.echo(),
            candidate_id=event.candidate_id,
            index=event.index,
            hop=event.hop,
            sha256=event.image.sha256,
            scores=dict(scores),
            verdict=_verdict(judged, scores),
            gate_version=judged.gate_version,
            asset_type=event.asset_type,
            provider=event.provider,
            model=event.model,
            seconds=judged.seconds,
            phash=judged.phash,
            long_side_px=judged.long_side_px,
        )
        _count(scored)
        kept = await self.store.keep(scored)
        if kept is scored:  # not another replica's; what dies here is one value less to compare
            await self.watch.count(scored)
        return [kept]


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


def _verdict(judged: Judged, scores: Mapping[str, Score]) -> Judgement:
    """As it was judged, unless something that passed is held back."""
    return judged.verdict if all(score.passes() for score in scores.values()) else _doubted(judged.verdict)


def _doubted(verdict: Judgement) -> Judgement:
    return "unsure" if verdict == "pass" else verdict


def _count(scored: ImageScored) -> None:
    telemetry.count("giclee_verdicts_total", verdict=scored.verdict)
    for name, score in scored.scores.items():
        telemetry.count("giclee_dimension_verdicts_total", dimension=name, verdict=score.verdict)
