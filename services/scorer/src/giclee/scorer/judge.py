"""Bytes in, scores and verdict out. Whoever brings the bytes (the stage, an evaluation) gets the same judgement.

Stores nothing and tells nobody. What cannot be decoded or measured does not pass.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from giclee.bus import telemetry
from giclee.bus.blobs import Blobs
from giclee.schemas.parts import BlobRef, Judgement, Score
from giclee.schemas.prompts import PromptSlot
from giclee.scorer import phash
from giclee.scorer.decode import BODY_MAX_BYTES, Decoded, Decoder, Refused
from giclee.scorer.dimension import Measured, Picture
from giclee.scorer.dimensions.format import CONTENT_TYPES
from giclee.scorer.gate import Gates, overall
from giclee.scorer.lane import Station

INLINE_VALUES_MAX = 3 * 128 * 128
"""The fingerprint of a picture of 128 x 128 takes 0.1 ms, about what it costs to hand it to a thread."""

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What a picture was asked to show, and what was claimed of its file; None where nothing was claimed."""

    prompt: str
    asset_type: str
    slots: tuple[PromptSlot, ...] = ()
    content_type: str | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The judgement on one file; without pixels there is no fingerprint and no size. `seconds` it took."""

    scores: Mapping[str, Score]
    verdict: Judgement
    gate_version: str
    phash: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float

    @property
    def long_side_px(self) -> int | None:
        return max(self.width, self.height) if self.width and self.height else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """What judging needs: who decodes, who measures, and what the values mean."""

    decoder: Decoder
    lanes: Mapping[str, Station]
    gates: Gates = field(default_factory=lambda: Gates({}))

    async def judge(self, body: bytes, brief: Brief) -> Judged:
        """Decode, measure with every dimension at once, and judge by the gate of now."""
        began = time.perf_counter()
        found = await self.decoder.decode(body)
        if isinstance(found, Refused):
            return self.refused(found, brief, began)
        picture = _picture(found, brief)
        measured, print_ = await asyncio.gather(self._measured(picture), _fingerprint(picture))
        return self._judged(measured, brief, began, picture, print_)

    def refused(self, found: Refused, brief: Brief, began: float | None = None) -> Judged:
        """A file without pixels: it is not what was claimed of it, and nothing else is known of it."""
        said = Measured(0.0, certain=found.certain, reason=f"decoding: {found.reason}")
        return self._judged({"format": said}, brief, time.perf_counter() if began is None else began)

    def _judged(
        self,
        measured: Mapping[str, Measured | None],
        brief: Brief,
        began: float,
        picture: Picture | None = None,
        print_: str | None = None,
    ) -> Judged:
        gate = self.gates.now()
        evaluators = {name: lane.evaluator for name, lane in self.lanes.items()}
        long_side_px = picture.long_side_px if picture is not None else 0
        scores = gate.scores(measured, evaluators, asset_type=brief.asset_type, long_side_px=long_side_px)
        height, width = picture.pixels.shape[:2] if picture is not None else (None, None)
        return Judged(
            scores=scores,
            verdict=overall(scores, gate.required(brief.asset_type, long_side_px)),
            gate_version=gate.version,
            phash=print_,
            width=width,
            height=height,
            seconds=round(time.perf_counter() - began, 4),
        )

    async def _measured(self, picture: Picture) -> dict[str, Measured | None]:
        """What every dimension of this asset type says, all at once; one that raises did not measure, and the others
        still count."""
        asked = {name: lane for name, lane in self.lanes.items() if lane.is_for(picture.asset_type)}
        answers = await asyncio.gather(*(lane.measure(picture) for lane in asked.values()), return_exceptions=True)
        return {name: _safe(name, answer) for name, answer in zip(asked, answers, strict=True)}


async def judged_blob(
    judge: Judge, blobs: Blobs, image: BlobRef, prompt: str, asset_type: str, slots: tuple[PromptSlot, ...] = ()
) -> Judged:
    """The judgement on a stored picture, its fetching timed too; one over the limit is not even fetched.

    Errors: those of `Blobs.get`.
    """
    began = time.perf_counter()
    size = {"width": image.width, "height": image.height}
    brief = Brief(prompt=prompt, asset_type=asset_type, slots=slots, content_type=image.content_type, **size)
    if image.size_bytes > BODY_MAX_BYTES:
        return judge.refused(Refused(f"{image.size_bytes} bytes; at most {BODY_MAX_BYTES}"), brief)
    judged = await judge.judge(await blobs.get(image), brief)
    return replace(judged, seconds=round(time.perf_counter() - began, 4))


async def _fingerprint(picture: Picture) -> str:
    """In a thread where it takes longer than changing threads."""
    if picture.pixels.size <= INLINE_VALUES_MAX:
        return phash.fingerprint(picture.pixels)
    return await asyncio.to_thread(phash.fingerprint, picture.pixels)


def _picture(found: Decoded, brief: Brief) -> Picture:
    """The picture with what was claimed of its file, which is checked; what nobody claimed is as it is found."""
    height, width = found.pixels.shape[:2]
    claims = (brief.content_type or CONTENT_TYPES[found.format], brief.width or width, brief.height or height)
    return Picture(
        pixels=found.pixels,
        prompt=brief.prompt,
        slots=brief.slots,
        asset_type=brief.asset_type,
        format=found.format,
        claims=claims,
    )


def _safe(name: str, answer: Measured | BaseException) -> Measured:
    if isinstance(answer, Measured):
        return answer
    if not isinstance(answer, Exception):  # cancelled from outside: nobody waits for a verdict
        raise answer
    telemetry.count("giclee_dimension_failures_total", dimension=name, why=type(answer).__name__)
    log.error("a dimension failed", dimension=name, error=str(answer), exc_info=answer)
    return Measured(None, certain=False, reason=f"failed: {type(answer).__name__}")
