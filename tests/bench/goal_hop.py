"""G1: one full hop of ours against bare aiokafka loops, CPU per record, one process each on one core."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import timeit
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from giclee.bus.layers import codec
from giclee.bus.transport import Partition
from giclee.schemas import envelope
from giclee.schemas.events import EVENTS, ImageGenerated
from giclee.schemas.parts import candidate_id
from tests.bench import hop, log
from tests.bench.measure import Result, Row, Wrong, cores, load, median, pin, shown
from tests.kit.kafka_world import KafkaWorld
from tests.kit.stack import kafka_part

PARTITIONS = 6
TWO = cores()
EXAMPLE = json.loads((Path(__file__).parents[2] / "schemas/examples/ImageGenerated.json").read_text())
GROUPS = {"ours": "giclee.scorer", "bare": hop.BARE_GROUP, "send": hop.BARE_GROUP}
SIDES = (
    "Ours: the loop with every layer (poll, CloudEvents headers read, pydantic decoding and validation, switches, "
    "retry, deadline, handler, derived id, headers written, pydantic encoding, placing by key, 1 % of the records "
    "traced, contiguous commits). Bare: one aiokafka consumer and producer, getmany, orjson both ways, one batch a "
    "poll built by hand and sent to one partition, commit. Both: the same records of one topic, answers of the same "
    "fields under as many headers, lz4, acks=all, idempotent producer, read_committed, commit after the "
    "acknowledgement, polls of at most 500, one process on one core, the broker on the other."
)


async def _fill(world: KafkaWorld, count: int) -> dict[str, str]:
    """Put images on the source topic: request id -> candidate id."""
    asked: dict[str, str] = {}
    model = EVENTS["giclee.ImageGenerated.v1"]
    writer = world.transport.writer("fill")
    await writer.start()
    for start in range(0, count, 2000):
        records = []
        for _ in range(min(2000, count - start)):
            rid = uuid.uuid4()
            asked[str(rid)] = str(candidate_id("acme", rid, 0))
            named = {"request_id": str(rid), "candidate_id": asked[str(rid)]}
            records.append(codec.encode(model.model_validate({**EXAMPLE, **named}), source="giclee/gpu-worker"))
        await writer.send(records)
    await writer.stop()
    return asked


def _run(side: str, brokers: str, prefix: str, count: int) -> dict[str, float]:
    """One side in a process of its own, on the first core."""
    argv = [sys.executable, "-m", "tests.bench.hop", side, brokers, prefix, str(count)]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=600, check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {TWO[0]}),
    )  # fmt: skip
    if done.returncode != 0:
        raise Wrong(f"G1 {side} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


async def _checked(side: str, brokers: str, prefix: str, asked: dict[str, str]) -> tuple[dict[str, float], float]:
    """The figures of one run and the bytes of its answers; every answer is there once. Errors: Wrong."""
    target = prefix + hop.TARGET
    starts = await log.ends(brokers, target)
    figures = await asyncio.to_thread(_run, side, brokers, prefix, len(asked))
    came = await log.since(brokers, target, starts)
    log.exactly_once(f"G1 {side}", asked, (record.key.decode() for record in came))
    for record in came:
        answer = log.body(record)
        if asked[record.key.decode()] != answer["candidate_id"] or answer["sha256"] != EXAMPLE["image"]["sha256"]:
            raise Wrong(f"G1 {side}: the answer of {record.key.decode()} is another's")
    return figures, sum(len(record.value) for record in came) / len(came)


async def _rounds(brokers: str, rounds: int, count: int) -> tuple[dict[str, list[dict[str, float]]], dict[str, float]]:
    prefix = "hop."
    world = KafkaWorld(brokers, prefix)
    for name in (hop.SOURCE, hop.TARGET):
        await world.topic(name, PARTITIONS)
    asked = await _fill(world, count)
    figures: dict[str, list[dict[str, float]]] = {side: [] for side in GROUPS}
    sizes: dict[str, float] = {}
    for _ in range(rounds):
        for side, group in GROUPS.items():
            await world.set_offsets(group, {Partition(hop.SOURCE, number): 0 for number in range(PARTITIONS)})
            found, sizes[side] = await _checked(side, brokers, prefix, asked)
            figures[side].append(found)
    return figures, sizes


def _costs(ours_us: float) -> str:
    """What the layers' largest pieces cost when nothing else runs: the best of five, in microseconds."""
    body = json.dumps(EXAMPLE).encode()
    event = ImageGenerated.model_validate_json(body)
    record = codec.encode(event, source="giclee/gpu-worker")
    cause = envelope.read(record.headers)
    pieces: dict[str, Callable[[], object]] = {
        "pydantic decoding": lambda: ImageGenerated.model_validate_json(body),
        "encoding": lambda: codec.encode(event, source="giclee/scorer", cause=cause),
        "of which the derived id": event.event_id_text,
        "reading headers": lambda: envelope.read(record.headers),
    }
    said = ", ".join(
        f"{name} {shown(min(timeit.repeat(one, number=2000, repeat=5)) * 500)} us" for name, one in pieces.items()
    )
    return f"Of {shown(ours_us)} us a record: {said}; the rest is the loop, the handler's own event, and the client."


def run(rounds: int, *, quick: bool) -> Result:
    """Measure G1. Errors: Wrong."""
    before = load()
    pin([TWO[1]])
    try:
        with kafka_part() as kafka:
            figures, sizes = asyncio.run(_rounds(kafka.bootstrap_servers, rounds, 2_000 if quick else 20_000))
    finally:
        pin(TWO)

    def of(side: str, name: str) -> Sequence[float]:
        return [found[name] for found in figures[side]]

    ratio = median(of("bare", "cpu_us")) / median(of("ours", "cpu_us"))
    rows = [
        Row(goal="G1", says="CPU per record", unit="us", ours=of("ours", "cpu_us"), bare=of("bare", "cpu_us"),
            ratio=ratio, aim="ratio at least 0.5 (goal 0.65)", met=ratio >= 0.5),
        Row(goal="G1", says="wall per record", unit="us", ours=of("ours", "wall_us"), bare=of("bare", "wall_us"),
            ratio=median(of("bare", "wall_us")) / median(of("ours", "wall_us"))),
        Row(goal="G1", says="CPU per record, bare with one `send` per record", unit="us", ours=of("ours", "cpu_us"),
            bare=of("send", "cpu_us"), ratio=median(of("send", "cpu_us")) / median(of("ours", "cpu_us"))),
    ]  # fmt: skip
    said = f"{SIDES} Answers have {sizes['ours']:.0f} bytes (ours) and {sizes['bare']:.0f} (bare)."
    costs = _costs(median(of("ours", "cpu_us")))
    return Result(
        goal="G1", title="One hop", sides=said, rows=rows, costs=costs, load=f"{before} before, {load()} after"
    )
