"""Four guards of the product, each taken out from outside while its race is provoked: the checker turns red.

The same provocation with the guard in place is green. All stages run in this process on a real broker, database and
bucket; nothing is left to luck: who waits for whom is arranged, and every wait has a bound.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from giclee.bus import blobs, database
from giclee.bus.kafka import KafkaTransport
from giclee.bus.kafka.numbered import KafkaNumberedWriter
from giclee.bus.layers import codec, retry
from giclee.bus.outbox import TransactionalRelay
from giclee.bus.settings import BlobSettings, KafkaSettings
from giclee.bus.transport import Record
from giclee.gpu_worker import picture
from giclee.gpu_worker.batch import Batcher
from giclee.gpu_worker.claims import Claims
from giclee.gpu_worker.handle import Worker
from giclee.gpu_worker.providers.stub import Stub
from giclee.gpu_worker.shelf import Shelf
from giclee.gpu_worker.sweep import Sweeper as ClaimSweeper
from giclee.infra import topics
from giclee.models import world
from giclee.publisher import facts, handle, seal, store
from giclee.publisher.facts import Fact, SealedImage
from giclee.publisher.order import Order
from giclee.schemas import envelope as wire
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import CancelRequested, ImageRouted
from tests.chaos.driving import Driven, driven
from tests.chaos.invariants import Report
from tests.kit import pipeline
from tests.kit.pipeline import Line
from tests.kit.stack import KafkaRunning, PostgresRunning, S3Running, Stack
from tests.kit.wait import until

pytestmark = pytest.mark.real

World = tuple[Driven, Line]
IN_PLACE = pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])


@pytest.fixture
def env(
    kafka: KafkaRunning, postgres: PostgresRunning, s3: S3Running, database: str, topic_prefix: str
) -> Mapping[str, str]:
    """The environment of services on fresh topics and a fresh database."""
    topics.apply(topics.Target(kafka.bootstrap_servers, topic_prefix, 1))
    return {
        **Stack(kafka, postgres, s3).env(),
        "DATABASE_URL": database,
        "GICLEE_TOPIC_PREFIX": topic_prefix,
    }


@asynccontextmanager
async def observed(folder: Path, env: Mapping[str, str], **options: Any) -> AsyncIterator[World]:
    """All stages on real parts, watched by the recorders."""
    names = {"endpoint_url": "AWS_ENDPOINT_URL_S3", "region": "AWS_REGION", "bucket": "GICLEE_BUCKET"}
    settings = BlobSettings(
        access_key_id=SecretStr(env["AWS_ACCESS_KEY_ID"]),
        secret_access_key=SecretStr(env["AWS_SECRET_ACCESS_KEY"]),
        **{name: env[variable] for name, variable in names.items()},
    )
    kafka = KafkaSettings(bootstrap_servers=env["KAFKA_BOOTSTRAP_SERVERS"], topic_prefix=env["GICLEE_TOPIC_PREFIX"])
    async with (
        blobs.connect(settings) as bucket,
        driven(folder / "run", env) as run,
        pipeline.running(env["DATABASE_URL"], transport=KafkaTransport(kafka), blobs=bucket, **options) as line,
    ):
        yield run, line


async def judged(run: Driven, line: Line, kind: str, **fields: Any) -> Report:
    """What the checker says once nothing is left to send; the provocation is told as a fault."""

    async def sent() -> bool:
        return not await line.pool.fetchval("SELECT count(*) FROM publisher.outbox")

    await until(sent, 30)
    run.fault(kind, proof={"provoked": True}, **fields)
    return await run.judged(faults_min=1)


def edit_query(patch: pytest.MonkeyPatch, name: str, guard: str, instead: str = "") -> None:
    """Take a guard out of a query of whoever has one of that name. Errors: AssertionError when it is not in it."""
    asked = database.Queries.__getattr__

    def edited(queries: database.Queries, wanted: str) -> str:
        text = asked(queries, wanted)
        if wanted == name:
            assert guard in text, f"{name} has no {guard!r}"
            text = text.replace(guard, instead)
        return text

    patch.setattr(database.Queries, "__getattr__", edited)


# ---- one end per order ------------------------------------------------------------------------------------


class Crossing:
    """Holds the first decision that ends an order until a second one is as far, or waits for the first one's lock."""

    def __init__(self) -> None:
        self.ending = 0
        self.pool: database.Pool | None = None

    def around(self, publish: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def crossing(store_: Any, connection: Any, plans: Sequence[Any], *others: Any) -> Any:
            if any(plan.decision.ending for plan in plans):
                self.ending += 1
                await until(self._met, 20)
            return await publish(store_, connection, plans, *others)

        return crossing

    async def _met(self) -> bool:
        """Two endings are decided, or somebody waits for a lock."""
        assert self.pool is not None
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return self.ending > 1 or bool(await self.pool.fetchval(waiting))


@IN_PLACE
async def test_two_replicas_that_end_one_order_at_once(
    guarded: bool, env: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica approves while another cancels: one end with the order's lock and compare-and-set, two without."""
    crossing = Crossing()
    monkeypatch.setattr(store.Store, "_publish", crossing.around(store.Store._publish))
    if not guarded:
        edit_query(monkeypatch, "lock_orders", "FOR NO KEY UPDATE OF o")
        edit_query(monkeypatch, "close_orders", "AND o.closed_at IS NULL")
    async with observed(tmp_path, env) as (run, line):
        crossing.pool = line.pool
        rid = await run.ask()
        await until(lambda: crossing.ending, 60)
        second = store.Store(line.pool, line.pace, "http://assets")
        cancel = CancelRequested(request_id=uuid.UUID(rid)).delivered(Envelope(origin="here:0:0"))
        assert isinstance(cancel, CancelRequested)
        run.write("operations", id="cancel", kind="cancel", tenant="default", request_id=rid, invoked_at=0, result="ok")
        await handle.handle(cancel, store=second, sealer=seal.Sealer(line.blobs, None))  # type: ignore[arg-type]
        await run.closed(1)
        report = await judged(run, line, "race:publisher")

    assert report.verdict == ("green" if guarded else "red")
    assert guarded or {"duplicates", "legality"} <= set(report.red())


# ---- one relay --------------------------------------------------------------------------------------------


END_LOCKING_SESSIONS = """SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND d.datname = current_database()"""


class Frozen:
    """Stops the first relay between its numbers and its transaction, as SIGSTOP would."""

    def __init__(self) -> None:
        self.writer: Any = None
        self.release = asyncio.Event()
        self.over = asyncio.Event()

    def around(self, send: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def frozen(writer: Any, records: Sequence[Record], first_number: int) -> None:
            if self.writer is None:
                self.writer = writer
                await self.release.wait()
            try:
                await send(writer, records, first_number)
            finally:
                if writer is self.writer:
                    self.over.set()

        return frozen


@IN_PLACE
async def test_a_relay_that_wakes_after_another_took_its_place(
    guarded: bool, env: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shut out by the lock's loss and its transactional id; under another name it would send all again."""
    frozen = Frozen()
    monkeypatch.setattr(KafkaNumberedWriter, "send", frozen.around(KafkaNumberedWriter.send))
    async with observed(tmp_path, env) as (run, line):
        await run.ask()
        await until(lambda: frozen.writer, 60)
        await line.pool.execute(END_LOCKING_SESSIONS)  # as the database does with one that says nothing
        # a shard of its own has a lock and a transactional id of its own: nothing keeps it off the same rows
        relay = TransactionalRelay(line.pool, "publisher", line.gate, shard=0 if guarded else 1)
        running = asyncio.create_task(relay.run())
        await run.closed(1)
        frozen.release.set()
        await asyncio.wait_for(frozen.over.wait(), 30)
        report = await judged(run, line, "stop:publisher")
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    assert report.verdict == ("green" if guarded else "red")
    assert guarded or "duplicates" in report.red()


# ---- one owner of a claim ---------------------------------------------------------------------------------


class SecondWorker:
    """Another worker process, in this one; its pictures differ from those of the first."""

    def __init__(self, line: Line) -> None:
        self.claims, self.line = Claims(line.pool, "local"), line
        self.batcher = Batcher({"stub": Stub(mistakes=1.0)}, wait_ms=1.0)
        rows = {model.name: model for model in pipeline.MODELS}
        self.worker = Worker(claims=self.claims, shelf=Shelf(rows), batcher=self.batcher, blobs=line.blobs)

    async def sweep(self) -> None:
        """One round of its sweeper."""
        painting = asyncio.create_task(self.batcher.run())
        await ClaimSweeper(self.claims, self.submit).once()
        painting.cancel()
        with suppress(asyncio.CancelledError):
            await painting

    async def submit(self, record: Record) -> None:
        envelope = wire.read(record.headers).at(record.origin(), record.timestamp_ms, record.value)
        event = codec.decode_own(record, envelope).delivered(envelope)
        assert isinstance(event, ImageRouted)
        told = await self.worker.handle(event)
        await self.line.send(*(codec.encode(one, source="giclee/gpu_worker", cause=envelope) for one in told))


@IN_PLACE
async def test_a_worker_that_wakes_after_its_claim_was_taken_over(
    guarded: bool, env: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds a higher fence and tells nothing; without the fence there are two images of one candidate and hop."""
    if not guarded:
        edit_query(monkeypatch, "finish_claims", "AND c.state = 'live' AND c.fence = n.fence")
    works, release = asyncio.Event(), asyncio.Event()

    async def hang(_: Sequence[Any]) -> None:
        works.set()
        await release.wait()

    async with observed(tmp_path, env, stub=Stub(before=hang)) as (run, line):
        await run.ask()
        await asyncio.wait_for(works.wait(), 60)
        await line.pool.execute("UPDATE gpu_worker.claims SET lease_until = clock_timestamp() - interval '1 second'")
        await SecondWorker(line).sweep()
        await run.closed(1)
        release.set()
        loop, first = line.loops["gpu-worker.local"], line.claim_sweepers[0].claims
        await until(lambda: not first.in_hand and not loop.progress.pending, 30)
        report = await judged(run, line, "stop:gpu-worker")

    assert report.verdict == ("green" if guarded else "red")
    assert guarded or "legality" in report.red()


# ---- the very bytes ---------------------------------------------------------------------------------------


async def _verify_nothing(*_: object) -> None:
    """Takes bytes as they come."""


async def _seal_anything(sealer: seal.Sealer, order: Order, index: int) -> Fact:
    """As Sealer.seal, without a look at what the score was for."""
    outcome, score = order.outcomes[index], order.score_of(index)
    assert outcome.image is not None
    assert score is not None
    image = outcome.image
    folder = f"assets/{order.tenant}/{order.request_id}/{index}"
    body = await sealer._blobs.get(image)
    original = await sealer._blobs.put(
        f"{folder}/original", body, image.content_type, width=image.width, height=image.height
    )
    thumbnail = await sealer._thumbnail(folder, body)
    sealed = SealedImage(candidate_id=outcome.candidate_id, image=original, derivatives=(thumbnail,))
    return facts.seal_fact(index, score.measure, sealed)


async def swap_image(run: Driven) -> str:
    """Put another picture where the candidate's is; its key."""
    bucket, name = run.observer.bucket, run.observer.env["GICLEE_BUCKET"]
    prefix = f"candidates/default/{run.history().operations[0]['request_id']}/"
    key: str = (await bucket.list_objects_v2(Bucket=name, Prefix=prefix))["Contents"][0]["Key"]
    other = picture.encode(world.render(world.scene_of(7), 7))
    await bucket.put_object(Bucket=name, Key=key, Body=other)
    return key


@IN_PLACE
async def test_an_image_that_is_swapped_after_it_was_judged(
    guarded: bool, env: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes do not match what the score names: a dead letter; without the check it would be approved."""
    monkeypatch.setattr(retry, "PAUSES_S", (0.01,) * 5)
    if not guarded:
        monkeypatch.setattr(blobs, "_verify", _verify_nothing)
        monkeypatch.setattr(seal.Sealer, "seal", _seal_anything)
    async with observed(tmp_path, env, rules={"image.scored.v1": "hold"}) as (run, line):
        await run.ask()
        await until(lambda: line.gate.held.get("image.scored.v1"), 60)
        key = await swap_image(run)
        await line.gate.let_go("image.scored.v1")
        await run.seen("image.stalled.v1" if guarded else "image.closed.v1", 1)
        report = await judged(run, line, "s3-corrupt", poison=True, damaged=[key])

    assert report.verdict == ("green" if guarded else "red")
    assert guarded or "safety" in report.red()
