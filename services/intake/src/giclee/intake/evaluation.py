"""What a caller asks of a picture made elsewhere, and how it is answered: read, claim the key, ask the scorer, keep.

Nothing is kept unless asked: the answer for a day under an Idempotency-Key, the verdict with `store`, the picture
never.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from giclee.bus import telemetry
from giclee.bus.errors import Transient
from giclee.intake.ask_scorer import ScorerCalls
from giclee.intake.multipart import Part
from giclee.intake.store import Key, Store
from giclee.schemas import strict
from giclee.schemas.parts import NO_NUL, AssetTypeName, Sha256, StrictPart
from giclee.schemas.strict import FieldError, InvalidInput

FILE_MAX_BYTES = 20 * 1024 * 1024
"""As the scorer decodes; it says so itself as well."""
FORM_MAX_BYTES = FILE_MAX_BYTES + 64 * 1024
"""The longest prompt in four bytes a character, and what stands between parts."""
FOLDERS = ("candidates", "assets")
"""Where blobs lie, by tenant."""
CLAIM_SPARE_S = 30.0
"""For what stands around the scorer's answer: a claim must outlive who answers under it."""

log = telemetry.logger(__name__)
_Word = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)]


class NamedBlob(StrictPart):
    """A blob reference as a caller gives it (contract section 3)."""

    bucket: _Word
    key: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[\x21-\x5b\x5d-\x7e]*$")]
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0, le=2**53)]
    content_type: _Word
    width: Annotated[int, Field(ge=1, le=2**31 - 1)]
    height: Annotated[int, Field(ge=1, le=2**31 - 1)]


class Asked(StrictPart):
    """What a picture is judged by; `image` where it lies in the bucket already."""

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=NO_NUL)]
    asset_type: AssetTypeName = "generic"
    store: bool = False
    image: NamedBlob | None = None


@dataclass(frozen=True, slots=True)
class Evaluating:
    """A call that was read: what is asked, and the file with what its part claims of it."""

    asked: Asked
    file: bytes | None = None
    content_type: str | None = None

    def fingerprint(self) -> bytes:
        """The sha256 of what was asked; the boundary of a form is no part of it."""
        file = hashlib.sha256(self.file).hexdigest() if self.file is not None else ""
        told = "\x1f".join((self.asked.model_dump_json(), self.content_type or "", file))
        return hashlib.sha256(told.encode()).digest()


def of_json(raw: bytes, tenant: str) -> Evaluating:
    """A call in JSON: the picture is named. Errors: InvalidInput."""
    values = strict.parse_json(raw)
    image = values.get("image") if isinstance(values, dict) else None
    if isinstance(image, dict) and "url" in image:
        detail = "pictures are not fetched from addresses; send the file as multipart/form-data, or a blob reference"
        raise InvalidInput([FieldError("/image/url", detail, "url_unsupported")])
    asked = strict.part_from(Asked, values)
    if asked.image is None:
        raise InvalidInput([FieldError("/image", "is needed: a blob reference; a file goes as multipart/form-data")])
    _require_own(asked.image.key, tenant)
    return Evaluating(asked)


def of_form(parts: dict[str, Part]) -> Evaluating:
    """A call as a form: the picture is its part `file`. Errors: InvalidInput."""
    values: dict[str, Any] = {name: _text(part) for name, part in parts.items() if name != "file"}
    if "image" in values:
        raise InvalidInput([FieldError("/image", "goes as application/json; a form brings the file itself")])
    if (said := values.get("store")) is not None:
        if said not in ("true", "false"):
            raise InvalidInput([FieldError("/store", "must be true or false")])
        values["store"] = said == "true"
    asked = strict.part_from(Asked, values)
    if (file := parts.get("file")) is None:
        raise InvalidInput([FieldError("/file", "is needed: the picture")])
    kind = (file.content_type or "").partition(";")[0].strip().lower()
    # `application/octet-stream` says nothing of a file; a picture's type is a claim, and judged as one
    return Evaluating(asked, file.body, kind if kind.startswith("image/") and len(kind) <= 255 else None)


def _text(part: Part) -> str:
    try:
        return part.body.decode()
    except UnicodeDecodeError:
        raise InvalidInput([FieldError(strict.pointer((part.name,)), "is not UTF-8", "not_utf8")]) from None


def _require_own(key: str, tenant: str) -> None:
    """Errors: InvalidInput for a key outside the tenant's folders; whether there is such a blob is not looked at."""
    own = tuple(f"{folder}/{tenant}/" for folder in FOLDERS)
    if not key.startswith(own) or any(step in ("", ".", "..") for step in key.split("/")):
        detail = f"is no blob of {tenant}; its keys start with {' or '.join(own)}"
        raise InvalidInput([FieldError("/image/key", detail, "blob_unusable")])


class Evaluator:
    """Answers calls: at most `at_once` at a time, each within the scorer's deadline."""

    def __init__(self, store: Store, scorer: ScorerCalls, at_once: int) -> None:
        self._store = store
        self._scorer = scorer
        self.slots = asyncio.Semaphore(at_once)

    async def answer(self, call: Evaluating, tenant: str, key: Key | None) -> tuple[dict[str, Any], bool]:
        """The evaluation, and whether it is an earlier answer under this key.

        Errors: KeyInFlight, KeyMismatch, InvalidInput, Busy, Transient.
        """
        evaluation_id = uuid.uuid4()
        if key is not None:
            within = timedelta(seconds=self._scorer.deadline_s + CLAIM_SPARE_S)
            if (known := await self._store.claim(key, evaluation_id, within)) is not None:
                return known, True
        answered = False
        try:
            found = await self._judged(call, evaluation_id)
            prompt = call.asked.prompt if call.asked.store else None
            if key is not None or prompt is not None:
                await self._store.keep_answer(tenant, evaluation_id, found, key=key, prompt=prompt)
            answered = True
        finally:
            if key is not None and not answered:
                await self._release(key, evaluation_id)
        return found, False

    async def _judged(self, call: Evaluating, evaluation_id: uuid.UUID) -> dict[str, Any]:
        asked = call.asked
        values = asked.model_dump(include={"prompt", "asset_type", "image"}) | {"content_type": call.content_type}
        judged = await self._scorer.evaluate(values, call.file)
        own = {"evaluation_id": str(evaluation_id), "asset_type": asked.asset_type, "stored": asked.store}
        return own | judged

    async def _release(self, key: Key, claim: uuid.UUID) -> None:
        try:
            await self._store.release(key, claim)
        except Transient as error:  # it runs out by itself
            log.warning("a claimed key stays claimed for a while", error=str(error))
