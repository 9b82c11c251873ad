"""What people look at, and what their word means for a candidate. Pure; `order.py` and `standing.py` ask it.

Doubts of the gate when an order would otherwise end short, passers that the asset type wants looked at before their
approval, a random sample of the others after it, and what somebody asked to override (ADR 13).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

Kind = Literal["doubt", "required", "sample", "override"]
"""Why a person looks: the gate could not tell; the asset type wants it; drawn at random; the gate failed it."""

EYES = {"override": 2}
"""Different reviewers that must pass an image of a kind; of the others one."""

NOTE_MAX = 1000


@dataclass(frozen=True, slots=True)
class ReasonCode:
    """What a reviewer may say about an image, and the reason for which a failed sample's asset is revoked."""

    says: str
    revokes_as: str = "quality"


# fmt: off
REASON_CODES: dict[str, ReasonCode] = {
    "on-brief": ReasonCode("It shows what was asked for."),
    "off-brief": ReasonCode("It does not show what was asked for."),
    "hands": ReasonCode("Hands, faces or bodies are malformed."),
    "text": ReasonCode("There is text that was not asked for, or it is wrong."),
    "composition": ReasonCode("Crop, balance or place of the subject do not serve the purpose."),
    "brand": ReasonCode("Colours, marks or style are not the brand's.", "brand"),
    "unsafe": ReasonCode("It must not be shown to the public.", "safety"),
    "rights": ReasonCode("It shows what others have rights to.", "rights"),
    "other": ReasonCode("What the note says."),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Looked:
    """What a person made of the bytes of one sha256, once it can no longer be undone."""

    passes: bool
    reviewer: str


def drawn(candidate_id: uuid.UUID, share: float) -> bool:
    """Whether a candidate is in a random sample of that share; the same whoever asks, as often as they ask."""
    digest = blake2b(candidate_id.bytes, digest_size=8, person=b"giclee.review").digest()
    return int.from_bytes(digest, "big") < share * 2**64


def revokes_as(reason_codes: Sequence[str]) -> str:
    """The reason for which an asset is revoked whose sample failed: the gravest of those named."""
    named = {REASON_CODES[code].revokes_as for code in reason_codes if code in REASON_CODES}
    return next((one for one in ("safety", "rights", "brand") if one in named), "quality")
