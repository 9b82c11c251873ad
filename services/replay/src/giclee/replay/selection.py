"""Which dead letters an operator means. The same selection lists, counts, clusters, exports and replays."""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

Offset = Annotated[int, Field(ge=0, lt=2**63)]


def _range(given: object) -> object:
    """`A-B` or `A` as a pair; both ends belong to it."""
    if not isinstance(given, str):
        return given
    first, dash, last = given.partition("-")
    return first, last if dash else first


class Selection(BaseModel):
    """Filters on dead letters; all that are given must hold. Times are RFC 3339; `offsets` is "A-B" or "A"."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    topic: str | None = None
    stage: str | None = None
    dead_class: Annotated[str | None, Field(alias="class")] = None
    error_type: str | None = None
    fingerprint: str | None = None
    service_version: str | None = None
    provider: str | None = None
    model: str | None = None
    tenant: str | None = None
    request: uuid.UUID | None = None
    batch: str | None = None
    key: str | None = None
    partition: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    offsets: Annotated[tuple[Offset, Offset] | None, BeforeValidator(_range)] = None
    state: Literal["open", "replaying", "replayed", "parked", "discarded"] | None = None
    run: uuid.UUID | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    def filters(self, ids: list[uuid.UUID] | None = None) -> tuple[Any, ...]:
        """The parameters $1 to $20 of every query that selects."""
        first, last = self.offsets or (None, None)
        return (
            self.topic, self.stage, self.dead_class, self.error_type, self.fingerprint, self.service_version,
            self.provider, self.model, self.tenant, self.request, self.batch,
            None if self.key is None else self.key.encode(errors="replace"), self.partition, first, last,
            self.state, self.run, self.since, self.until, ids,
        )  # fmt: skip

    def is_everything(self) -> bool:
        """Whether nothing was narrowed."""
        return all(one is None for one in self.filters())

    def as_json(self) -> dict[str, Any]:
        """What was given, under the names it was given by."""
        named = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        if self.offsets is not None:
            named["offsets"] = "-".join(map(str, self.offsets))
        return named


def cursor_text(*place: object) -> str:
    """The place after which the next page begins."""
    texts = [one.isoformat() if isinstance(one, datetime) else str(one) for one in place]
    return base64.urlsafe_b64encode(json.dumps(texts).encode()).decode()


def read_cursor(text: str | None) -> tuple[datetime | None, uuid.UUID | None]:
    """The place a cursor names. Errors: ValueError."""
    if not text:
        return None, None
    try:
        died_at, dlq_id = json.loads(base64.urlsafe_b64decode(text))
        return datetime.fromisoformat(died_at), uuid.UUID(dlq_id)
    except (binascii.Error, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError("is not a cursor of this list") from error
