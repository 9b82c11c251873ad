"""Which dead letters an operator means. The same selection lists, counts and replays."""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class Selection(BaseModel):
    """Filters on dead letters; all that are given must hold. Times are RFC 3339."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    topic: str | None = None
    stage: str | None = None
    dead_class: Annotated[str | None, Field(alias="class")] = None
    error_type: str | None = None
    fingerprint: str | None = None
    tenant: str | None = None
    request: uuid.UUID | None = None
    state: Literal["open", "replaying", "replayed", "parked", "discarded"] | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    def filters(self) -> tuple[Any, ...]:
        """The first ten parameters of every query that selects."""
        return (
            self.topic, self.stage, self.dead_class, self.error_type, self.fingerprint,
            self.tenant, self.request, self.state, self.since, self.until,
        )  # fmt: skip

    def is_everything(self) -> bool:
        """Whether nothing was narrowed."""
        return all(one is None for one in self.filters())


def cursor_text(died_at: datetime, dlq_id: uuid.UUID) -> str:
    """The place after which the next page begins."""
    return base64.urlsafe_b64encode(json.dumps([died_at.isoformat(), str(dlq_id)]).encode()).decode()


def read_cursor(text: str | None) -> tuple[datetime | None, uuid.UUID | None]:
    """The place a cursor names. Errors: ValueError."""
    if not text:
        return None, None
    try:
        died_at, dlq_id = json.loads(base64.urlsafe_b64decode(text))
        return datetime.fromisoformat(died_at), uuid.UUID(dlq_id)
    except (binascii.Error, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError("is not a cursor of this list") from error
