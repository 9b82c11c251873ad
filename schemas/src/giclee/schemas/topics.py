"""The topics: which event travels where, keyed how, kept how long, read by whom. One table.

Stages name events; only this file knows topics. `giclee topics plan|apply` makes the broker look like it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Literal

from giclee.schemas import events

MIB = 1024 * 1024
POOL = "<pool>"
POOLS = ("local", "hosted")
"""Pools of this release; an operator's tables may name more."""


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One topic. `readers` are stage names; a stage's consumer group is `giclee.<stage>`."""

    name: str
    events: tuple[str, ...]
    key: str
    written_by: tuple[str, ...]
    readers: tuple[str, ...]
    partitions: int = 3
    retention_days: int | None = 7
    compacted: bool = False
    public: Literal["in", "out"] | None = None
    max_message_bytes: int = MIB

    @property
    def compression(self) -> str:
        """Topic's `compression.type`. Public topics are gzip whatever a stage sends: every client can read it."""
        return "gzip" if self.public == "out" else "producer"

    def for_pool(self, pool: str) -> Topic:
        """This row with its pool named."""
        readers = tuple(reader.replace(POOL, pool) for reader in self.readers)
        return replace(self, name=self.name.replace(POOL, pool), readers=readers)


STATUS = "intake.status"
WORKER = "gpu-worker.<pool>"

# fmt: off
TABLE: tuple[Topic, ...] = (
    Topic(name="image.requested.v1", events=("ImageRequested",), key="request_id", public="in", partitions=6,
          written_by=("intake", "upstream systems"), readers=("policy", STATUS)),
    Topic(name="image.cancel-requested.v1", events=("CancelRequested",), key="request_id", public="in",
          written_by=("intake", "policy", "upstream systems"), readers=("publisher", STATUS)),
    Topic(name="image.policy-cleared.v1", events=("ImageCleared",), key="request_id",
          written_by=("policy",), readers=("router", "publisher", STATUS)),
    Topic(name="image.refused.v1", events=("ImageRefused",), key="request_id",
          written_by=("policy",), readers=("publisher", STATUS)),
    Topic(name="image.routed.<pool>.v1", events=("ImageRouted",), key="candidate_id", partitions=6,
          written_by=("router", "gpu-worker"), readers=(WORKER, "publisher.hedges", STATUS)),
    Topic(name="image.generated.v1", events=("ImageGenerated",), key="request_id",
          written_by=("gpu-worker",), readers=("scorer", "publisher", STATUS)),
    Topic(name="image.generation-failed.v1", events=("GenerationFailed",), key="request_id",
          written_by=("gpu-worker", "router", "scorer"), readers=("publisher", STATUS)),
    Topic(name="image.scored.v1", events=("ImageScored",), key="request_id", partitions=6,
          written_by=("scorer",), readers=("publisher", "router.health", STATUS)),
    Topic(name="image.candidates-requested.v1", events=("CandidatesRequested",), key="request_id",
          written_by=("publisher",), readers=("router",)),
    Topic(name="image.review-requested.v1", events=("ReviewRequested",), key="request_id",
          written_by=("publisher",), readers=(STATUS,)),
    Topic(name="image.reviewed.v1", events=("ImageReviewed",), key="request_id",
          written_by=("publisher",), readers=(STATUS,)),
    Topic(name="image.approved.v1", events=("ImageApproved", "ImageRevoked"), key="asset_id", public="out",
          retention_days=None, compacted=True, written_by=("publisher",), readers=(STATUS,)),
    Topic(name="image.closed.v1", events=("RequestClosed",), key="request_id", public="out", retention_days=30,
          written_by=("publisher",), readers=(WORKER, STATUS)),
    Topic(name="image.stalled.v1", events=("ImageStalled",), key="request_id", public="out", retention_days=30,
          written_by=("any stage",), readers=("publisher", STATUS)),
    Topic(name="provider.outcome.v1", events=("ProviderOutcome",), key="provider",
          written_by=("gpu-worker",), readers=("router.health",)),
    Topic(name="provider.health.v1", events=("ProviderHealth",), key="provider", compacted=True, retention_days=None,
          partitions=1, written_by=("router.health",), readers=()),
    Topic(name="switch.set.v1", events=("SwitchSet",), key="scope", compacted=True, retention_days=None,
          partitions=1, written_by=("replay",), readers=()),
    Topic(name="gate.set.v1", events=("GateSet",), key="place", compacted=True, retention_days=None,
          partitions=1, written_by=("replay",), readers=()),
    Topic(name="price.set.v1", events=("PriceSet",), key="place", compacted=True, retention_days=None,
          partitions=1, written_by=("replay",), readers=()),
)

CHANGELOGS: tuple[Topic, ...] = (
    Topic(name="giclee.router.health-outcomes-changelog", events=(), key="provider", compacted=True,
          retention_days=None, written_by=("router.health",), readers=()),
    Topic(name="giclee.router.health-scores-changelog", events=(), key="provider", compacted=True, partitions=6,
          retention_days=None, written_by=("router.health",), readers=()),
)
"""Memory of provider health, named and read by Faust: no events, partitions as the topic that each counts."""
# fmt: on

DEAD_LETTER_MAX_BYTES = MIB + MIB // 4
"""A dead letter is its record plus headers; it must fit where the record did."""

NO_DEAD_LETTERS = frozenset(
    {"provider.outcome.v1", "provider.health.v1", "switch.set.v1", "gate.set.v1", "price.set.v1"}
)
"""Topics without stages of ours that could fail on them."""


def _with_pools(pools: tuple[str, ...]) -> list[Topic]:
    rows: list[Topic] = []
    for row in TABLE:
        rows += [row.for_pool(pool) for pool in pools] if POOL in row.name else [row]
    return rows


def _beside(row: Topic) -> list[Topic]:
    """The `.dlq` and `.held` topics of a row: same partitions, 30 days, room for added headers."""
    shadow = replace(row, compacted=False, public=None, retention_days=30, max_message_bytes=DEAD_LETTER_MAX_BYTES)
    return [
        replace(shadow, name=f"{row.name}.dlq", written_by=("any stage",), readers=("replay",)),
        replace(shadow, name=f"{row.name}.held", written_by=("any stage",), readers=("replay",)),
    ]


def all_topics(pools: tuple[str, ...] = POOLS) -> list[Topic]:
    """Every topic that must exist, dead-letter and held topics included."""
    rows = _with_pools(pools)
    shadows = [shadow for row in rows if row.name not in NO_DEAD_LETTERS for shadow in _beside(row)]
    return [*rows, *CHANGELOGS, *shadows]


def groups(pools: tuple[str, ...] = POOLS) -> dict[str, list[str]]:
    """Every consumer group with the topics it reads; `topics apply` makes their first offsets."""
    found: dict[str, list[str]] = {}
    for row in all_topics(pools):
        for reader in row.readers:
            found.setdefault(f"giclee.{reader}", []).append(row.name)
    for pool in pools:  # a routed topic is read by its own pool's workers, a closing by every pool's
        mine = found.setdefault(f"giclee.gpu-worker.{pool}", [])
        mine += [row.name for row in TABLE if WORKER in row.readers and POOL not in row.name]
    found.pop("giclee.gpu-worker.<pool>", None)
    return found


_TOPIC_OF_EVENT = {name: row for row in TABLE for name in row.events}


def row_of(event: type[events.Event]) -> Topic:
    """The row of an event's topic. Errors: KeyError for an event that no topic carries."""
    return _TOPIC_OF_EVENT[event.__name__]


@lru_cache(maxsize=256)
def topic_of(event: type[events.Event], pool: str | None = None) -> str:
    """The topic an event travels on; ImageRouted needs its pool."""
    name = row_of(event).name
    if POOL not in name:
        return name
    if pool is None:
        raise ValueError(f"{event.__name__} travels on {name}: name the pool")
    return name.replace(POOL, pool)


def topic_for(event: events.Event) -> str:
    """The topic this very event travels on."""
    return topic_of(type(event), event.pool() if isinstance(event, events.ImageRouted) else None)


@cache
def events_on(topic: str) -> tuple[type[events.Event], ...]:
    """The events a topic may carry; `.dlq` and `.held` carry their source's."""
    source = topic.removesuffix(".dlq").removesuffix(".held")
    for row in TABLE:
        head, found, tail = row.name.partition(POOL)
        if row.name == source or (found and source.startswith(head) and source.endswith(tail)):
            return tuple(events.EVENTS[f"giclee.{name}.v1"] for name in row.events)
    raise KeyError(f"no topic {topic} in the table")


@cache
def readers_of(topic: str) -> tuple[str, ...]:
    """The stages that read a topic; a reader of every pool stays `gpu-worker.<pool>` on a topic without a pool."""
    for row in TABLE:
        head, found, tail = row.name.partition(POOL)
        if row.name == topic:
            return row.readers
        if found and topic.startswith(head) and topic.endswith(tail):
            return row.for_pool(topic[len(head) : len(topic) - len(tail)]).readers
    return ()


@cache
def owner_of(topic: str) -> str | None:
    """The stage that owns records of `topic` that nobody can decode: the first reader that is one stage."""
    return next((reader for reader in readers_of(topic) if POOL not in reader), None)


def is_read_by(topic: str, stage: str) -> bool:
    """Whether a stage of that name reads `topic`, whatever its pool."""
    return any(
        stage == reader or (POOL in reader and stage.startswith(reader.partition(POOL)[0]))
        for reader in readers_of(topic)
    )
