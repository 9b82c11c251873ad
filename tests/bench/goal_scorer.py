"""G11: images per second through a scorer process against a bare loop over its two models, on the CPU."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from PIL import Image

from giclee.bus import blobs, kafka
from giclee.bus.layers import codec
from giclee.bus.settings import BlobSettings, KafkaSettings
from giclee.infra import migrate, topics
from giclee.models import world
from giclee.schemas.events import ImageGenerated, ImageScored
from giclee.schemas.parts import candidate_id
from tests.bench import log, sides
from tests.bench.measure import Result, Row, Wrong, cores, cpu_s, load, median, pin, shown
from tests.kit.loops import Collector
from tests.kit.stack import Stack, stack
from tests.kit.wait import until

PREFIX = "scoring."
CHECKOUT = Path(__file__).parents[2]
GPU_PYTHON = CHECKOUT / ".venv-gpu/bin/python"
EXAMPLE = json.loads((CHECKOUT / "schemas/examples/ImageGenerated.json").read_text())
CANDIDATES, THREADS, BATCH = 4, 1, 8
ROUND_MAX_S = 600.0
SEED_FIRST = 4_000_000
SIDES = (
    "Ours: a scorer process as the local stack runs it: events from Kafka, images fetched from the bucket and their "
    "hash checked, decoded in the child with limits, every dimension, the gate, the verdict stored in Postgres "
    "(fsync), the event acknowledged. Bare: the CLIP and NudeNet's detector in one process, each in a thread of its "
    "own as in the scorer, over tensors that were ready before the clock. Both: the same weights, pictures and "
    f"prompts ({CANDIDATES} pictures of each, captions encoded once a prompt), {THREADS} thread a model, batches of "
    f"{BATCH} for the CLIP and single pictures for the detector, the same two cores; in each round first the bare "
    "loop, then the scorer. Every picture was scored once."
)


@dataclass(slots=True)
class Figures:
    """One side of one round."""

    per_s: float
    cpu_ms: float
    memory_mib: float


@asynccontextmanager
async def _process(env: dict[str, str], errors: Path, *argv: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    with errors.open("ab") as stderr:
        started = await asyncio.create_subprocess_exec(
            *(str(GPU_PYTHON), "-m", *argv), env=env, cwd=CHECKOUT, stdin=pipe, stdout=pipe, stderr=stderr
        )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
        await started.wait()


class Bare:
    """The loop in its process."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self._process, self._errors = process, errors

    async def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise Wrong(f"the bare loop ended: {self._errors.read_text()[-2000:]}")
        said: dict[str, Any] = json.loads(line)
        return said

    async def round(self, first: int, images: int) -> Figures:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{first} {images}\n".encode())
        await self._process.stdin.drain()
        said = await self.answer()
        return Figures(images / said["seconds"], said["cpu_s"] / images * 1000, said["memory_mib"])


class Ours:
    """A scorer process, ready, with what sends to it."""

    def __init__(self, pid: int, bucket: blobs.Blobs, writer: Any, collector: Collector) -> None:
        self._pid, self._bucket, self._writer, self._collector = pid, bucket, writer, collector

    async def round(self, first: int, images: int) -> Figures:
        """Events of fresh candidates, until a score of each is written. Errors: Wrong."""
        events = [await self._event(first, number) for number in range(images)]
        records = [codec.encode(event, source="giclee/gpu-worker") for event in events]
        before, began, cpu_began = len(self._collector.records), perf_counter(), cpu_s([self._pid])
        await self._writer.send(records)
        await until(lambda: len(self._collector.records) >= before + images, ROUND_MAX_S)
        seconds, used_s = perf_counter() - began, cpu_s([self._pid]) - cpu_began
        scored = (ImageScored.model_validate_json(one.value or b"") for one in self._collector.records[before:])
        log.exactly_once(
            "G11, scored", (str(one.candidate_id) for one in events), (str(one.candidate_id) for one in scored)
        )
        return Figures(images / seconds, used_s / images * 1000, _memory_mib(self._pid))

    async def _event(self, first: int, number: int) -> ImageGenerated:
        rid = uuid.uuid4()
        cid = candidate_id("acme", rid, 0)
        body = io.BytesIO()
        seed = first + number // CANDIDATES
        picture = Image.fromarray(world.render(world.scene_of(seed), first * CANDIDATES + number))
        picture.save(body, "WEBP", lossless=True, method=0)
        image = await self._bucket.put(
            f"candidates/acme/{rid}/{cid}-0-1", body.getvalue(), "image/webp", width=64, height=64
        )
        named = {"request_id": str(rid), "candidate_id": str(cid), "prompt": world.prompt_of(seed)}
        return ImageGenerated.model_validate({**EXAMPLE, **named, "image": image.model_dump(mode="json")})


def _memory_mib(pid: int) -> float:
    """The most that the process ever held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@asynccontextmanager
async def _ours(running: Stack, env: dict[str, str], folder: Path) -> AsyncIterator[Ours]:
    port, errors = sides.free_port(), folder / "scorer.log"
    settings = {"GICLEE_HEALTH_PORT": str(port), "GICLEE_SCORER_THREADS": str(THREADS),
                "GICLEE_SCORER_BATCH_MAX": str(BATCH)}  # fmt: skip
    async with AsyncExitStack() as opened:
        process = await opened.enter_async_context(_process({**env, **settings}, errors, "giclee.scorer"))
        await until(lambda: sides.ready(process, port, errors), sides.START_MAX_S)
        named = {"endpoint_url": env["AWS_ENDPOINT_URL_S3"], "access_key_id": env["AWS_ACCESS_KEY_ID"],
                 "secret_access_key": env["AWS_SECRET_ACCESS_KEY"], "region": env["AWS_REGION"],
                 "bucket": env["GICLEE_BUCKET"]}  # fmt: skip
        bucket = await opened.enter_async_context(blobs.connect(BlobSettings.model_validate(named)))
        chosen = KafkaSettings(bootstrap_servers=running.bootstrap_servers, topic_prefix=PREFIX)
        transport = kafka.KafkaTransport(chosen, client_id="bench")
        writer = transport.writer("bench")
        await writer.start()
        opened.push_async_callback(writer.stop)
        collector = await opened.enter_async_context(Collector(transport, ("image.scored.v1",)))
        yield Ours(process.pid, bucket, writer, collector)


async def _rounds(running: Stack, rounds: int, images: int, folder: Path) -> list[tuple[Figures, Figures]]:
    """Ours and the bare loop's, a pair a round. Errors: Wrong."""
    await migrate.migrate(running.database_url)
    topics.apply(topics.Target(running.bootstrap_servers, PREFIX, 1))
    env = sides.environment(running, PREFIX, folder, running.database_url)
    del env["GICLEE_CONFIG"]
    models = CHECKOUT / "models"
    env["GICLEE_MODELS_DIR"] = str(models)
    argv = ("tests.bench.raw_scorer", str(models / "shapes-clip"), str(THREADS), str(BATCH))
    found = []
    async with _process({**os.environ}, folder / "raw.log", *argv) as process, _ours(running, env, folder) as ours:
        bare = Bare(process, folder / "raw.log")
        await bare.answer()
        await ours.round(SEED_FIRST - images, images)
        for number in range(rounds):
            first = SEED_FIRST + number * images
            raw = await bare.round(first, images)
            found.append((await ours.round(first, images), raw))
    return found


def run(rounds: int, *, quick: bool) -> Result:
    """Measure G11. Errors: Wrong."""
    before = load()
    pin(cores())
    images = 16 if quick else 128
    with stack(durable=True) as running, tempfile.TemporaryDirectory(prefix="giclee-bench-") as folder:
        found = asyncio.run(_rounds(running, rounds, images, Path(folder)))
    ours, bare = zip(*found, strict=True)
    ratios = [mine.per_s / raw.per_s for mine, raw in found]
    rows = [
        Row(goal="G11", says="images per second", unit="1/s", ours=[one.per_s for one in ours],
            bare=[one.per_s for one in bare], ratio=median(ratios),
            aim="median over the rounds' ratios at least 0.85", met=median(ratios) >= 0.85),
        Row(goal="G11", says="CPU of the process and its child per image", unit="ms",
            ours=[one.cpu_ms for one in ours], bare=[one.cpu_ms for one in bare],
            ratio=median([one.cpu_ms for one in bare]) / median([one.cpu_ms for one in ours])),
        Row(goal="G11", says="most memory held, the decoding child's apart", unit="MiB",
            ours=[one.memory_mib for one in ours], bare=[one.memory_mib for one in bare],
            ratio=median([one.memory_mib for one in bare]) / median([one.memory_mib for one in ours])),
    ]  # fmt: skip
    more_ms = median([one.cpu_ms for one in ours]) - median([one.cpu_ms for one in bare])
    said = f"{SIDES} {images} pictures a round."
    costs = f"Everything around the two models costs {shown(more_ms)} ms of CPU per picture."
    return Result(goal="G11", title="A scorer on the CPU", sides=said, rows=rows, costs=costs,
                  load=f"{before} before, {load()} after")  # fmt: skip
