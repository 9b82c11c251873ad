"""A claim on a candidate's hop: as it is stored, and as this process holds it. `claims.py` keeps them."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any

from giclee.bus.transport import Record
from giclee.gpu_worker.outcome import Key, Outcome
from giclee.gpu_worker.provider import Answer
from giclee.schemas.events import ImageRouted
from giclee.schemas.parts import BlobRef


class Standing(Enum):
    """Why there is nothing to do."""

    ELSEWHERE = "a live claim of another"
    ENDED = "the request has ended and nobody had claimed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A claim as it is stored. Amounts in US dollars; `spent_usd` counts all hops and all fences."""

    key: Key
    state: str
    fence: int
    base_usd: Decimal
    prior_usd: Decimal
    price_usd: Decimal
    limit_usd: Decimal
    record: Record
    outcome: Outcome | None
    detail: dict[str, Any]

    @property
    def spent_usd(self) -> Decimal:
        return self.base_usd + self.prior_usd

    @property
    def affordable(self) -> bool:
        return self.spent_usd + self.price_usd <= self.limit_usd


@dataclass(slots=True, eq=False)
class Claim:
    """A claim in this process' hands; `job` makes its image, `image` is where that was stored."""

    row: Row
    working: bool = False
    lost: bool = False
    parked_at: float = field(default_factory=time.monotonic)
    job: asyncio.Task[Answer] | None = None
    image: BlobRef | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        """A handler works on it."""
        self.working = True
        self.idle.clear()

    def park(self) -> None:
        """The handler left; the bus may bring the record again soon."""
        self.working, self.parked_at = False, time.monotonic()
        self.idle.set()


def record_of(routed: ImageRouted) -> tuple[str, bytes, bytes, Sequence[Sequence[str]], int]:
    """The record an event came in, as its columns; headers are bytes and jsonb is text, hence base64."""
    envelope = routed.envelope
    value = envelope.value or routed.model_dump_json(exclude_none=True, by_alias=True).encode()
    headers = [[name, base64.b64encode(raw).decode()] for name, raw in envelope.headers]
    recorded_ms = int(envelope.recorded_at.timestamp() * 1000)
    return envelope.origin, routed.key().encode(), value, headers, recorded_ms


def row_of(found: Any) -> Row:
    """A claim from its columns."""
    topic, partition, offset = found["origin"].rsplit(":", 2)
    record = Record(
        topic=topic,
        partition=int(partition),
        offset=int(offset),
        key=found["record_key"],
        value=found["record_value"],
        headers=tuple((name, base64.b64decode(text)) for name, text in found["record_headers"]),
        timestamp_ms=found["recorded_ms"],
    )
    same = ("state", "fence", "base_usd", "prior_usd", "price_usd", "limit_usd", "outcome", "detail")
    return Row(key=(found["candidate_id"], found["hop"]), record=record, **{name: found[name] for name in same})
