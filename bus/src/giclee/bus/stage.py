"""A stage: a handler with the events it reads and emits. Data only; `run.py` runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from giclee.bus.dlq import DeadLetter
from giclee.bus.transport import Record, Send
from giclee.schemas import topics
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import Event, ImageRouted
from giclee.schemas.parts import Reason

Handler = Callable[[Any], Awaitable[Sequence[Event]]]
Refuse = Callable[[Any, Reason], Awaitable[Sequence[Event]]]


@dataclass(frozen=True, slots=True)
class Burial:
    """What a stage knows about a record that is about to become a dead letter.

    `origin` replaces the record's own place as identity of the dead letter (contract rule 8: the dead
    letter of a claim keeps the identity of the record that opened it); `wanted` False means that another
    owner decides and nothing is written.
    """

    wanted: bool = True
    origin: str | None = None
    paid_usd: Decimal | None = None


async def _bury(event: Event | None, error: BaseException) -> Burial:
    return Burial()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A handler and what surrounds it.

    `handle` takes one event and returns what it emits; it runs up to `concurrency` times at once, in order
    per key, and is given `deadline_s` seconds. `bury(event, error)` is asked before a dead letter is
    written; `settled(events)` is told, in batches, which handled events had all they emitted acknowledged.
    A `projection` (status, health) never announces stalls. `refuse(event, reason)` answers for an event that a
    switch refuses; a stage without it makes a dead letter.
    """

    name: str
    reads: tuple[type[Event], ...]
    emits: tuple[type[Event], ...]
    handle: Handler
    concurrency: int = 16
    attempts: int = 5
    deadline_s: float = 30.0
    pool: str | None = None
    pools: tuple[str, ...] = topics.POOLS
    projection: bool = False
    refuse: Refuse | None = None
    bury: Callable[[Event | None, BaseException], Awaitable[Burial]] = _bury
    settled: Callable[[Sequence[Event]], Awaitable[None]] | None = None

    @property
    def group(self) -> str:
        return f"giclee.{self.name}"

    def topics(self) -> tuple[str, ...]:
        """The topics this stage reads; a stage without a `pool` reads ImageRouted of all `pools`."""
        found: list[str] = []
        for event in self.reads:
            if event is ImageRouted and self.pool is None:
                found += [topics.topic_of(event, pool) for pool in self.pools]
            else:
                found.append(topics.topic_of(event, self.pool))
        return tuple(dict.fromkeys(found))


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One record on its way through the layers, over all tries; `event` is there once the codec has read it.

    `letter` and `error` are there once it has died: what is left to do is to write the dead letter.
    """

    record: Record
    envelope: Envelope
    event: Event | None = None
    attempts: int = 0
    first_failed_at: str | None = None
    letter: DeadLetter | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What layers share: the stage they surround and the way out for a record that must be acknowledged now."""

    stage: Stage
    send: Send
    cluster_id: str
    version: str = "0.1.0"
    topic_prefix: str = ""
    parts: dict[str, Any] = field(default_factory=dict)


Emits = Sequence[Record]
Next = Callable[[Delivery], Awaitable[Any]]
Layer = Callable[[Context, Next], Next]
"""A layer makes, for one stage, a function around the next one inward. Inside the codec the result is
events, outside it is records."""
