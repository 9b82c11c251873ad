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
from giclee.gpu_worker.bill import Bill, Job, Settled, settle
from giclee.gpu_worker.outcome import Key, Outcome
from giclee.gpu_worker.provider import Answer, NotMade
from giclee.schemas.events import ImageRouted
from giclee.schemas.parts import BlobRef


class Standing(Enum):
    """Why there is nothing to do."""

    ELSEWHERE = "a live claim of another"
    ENDED = "the request has ended and nobody had claimed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A claim as it is stored. Amounts in US dollars; `spent_usd` counts all hops and all fences.

    `billed`: its provider sends bills, so its calls are in the ledger; `job` is what that provider calls its work.
    """

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
    at_risk_usd: Decimal = Decimal(0)
    billed: bool = False
    job: Job | None = None

    @property
    def spent_usd(self) -> Decimal:
        return self.base_usd + self.prior_usd + (self.job.usd if self.job is not None else Decimal(0))

    @property
    def affordable(self) -> bool:
        """Whether another price fits the limit; a job that is stored need not be paid for again."""
        return self.job is not None or self.spent_usd + self.price_usd <= self.limit_usd


@dataclass(slots=True, eq=False)
class Claim:
    """A claim in this process' hands; `job` makes its image, `image` is where that was stored.

    Of a provider that bills: `begun`, the ledger knows of this fence's call; `over_cap`, a cap without room for more;
    `job_id`, what the provider calls its work, known here even where it could not be stored; `replaced`, jobs it made
    another instead of; `bill`, its answer.
    """

    row: Row
    working: bool = False
    lost: bool = False
    parked_at: float = field(default_factory=time.monotonic)
    job: asyncio.Task[Answer] | None = None
    image: BlobRef | None = None
    begun: bool = False
    over_cap: NotMade | None = None
    job_id: str | None = None
    bill: Bill | None = None
    replaced: list[Job] = field(default_factory=list)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def failed(self) -> bool:
        """Whether its job ended without an answer."""
        return self.job is not None and self.job.done() and (self.job.cancelled() or self.job.exception() is not None)

    @property
    def unheard(self) -> bool:
        """Whether a call that may have been billed ended without an answer, and no id leads to its result."""
        return self.failed and self.begun and self.job_id is None

    def settled(self, paid_usd: Decimal) -> Settled:
        """What its end means for its money; a device of our own costs what the decision says, `paid_usd`."""
        if not self.row.billed:
            return Settled(paid_usd, None, ())
        return settle(self.row.fence, self.row.job, self.bill, self.replaced)

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
    job = None if found["job"] is None else Job(found["job"], found["job_fence"], found["job_usd"])
    return Row(
        key=(found["candidate_id"], found["hop"]), record=record, job=job, **{name: found[name] for name in _AS_STORED}
    )


_AS_STORED = (
    "state", "fence", "base_usd", "prior_usd", "price_usd", "limit_usd", "outcome", "detail", "at_risk_usd", "billed",
)  # fmt: skip
