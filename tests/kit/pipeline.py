"""All stages in one process over the memory transport: real stores, a real Postgres, the stub provider.

What travels can be held, doubled, dropped or let go per topic, so that each event can arrive first, last,
twice or never. Two publishers run on one database, as two replicas would.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from giclee.bus import database, outbox
from giclee.bus.blobs import MemoryBlobs
from giclee.bus.gather import Gathered
from giclee.bus.loop import Loop
from giclee.bus.memory import MemoryTransport
from giclee.bus.settings import DatabaseSettings
from giclee.bus.stage import Context, Stage
from giclee.bus.table import Table
from giclee.bus.transport import Lookup, Reader, Record, Transport, Writer
from giclee.gpu_worker.batch import Batcher
from giclee.gpu_worker.claims import Claims
from giclee.gpu_worker.handle import Worker
from giclee.gpu_worker.providers.stub import Stub
from giclee.gpu_worker.shelf import Shelf
from giclee.gpu_worker.sweep import Sweeper as ClaimSweeper
from giclee.intake.clock import Clock
from giclee.intake.handle import READS as STATUS_READS
from giclee.intake.handle import handle as status
from giclee.intake.projection import Projection
from giclee.intake.store import Store as IntakeStore
from giclee.intake.stream import Bell
from giclee.policy.handle import Policy
from giclee.policy.store import Verdicts
from giclee.policy.verdict import Judge
from giclee.publisher.derive import Deriver, deriving
from giclee.publisher.handle import stages as publisher_stages
from giclee.publisher.review_queue import ReviewQueue
from giclee.publisher.seal import Sealer
from giclee.publisher.standing import Pace
from giclee.publisher.store import Store as PublisherStore
from giclee.publisher.sweep import Sweeper
from giclee.router.handle import Router
from giclee.router.routes import Catalogue, Offer
from giclee.router.store import Waves
from giclee.schemas.envelope import REPLAY_FOR
from giclee.schemas.events import (
    EVENTS,
    CancelRequested,
    CandidatesRequested,
    Event,
    GenerationFailed,
    ImageCleared,
    ImageGenerated,
    ImageRefused,
    ImageRequested,
    ImageRouted,
    ImageScored,
    RequestClosed,
    SwitchSet,
)
from giclee.schemas.models import Model
from giclee.schemas.parts import Position, Score
from giclee.schemas.topics import topic_of
from giclee.scorer.handle import given_up
from tests.kit.wait import until

PROMPT = "a small red circle on a blue background"
_PAINTED = {"revision": "1", "location": "painted", "provider": "stub", "steps": 8, "width": 64, "height": 64}
MODELS = tuple(
    Model.model_validate({**_PAINTED, "name": name, "qualities": [quality], "price_usd": price, "size_max": 64})
    for name, quality, price in (("painter", "final", "0.0004"), ("sketcher", "draft", "0.0001"))
)

COUNTED = Pace(surplus_share=0.0)
"""Waves of exactly what is missing, so that tests can say how many candidates there are."""


class Gate:
    """A transport with rules: `topic` -> hold, twice or drop for what is written; `group:topic` -> hold for what
    one group would read, while others read it, or replays for all of that but replays.
    """

    def __init__(self, inner: MemoryTransport) -> None:
        self.inner = inner
        self.rules: dict[str, str] = {}
        self.held: dict[str, list[Record]] = {}

    async def cluster_id(self) -> str:
        return await self.inner.cluster_id()

    def reader(self, group: str, topics: Sequence[str]) -> Reader:
        return _GatedReader(self, self.inner.reader(group, topics), group)

    def numbered(self, name: str, topics: Sequence[str]) -> Any:
        return self.inner.numbered(name, topics)

    def lookup(self) -> Lookup:
        return self.inner.lookup()

    def writer(self, name: str) -> Writer:
        return _Gated(self, self.inner.writer(name))

    async def let_go(self, topic: str) -> None:
        """Send (or let be read) what was held, and hold no longer."""
        self.rules.pop(topic, None)
        if ":" in topic:
            return
        writer = self.inner.writer("gate")
        await writer.start()
        await writer.send(self.held.pop(topic, []))


class _GatedReader:
    """A reader that keeps back what a rule holds from its group, and hands it out when the rule is gone."""

    def __init__(self, gate: Gate, inner: Reader, group: str) -> None:
        self._gate, self._inner, self._group = gate, inner, group
        self._kept: list[Record] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def poll(self, timeout_ms: int, max_records: int) -> Sequence[Record]:
        found = [*self._kept, *await self._inner.poll(20 if self._kept else timeout_ms, max_records)]
        self._kept = [one for one in found if self._holds(one)]
        return [one for one in found if one not in self._kept]

    def _holds(self, record: Record) -> bool:
        rule = self._gate.rules.get(f"{self._group}:{record.topic}")
        return rule == "hold" or (rule == "replays" and REPLAY_FOR not in dict(record.headers))


class _Gated:
    def __init__(self, gate: Gate, inner: Writer) -> None:
        self.gate, self.inner = gate, inner

    async def start(self) -> None:
        await self.inner.start()

    async def stop(self) -> None:
        await self.inner.stop()

    async def send(self, records: Sequence[Record]) -> Sequence[Position]:
        found: list[Position] = []
        for record in records:
            rule = self.gate.rules.get(record.topic)
            if rule == "hold":
                self.gate.held.setdefault(record.topic, []).append(record)
            if rule in ("hold", "drop"):
                found.append(Position(topic=record.topic, partition=0, offset=-1))
                continue
            sent = await self.inner.send([record] * (2 if rule == "twice" else 1))
            found.append(sent[0])
        return found


Judged = Callable[[ImageGenerated], bool | None]
"""Whether an image passes; None when the gate cannot tell."""


@dataclass
class Line:
    """A running line. `judged` says which images pass; `stub` is what the workers paint with."""

    gate: Gate
    pool: database.Pool
    blobs: MemoryBlobs
    stub: Stub
    judged: Judged
    pace: Pace
    loops: dict[str, Loop] = field(default_factory=dict)
    sweepers: list[Sweeper] = field(default_factory=list)
    claim_sweepers: list[ClaimSweeper] = field(default_factory=list)
    clock: Clock | None = None
    reviews: list[ReviewQueue] = field(default_factory=list)

    async def ask(self, request_id: uuid.UUID | None = None, **fields: Any) -> uuid.UUID:
        """Publish a request as an upstream system does; its id."""
        rid = request_id or uuid.uuid4()
        body = {"request_id": str(rid), "prompt": PROMPT, **fields}
        await self.send(Record(topic="image.requested.v1", key=str(rid).encode(), value=json.dumps(body).encode()))
        return rid

    async def cancel(self, rid: uuid.UUID, **fields: Any) -> None:
        """Publish a cancel as an upstream system does."""
        body = {"request_id": str(rid), **fields}
        await self.send(
            Record(topic="image.cancel-requested.v1", key=str(rid).encode(), value=json.dumps(body).encode())
        )

    async def send(self, *records: Record) -> None:
        writer = self.gate.writer("test")
        await writer.start()
        await writer.send(records)

    def events(self, kind: type[Event]) -> list[Any]:
        """Every event of a kind on its topic, as a committed reader sees it."""
        topics = {topic_of(kind, pool) for pool in ("local", "hosted")} if kind is ImageRouted else {topic_of(kind)}
        records = [record for topic in topics for record in self.gate.inner.records(topic)]
        named = [
            record for record in records if dict(record.headers).get("ce_type", b"").decode() in ("", kind.type_name)
        ]
        return [EVENTS[kind.type_name].model_validate_json(record.value or b"") for record in named]

    def of(self, kind: type[Event], rid: uuid.UUID) -> list[Any]:
        return [event for event in self.events(kind) if event.request_id == rid]

    async def closed(self, rid: uuid.UUID, within_s: float = 60.0) -> RequestClosed:
        """The closing of a request; fails when there is none in time, or more than one."""
        await until(lambda: self.of(RequestClosed, rid), within_s)
        await self.quiet()
        closings = self.of(RequestClosed, rid)
        assert len(closings) == 1, closings
        found: RequestClosed = closings[0]
        return found

    async def quiet(self, within_s: float = 60.0) -> None:
        """Wait until nobody has anything left to do: no lag, no outbox rows, nothing in flight."""
        await until(self._is_quiet, within_s)

    async def _is_quiet(self) -> bool:
        for loop in self.loops.values():
            held = {rule.partition(":")[2] for rule in self.gate.rules if rule.startswith(f"{loop.stage.group}:")}
            read = [topic for topic in loop.stage.topics() if topic not in held]
            if loop.progress.pending or self.gate.inner.lag(loop.stage.group, read):
                return False
        left = await self.pool.fetchval(
            "SELECT (SELECT count(*) FROM intake.outbox) + (SELECT count(*) FROM publisher.outbox)"
        )
        return bool(left == 0)

    async def sweep(self) -> None:
        """One round of every clock, now."""
        for sweeper in self.sweepers:
            await sweeper.sweep()
        for claims in self.claim_sweepers:
            await claims.once()
        if self.clock:
            await self.clock.tick()

    def dead_letters(self, topic: str) -> list[Record]:
        return self.gate.inner.records(f"{topic}.dlq")


async def _score(event: ImageGenerated, *, judged: Judged) -> list[Event]:
    """What the scorer answers, decided by the test."""
    if event.envelope.discard:
        return [given_up(event)]
    passes = judged(event)
    value, verdict = {True: (0.9, "pass"), None: (0.4, "unsure"), False: (0.1, "fail")}[passes]
    score = Score(value=value, threshold=0.5, verdict=verdict, evaluator="test", evaluator_version="1")
    phash = event.image.sha256 * 3 if passes is None else None
    scored = ImageScored(
        **event.echo(), candidate_id=event.candidate_id, index=event.index, hop=event.hop, sha256=event.image.sha256,
        scores={"alignment": score}, verdict=score.verdict, gate_version="g-test", asset_type=event.asset_type,
        phash=phash,
    )  # fmt: skip
    return [scored]


def _stages(line: Line, transport: Transport, deriver: Deriver, batcher: Batcher) -> list[tuple[str, Stage]]:
    pool, ttl = line.pool, timedelta(hours=72)
    catalogue = Catalogue(tuple(Offer(model, builtin=True) for model in MODELS), "test")
    projection = Projection(pool, Bell(), ttl)
    claims = Claims(pool, "local")
    worker = Worker(
        claims=claims, shelf=Shelf({model.name: model for model in MODELS}), batcher=batcher, blobs=line.blobs
    )
    switches: Table[SwitchSet] = Table(SwitchSet, transport)
    line.clock = Clock(IntakeStore(pool, ttl), projection, switches.rows)
    worker_stage = worker.stage()

    async def submit(record: Record) -> None:
        await line.loops[worker_stage.name].submit(record)

    line.claim_sweepers.append(ClaimSweeper(claims, submit))
    found = [
        ("policy", Stage(name="policy", reads=(ImageRequested,), emits=(ImageCleared, ImageRefused, CancelRequested),
                         handle=Policy(Judge(MODELS), Verdicts(pool), 72).handle)),
        ("router", Stage(name="router", reads=(ImageCleared, CandidatesRequested),
                         emits=(ImageRouted, GenerationFailed),
                         handle=Router(catalogue, Waves(pool)).handle)),
        (worker_stage.name, worker_stage),
        ("scorer", Stage(name="scorer", reads=(ImageGenerated,), emits=(ImageScored, GenerationFailed),
                         handle=partial(_score, judged=lambda event: line.judged(event)))),
        ("intake.status", Stage(name="intake.status", reads=STATUS_READS, emits=(), projection=True, concurrency=64,
                                handle=partial(status, apply=Gathered(projection.apply, 64)))),
    ]  # fmt: skip
    for number in (1, 2):  # two publishers on one order, as two replicas hold events of different topics
        store = PublisherStore(pool, line.pace, "http://assets")
        sealer = Sealer(line.blobs, deriver)
        line.sweepers.append(Sweeper(store, sealer, 60.0))
        line.reviews.append(store.reviews)
        for stage in publisher_stages(store, sealer):
            found.append((f"{stage.name}-{number}", stage))
    return found


@asynccontextmanager
async def running(
    url: str, *, judged: Judged = lambda event: True, stub: Stub | None = None, pace: Pace | None = None,
    rules: dict[str, str] | None = None, transport: Any = None, blobs: Any = None,
) -> AsyncIterator[Line]:  # fmt: skip
    """A line on the database at `url`, drained and stopped at the end; `transport` and `blobs` may be real ones."""
    async with AsyncExitStack() as opened:
        pool = await opened.enter_async_context(database.connect(DatabaseSettings(url=url, pool_max=10), schema="test"))
        deriver = await opened.enter_async_context(deriving())
        gate = Gate(transport or MemoryTransport())
        gate.rules |= rules or {}
        line = Line(gate, pool, blobs or MemoryBlobs(), stub or Stub(), judged, pace or COUNTED)
        batcher = Batcher({"stub": line.stub}, wait_ms=1.0)
        writer = gate.writer("line")
        await writer.start()
        for name, stage in _stages(line, gate, deriver, batcher):
            context = Context(stage=stage, send=writer.send, cluster_id="memory")
            line.loops[name] = Loop(context, gate.reader(stage.group, stage.topics()))
        relays = [
            outbox.PlainRelay(pool, "intake", gate).run,
            outbox.PlainRelay(pool, "publisher", gate).run,
            outbox.TransactionalRelay(pool, "publisher", gate).run,
            batcher.run,
        ]
        background = [asyncio.create_task(work()) for work in relays]
        loops = [asyncio.create_task(loop.run()) for loop in line.loops.values()]
        try:
            yield line
        finally:
            for loop in line.loops.values():
                loop.stop()
            await asyncio.wait(loops, timeout=30)
            for task in (*background, *loops):
                task.cancel()
            await asyncio.gather(*background, *loops, return_exceptions=True)
