"""What a caller sends becomes a request: the strict door, the key's tenant, and one transaction.

The transaction (store.accept) writes the answer under the Idempotency-Key, the request's row and the outbox row
together, so a 202 is never without its record on the topic.
"""

from __future__ import annotations

import hashlib
import re
import uuid

from giclee.intake.store import Accepted, Key, Store
from giclee.schemas import strict
from giclee.schemas.events import CancelRequested, ImageRequested
from giclee.schemas.strict import FieldError, InvalidInput

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
KEY_RULE = "Idempotency-Key must be 1 to 255 printable ASCII characters without spaces"


def request_of(raw: bytes, tenant: str) -> ImageRequested:
    """The request in a body, for the tenant that the key decides; a missing id is made. Errors: InvalidInput."""
    values = strict.parse_json(raw)
    errors: list[FieldError] = []
    if isinstance(values, dict):
        if values.get("tenant") not in (None, tenant):
            errors.append(FieldError("/tenant", f"is decided by the key, which belongs to {tenant}; leave it out"))
        missing = values.get("request_id") is None
        values = {**values, "tenant": tenant, **({"request_id": str(uuid.uuid4())} if missing else {})}
    try:
        request = strict.request_from(values)
    except InvalidInput as error:
        raise InvalidInput([*errors, *error.errors]) from None
    if errors:
        raise InvalidInput(errors)
    return request


async def accept(store: Store, raw: bytes, *, tenant: str, route: str, key: str | None) -> Accepted:
    """Accept the request in `raw`, once. Errors: InvalidInput, Conflict's three of store.py, Transient."""
    request = request_of(raw, tenant)
    return await store.accept(request, None if key is None else Key(tenant, route, key, hashlib.sha256(raw).digest()))


def is_key(text: str) -> bool:
    """Whether a text may be an Idempotency-Key."""
    return _KEY.fullmatch(text) is not None


def note_of(raw: bytes) -> str | None:
    """The note in the optional body of a cancel, `{"note": "…"}`. Errors: InvalidInput."""
    if not raw.strip():
        return None
    values = strict.parse_json(raw)
    if not isinstance(values, dict):
        raise InvalidInput([FieldError("", "must be a JSON object")])
    says = "is not a field of this message"
    if unknown := [FieldError(strict.pointer((name,)), says, "unknown_field") for name in values if name != "note"]:
        raise InvalidInput(unknown)
    cancel: CancelRequested = strict.cancel_from({**values, "request_id": str(uuid.UUID(int=0))})
    return cancel.note
