"""POST /internal/evaluate: the line's judgement on a picture made elsewhere, for intake. Nothing is stored.

Takes `values` {prompt, asset_type, content_type?, image?} and either a `file` or the blob reference `image`; whose
blob that may be is the caller's to know. Pixels go through the lanes of the line, a few at a time: it never starves.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any

from pydantic import ConfigDict, StringConstraints

from giclee.bus import telemetry
from giclee.bus.blobs import Blobs
from giclee.bus.errors import Poison, Transient
from giclee.bus.probes import Upload
from giclee.schemas import strict
from giclee.schemas.parts import NO_NUL, AssetTypeName, BlobRef, StrictPart
from giclee.schemas.strict import FieldError, InvalidInput
from giclee.scorer.decode import BODY_MAX_BYTES
from giclee.scorer.judge import Brief, Judge, Judged, judged_blob

PATH = "/internal/evaluate"
WITHIN_S = 120.0
"""Two tries at a file that hangs the decoder take 20 s, a dimension 30 s at most; as long as a record may take."""


class Asked(StrictPart):
    """What is asked of a picture, and what is claimed of its file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=NO_NUL)]
    asset_type: AssetTypeName
    content_type: str | None = None
    image: BlobRef | None = None


class Evaluations:
    """Judges what is brought, by a judge whose decoder is not the line's."""

    def __init__(self, judge: Judge, blobs: Blobs) -> None:
        self._judge = judge
        self._blobs = blobs

    def door(self, *, at_once: int) -> Upload:
        """The endpoint."""
        return Upload(handle=self.evaluate, file_max_bytes=BODY_MAX_BYTES, at_once=at_once, within_s=WITHIN_S)

    async def evaluate(self, values: dict[str, Any], file: bytes | None) -> dict[str, Any]:
        """`{verdict, scores, gate_version, phash, width, height, seconds, sha256, size_bytes}`.

        Errors: InvalidInput for what cannot be asked or a blob that cannot be had, Transient when the store is away.
        """
        asked = strict.part_from(Asked, values)
        if (file is None) == (asked.image is None):
            raise InvalidInput([FieldError("/image", "either a file or a blob reference is needed, and not both")])
        if asked.image is None:
            judged, named = await self._of_file(asked, file or b"")
        else:
            judged, named = await self._of_blob(asked, asked.image)
        telemetry.count("giclee_evaluations_total", verdict=judged.verdict)
        return _told(judged) | named

    async def _of_file(self, asked: Asked, body: bytes) -> tuple[Judged, dict[str, Any]]:
        brief = Brief(prompt=asked.prompt, asset_type=asked.asset_type, content_type=asked.content_type)
        judged = await self._judge.judge(body, brief)
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
        return judged, {"sha256": sha256, "size_bytes": len(body)}

    async def _of_blob(self, asked: Asked, image: BlobRef) -> tuple[Judged, dict[str, Any]]:
        try:
            judged = await judged_blob(self._judge, self._blobs, image, asked.prompt, asked.asset_type)
        except Poison as error:
            raise InvalidInput([FieldError("/image", str(error), "blob_unusable")]) from None
        except Transient as error:
            if error.scope == "dependency":
                raise
            raise InvalidInput([FieldError("/image", str(error), "blob_unusable")]) from None
        return judged, {"sha256": image.sha256, "size_bytes": image.size_bytes}


def _told(judged: Judged) -> dict[str, Any]:
    return {
        "verdict": judged.verdict,
        "scores": {name: score.model_dump(mode="json") for name, score in judged.scores.items()},
        "gate_version": judged.gate_version,
        "phash": judged.phash,
        "width": judged.width,
        "height": judged.height,
        "seconds": judged.seconds,
    }
