"""The processes of the line, each with its own pool and transport, as often as replicas are wanted."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import asyncpg
import numpy as np
from PIL import Image

from giclee.bus import database
from giclee.bus.blobs import MemoryBlobs
from giclee.bus.database import Pool
from giclee.bus.errors import Transient
from giclee.bus.gather import Gathered
from giclee.bus.loop import Loop
from giclee.bus.memory import MemoryTransport
from giclee.bus.outbox import PlainRelay, TransactionalRelay
from giclee.bus.settings import DatabaseSettings
from giclee.bus.stage import Context, Stage
from giclee.bus.transport import Record
from giclee.gpu_worker import picture
from giclee.gpu_worker.batch import Batcher
from giclee.gpu_worker.claims import Claims
from giclee.gpu_worker.handle import Worker
from giclee.gpu_worker.provider import Answer, Ask, Description, Made, NotMade
from giclee.gpu_worker.providers.stub import CAPABILITIES, paint
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
from giclee.publisher.handle import stages as publisher_stages
from giclee.publisher.review_queue import Conflict, Filters, ReviewQueue, Said
from giclee.publisher.seal import Sealer
from giclee.publisher.standing import Pace
from giclee.publisher.store import Store as PublisherStore
from giclee.publisher.sweep import Sweeper
from giclee.router.handle import Router
from giclee.router.routes import Catalogue, Offer
from giclee.router.store import Waves
from giclee.schemas import topics as table
from giclee.schemas.events import (
    CancelRequested,
    CandidatesRequested,
    GenerationFailed,
    ImageCleared,
    ImageRefused,
    ImageRequested,
    ImageRouted,
)
from giclee.schemas.models import Model
from giclee.scorer.decode import Decoded
from giclee.scorer.dimension import Evaluator, Measured, Picture
from giclee.scorer.gate import Gate
from giclee.scorer.handle import Scorer
from giclee.scorer.judge import Judge as Examiner
from giclee.scorer.lane import Lane
from giclee.scorer.store import Store as ScorerStore
from tests.interleavings.clockwork import Life, SeededLoop, Turnstile, alone, kill, living
from tests.interleavings.gated import GatedBlobs, GatedTransport, InlineDeriver

PRICE_USD = Decimal("0.0004")
_PAINTED = {
    "revision": "1", "location": "painted", "provider": "stub", "steps": 8, "width": 64, "height": 64, "seconds": 0.1
}  # fmt: skip
MODELS = tuple(
    Model.model_validate(
        {**_PAINTED, "name": name, "qualities": [quality], "price_usd": str(price), "size_max": 64, "batch_max": 1}
    )
    for name, quality, price in (
        ("painter", "final", PRICE_USD),
        ("second", "final", PRICE_USD * 5 / 4),  # somebody to fall back on, and to hedge with
        ("sketcher", "draft", PRICE_USD / 4),
    )
)
WAVES = table.topic_of(CandidatesRequested)
TTL = timedelta(hours=72)
DOUBTED = 0.6
"""An alignment that the gate neither passes nor fails."""
REVIEWER = "reviewer-1"
REVIEWS_EVERY_S = 7.0
REPLICAS: tuple[str, ...] = (
    "intake-1",
    *(f"{kind}-{number}" for kind in ("policy", "router", "worker", "scorer", "publisher") for number in (1, 2)),
)

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass
class Fate:
    """What providers and judges make of an image, by its seed alone, and what was paid for it."""

    seed: int
    pass_share: float
    fail_share: float
    doubt_share: float = 0.0
    paid: dict[str, Decimal] = field(default_factory=dict)
    made: dict[tuple[str, int], int] = field(default_factory=dict)

    def draw(self, *about: object) -> float:
        return random.Random(f"{self.seed}/{about}").random()


class Painter:
    """A provider that now and then fails, and keeps an account of what it was paid."""

    capabilities = CAPABILITIES

    def __init__(self, fate: Fate, turnstile: Turnstile) -> None:
        self._fate, self._turnstile = fate, turnstile

    async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        async with self._turnstile.effect(f"make {len(asks)}"):
            return [self._answer(model, ask) for ask in asks]

    async def describe(self, model: Model) -> Description:
        return Description(weights_sha256=None, where="painted", resident=True)

    async def close(self) -> None: ...

    def _answer(self, model: Model, ask: Ask) -> Answer:
        fate = self._fate
        if fate.draw("fails", model.name, ask.seed) < fate.fail_share:
            return NotMade(outcome="refused-content", message="it would not", code="provider_failed")
        fate.paid[ask.prompt] = fate.paid.get(ask.prompt, Decimal(0)) + model.price_usd
        fate.made[ask.prompt, ask.seed] = fate.made.get((ask.prompt, ask.seed), 0) + 1
        return Made(
            body=picture.encode(paint(ask)),
            content_type=picture.CONTENT_TYPE,
            width=ask.shape.width,
            height=ask.shape.height,
            seconds=0.1,
        )


class _Judge:
    """A dimension that likes as many pictures as the fate says, each for what it shows; of some it cannot tell."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [Measured(self._value(self._fate.draw("passes", p.pixels.tobytes()))) for p in pictures]

    def _value(self, drawn: float) -> float:
        fate = self._fate
        return 1.0 if drawn < fate.pass_share else DOUBTED if drawn < fate.pass_share + fate.doubt_share else 0.0

    def describe(self) -> Evaluator:
        return Evaluator("fate", "1")


class _Likes:
    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [Measured(1.0)] * len(pictures)

    def describe(self) -> Evaluator:
        return Evaluator("fate", "1")


class _Open:
    """A decoder in this process."""

    async def decode(self, body: bytes) -> Decoded:
        with Image.open(io.BytesIO(body)) as image:
            return Decoded(np.asarray(image.convert("RGB")), "WEBP")


class World:
    """The broker, the bucket and the database, and every process that lives on them."""

    def __init__(self, url: str, loop: SeededLoop, turnstile: Turnstile, dice: random.Random, fate: Fate) -> None:
        self.url, self.loop, self.turnstile, self.dice, self.fate = url, loop, turnstile, dice, fate
        self.broker = MemoryTransport(clock_ms=self._clock_ms)
        self.blobs = MemoryBlobs()
        self.lives: dict[str, Life] = {}
        self.transports: dict[str, GatedTransport] = {}
        self.accept: Callable[[ImageRequested], Awaitable[Any]] | None = None
        self.loops: dict[tuple[str, str], Loop] = {}
        self.ended: list[str] = []
        self.ahead_s = 0.0
        self._began_ms: int | None = None
        self._numbers: dict[str, int] = {}

    def starts_at(self, unix_ms: int) -> None:
        """What the database's clock said when the history began."""
        self._began_ms = unix_ms

    def _clock_ms(self) -> int:
        assert self._began_ms is not None
        return self._began_ms + int(self.ahead_s * 1000)

    def topics(self) -> list[str]:
        return [row.name for row in table.all_topics()]

    def broker_size(self) -> int:
        """How many committed records there are in all."""
        return sum(len(self.broker.records(topic)) for topic in self.topics())

    def hedges(self) -> int:
        """How many waves stand in for a silent provider."""
        asked = (CandidatesRequested.model_validate_json(one.value or b"") for one in self.broker.records(WAVES))
        return len({one.event_id() for one in asked if one.hedges})

    def unread(self) -> dict[str, int]:
        """Records that stages have not handled, or not committed."""
        behind = {
            f"{name}: {stage}": loop.progress.pending + self.broker.lag(loop.stage.group, loop.stage.topics())
            for (name, stage), loop in self.loops.items()
            if name in self.lives
        }
        return {name: records for name, records in behind.items() if records}

    # ---- lives ----------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Begin a life of a process."""
        number = self._numbers[name] = self._numbers.get(name, -1) + 1
        life = self.lives[name] = Life(name, number)
        self.transports[name] = GatedTransport(self.broker, self.turnstile, life, self.dice)
        with living(life):
            task = asyncio.get_running_loop().create_task(self._live(name, life))
        task.add_done_callback(lambda ended: self._has_ended(life, ended))

    def _has_ended(self, life: Life, task: asyncio.Task[None]) -> None:
        if not life.dead:
            error = None if task.cancelled() else task.exception()
            self.ended.append(f"{life.title} ended by itself: {error!r}")

    async def _live(self, name: str, life: Life) -> None:
        settings = DatabaseSettings.model_validate({"url": self.url, "pool_max": 8})
        async with database.connect(settings, schema=life.title) as pool, asyncio.TaskGroup() as tasks:
            for work in self._wiring(name, pool):
                tasks.create_task(work())

    async def kill(self, name: str, monitor: asyncpg.Connection) -> None:
        """kill -9: its connections break, what it was about to do is not done, its group finds out later."""
        life = self.lives.pop(name)
        life.dead = True
        await monitor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
            f"giclee-{life.title}",
        )
        await kill(life)
        self.forget(name)

    def forget(self, name: str) -> None:
        """The groups of a process notice that it is silent, and deal out its partitions."""
        for reader in self.transports[name].readers:
            if reader in reader.group.members:
                alone(self.broker.expire(reader))

    # ---- wiring ---------------------------------------------------------------------------------

    def _wiring(self, name: str, pool: Pool) -> list[Work]:
        """What a process of that name runs."""
        kind, transport = name.partition("-")[0], self.transports[name]
        return getattr(self, f"_{kind}")(name, pool, transport)  # type: ignore[no-any-return]

    def _loop(self, name: str, stage: Stage) -> Loop:
        transport = self.transports[name]
        context = Context(stage=stage, send=transport.writer(name).send, cluster_id="memory")
        loop = self.loops[name, stage.name] = Loop(context, transport.reader(stage.group, stage.topics()))
        return loop

    def _policy(self, name: str, pool: Pool, transport: GatedTransport) -> list[Work]:
        emits = (ImageCleared, ImageRefused, CancelRequested)
        handle = Policy(Judge(MODELS), Verdicts(pool), 72).handle
        return [self._loop(name, Stage(name="policy", reads=(ImageRequested,), emits=emits, handle=handle)).run]

    def _router(self, name: str, pool: Pool, transport: GatedTransport) -> list[Work]:
        catalogue = Catalogue(tuple(Offer(model, builtin=True) for model in MODELS), "test")
        reads, emits = (ImageCleared, CandidatesRequested), (ImageRouted, GenerationFailed)
        handle = Router(catalogue, Waves(pool)).handle
        return [self._loop(name, Stage(name="router", reads=reads, emits=emits, handle=handle)).run]

    def _worker(self, name: str, pool: Pool, transport: GatedTransport) -> list[Work]:
        claims, batcher = Claims(pool, "local"), Batcher({"stub": Painter(self.fate, self.turnstile)}, wait_ms=1.0)
        shelf = Shelf({model.name: model for model in MODELS})
        blobs: Any = GatedBlobs(self.blobs, self.turnstile)
        loop = self._loop(name, Worker(claims=claims, shelf=shelf, batcher=batcher, blobs=blobs).stage())

        async def submit(record: Record) -> None:
            await loop.submit(record)

        sweeper, relay = ClaimSweeper(claims, submit), PlainRelay(pool, "gpu_worker", transport)
        return [loop.run, batcher.run, sweeper.renew, sweeper.sweep, relay.run]

    def _scorer(self, name: str, pool: Pool, transport: GatedTransport) -> list[Work]:
        likes = {name: Lane(name, _Likes()) for name in Gate().required("generic", 64)}
        lanes = {**likes, "alignment": Lane("alignment", _Judge(self.fate))}
        blobs: Any = GatedBlobs(self.blobs, self.turnstile)
        decoder: Any = _Open()
        scorer = Scorer(blobs=blobs, judge=Examiner(decoder=decoder, lanes=lanes), store=ScorerStore(pool))
        return [self._loop(name, scorer.stage()).run, *(lane.run for lane in lanes.values())]

    def _publisher(self, name: str, pool: Pool, transport: GatedTransport) -> list[Work]:
        blobs: Any = GatedBlobs(self.blobs, self.turnstile)
        deriver: Any = InlineDeriver()
        store, sealer = PublisherStore(pool, Pace(), "http://assets"), Sealer(blobs, deriver)
        loops = [self._loop(name, stage).run for stage in publisher_stages(store, sealer)]
        plain, once = PlainRelay(pool, "publisher", transport), TransactionalRelay(pool, "publisher", transport)
        return [*loops, plain.run, once.run, Sweeper(store, sealer, 1.0).run]

    def _reviewer(self, name: str, pool: Pool, transport: GatedTransport) -> list[Work]:
        """Somebody who takes the next image every few seconds, says something, and now and then takes it back."""
        queue, fate = ReviewQueue(pool), self.fate

        async def look() -> None:
            for row in await queue.lease("default", name, Filters(limit=1)):
                candidate, drawn = row["candidate_id"], fate.draw("looks", row["candidate_id"])
                verdict = "pass" if drawn < fate.pass_share else "fail"
                codes = ("hands",) if verdict == "fail" else ()
                said = Said(reviewer=name, verdict=verdict, sha256=row["sha256"], reason_codes=codes, seconds=1.0)
                await queue.give("default", candidate, said)
                if self.dice.random() < 0.3:
                    await queue.undo("default", candidate, name)

        async def work() -> None:
            while True:
                try:
                    await look()
                except (Conflict, Transient):
                    pass  # too late, or away for a moment: the next one
                await asyncio.sleep(REVIEWS_EVERY_S)

        return [work]

    def _intake(self, name: str, pool: Pool, transport: GatedTransport) -> list[Work]:
        projection, store = Projection(pool, Bell(), TTL), IntakeStore(pool, TTL)
        handle = partial(status, apply=Gathered(projection.apply, 64))
        stage = Stage(
            name="intake.status", reads=STATUS_READS, emits=(), projection=True, concurrency=64, handle=handle
        )
        self.accept = partial(store.accept, key=None)
        loop, relay = self._loop(name, stage), PlainRelay(pool, "intake", transport)
        return [loop.run, relay.run, Clock(store, projection, {}).run]
