"""G4: dead letters put back by a filtered run against a bare consume-produce loop, CPU per letter."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

from giclee.bus import database as bus_database
from giclee.bus import dlq
from giclee.bus.layers import codec
from giclee.bus.settings import DatabaseSettings
from giclee.bus.transport import Record
from giclee.infra import migrate, topics
from giclee.replay.index import Index
from giclee.replay.store import Store
from giclee.schemas.events import EVENTS
from giclee.schemas.topics import POOLS
from tests.bench import log, replay
from tests.bench.measure import Result, Row, Wrong, cores, load, median, pin, shown
from tests.kit.kafka_world import KafkaWorld
from tests.kit.stack import Stack, stack
from tests.kit.wait import until

PREFIX = "again."
TWO = cores()
EXAMPLE = json.loads((Path(__file__).parents[2] / "schemas/examples/ImageGenerated.json").read_text())
DIED = "2026-11-21T09:00:00+00:00"
SIDES = (
    "Ours: a run of the replay service over letters that it has indexed: selection by class and stage, frozen in "
    "Postgres, each letter read from its topic by its place, its event checked against the schema, destination and "
    "state looked at, sent, marked, its return watched for. Bare: one aiokafka consumer and producer, one header read "
    "per record, dead-letter headers stripped, one batch a partition and poll built by hand. Both: the same topic, of "
    "which every tenth letter is not wanted, acks=all, idempotent producer, lz4, one process on one core; broker and "
    "database on the other, and not counted. Per letter put back."
)


def _letters(count: int) -> list[Record]:
    """Images that died in the scorer; every tenth is poison."""
    model = EVENTS["giclee.ImageGenerated.v1"]
    made = []
    for number in range(count):
        rid = str(uuid.uuid4())
        event = model.model_validate({**EXAMPLE, "request_id": rid, "candidate_id": str(uuid.uuid4())})
        failed = replace(codec.encode(event, source="giclee/gpu-worker"), partition=number % 3, offset=number // 3)
        died = dlq.DeadLetter(
            stage="scorer", dead_class=replay.LEFT if number % replay.UNWANTED_EVERY == 0 else replay.WANTED,
            error_type="Transient", message="the detector does not answer", attempts=6, origin=failed.origin(),
            timestamp_ms=1000, group="giclee.scorer", version="1.0.0", first_failed_at=DIED, last_failed_at=DIED,
            tenant="acme", request_id=rid,
        )  # fmt: skip
        made.append(died.record(failed))
    return made


async def _prepare(running: Stack, world: KafkaWorld, count: int) -> dict[str, str]:
    """Letters on their topic and in the index; dlq id -> request id of those wanted back."""
    letters = _letters(count)
    writer = world.transport.writer("fill")
    await writer.start()
    for start in range(0, count, 1000):
        await writer.send(letters[start : start + 1000])
    await writer.stop()
    async with bus_database.connect(DatabaseSettings(url=running.database_url), schema="replay") as pool:
        index = asyncio.create_task(Index(world.transport, Store(pool), POOLS).run())

        async def all_there() -> bool:
            return bool(await pool.fetchval("SELECT count(*) = $1 FROM replay.dead_letters", count))

        await until(all_there, within_s=60 + count / 500)
        index.cancel()
        await asyncio.gather(index, return_exceptions=True)
        await pool.execute("ANALYZE replay.dead_letters")
    named = [dict(one.headers) for one in letters]
    return {
        one["dlq-id"].decode(): one["dlq-request-id"].decode()
        for one in named
        if one["dlq-class"] == replay.WANTED.encode()
    }


def _run(side: str, running: Stack, count: int) -> dict[str, float]:
    """One side in a process of its own, on the first core."""
    argv = [
        sys.executable, "-m", "tests.bench.replay", side, running.bootstrap_servers, PREFIX, str(count),
        running.database_url,
    ]  # fmt: skip
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=600, check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {TWO[0]}),
    )  # fmt: skip
    if done.returncode != 0:
        raise Wrong(f"G4 {side} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


async def _checked(side: str, running: Stack, wanted: dict[str, str], count: int) -> dict[str, float]:
    """The figures of one side; every wanted letter is back exactly once. Errors: Wrong."""
    target = PREFIX + replay.TARGET
    starts = await log.ends(running.bootstrap_servers, target)
    figures = await asyncio.to_thread(_run, side, running, count)
    came = await log.since(running.bootstrap_servers, target, starts)
    log.exactly_once(f"G4 {side}", wanted.values(), (log.body(one)["request_id"] for one in came))
    return figures


async def _open_again(running: Stack) -> None:
    """All letters as they were before the run, for the next round."""
    async with bus_database.connect(DatabaseSettings(url=running.database_url), schema="replay") as pool:
        await pool.execute("UPDATE replay.dead_letters SET state = 'open', run_id = NULL")
        await pool.execute("VACUUM ANALYZE replay.dead_letters")


async def _rounds(running: Stack, rounds: int, count: int) -> dict[str, list[dict[str, float]]]:
    await migrate.migrate(running.database_url)
    await asyncio.to_thread(topics.apply, topics.Target(running.bootstrap_servers, PREFIX, 1))
    wanted = await _prepare(running, KafkaWorld(running.bootstrap_servers, PREFIX), count)
    figures: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        for side, found in figures.items():
            found.append(await _checked(side, running, wanted, count))
        await _open_again(running)
    return figures


def run(rounds: int, *, quick: bool) -> Result:
    """Measure G4. Errors: Wrong."""
    before = load()
    count = 2_000 if quick else 20_000
    pin({TWO[1]})
    with stack(durable=True) as running:
        figures = asyncio.run(_rounds(running, rounds, count))
    columns = {
        what: tuple([one[what] for one in figures[side]] for side in ("ours", "bare")) for what in ("cpu_us", "wall_us")
    }
    ratio = median(columns["cpu_us"][1]) / median(columns["cpu_us"][0])
    rows = [
        Row(goal="G4", says="CPU per letter put back", unit="us", ours=columns["cpu_us"][0], bare=columns["cpu_us"][1],
            ratio=ratio, aim="ratio at least 0.70", met=ratio >= 0.70),
        Row(goal="G4", says="wall time per letter put back", unit="us", ours=columns["wall_us"][0],
            bare=columns["wall_us"][1], ratio=median(columns["wall_us"][1]) / median(columns["wall_us"][0])),
    ]  # fmt: skip
    per_s = 1e6 / median(columns["cpu_us"][0])
    return Result(
        goal="G4", title="Dead letters put back", sides=f"{SIDES} {count:,} letters on 3 partitions.", rows=rows,
        costs=f"{shown(per_s)} letters a second and core.", load=f"{before} before, {load()} after",
    )  # fmt: skip
