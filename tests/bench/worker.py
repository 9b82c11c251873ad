"""Both sides of G5 in one process: the same pipeline object behind a worker's stage, and in a raw diffusers loop.

`python -m tests.bench.worker ROUNDS IMAGES` reads the worker's settings from the environment and prints one JSON line
a round. Raw: batches of the model's largest size, `output_type="pt"`, nothing encoded, nothing stored. Worker:
records from Kafka, claims, batches, decoding, lossless encoding, PUT, stored outcome, event acknowledged. Every
image is read back from the bucket; those made in a full batch must be the raw loop's, pixel by pixel.
"""

from __future__ import annotations

import asyncio
import io
import json
import resource
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from giclee.bus import blobs, database, kafka, settings
from giclee.bus.blobs import Blobs
from giclee.bus.layers import codec
from giclee.bus.loop import Loop
from giclee.bus.stage import Context
from giclee.gpu_worker import device, picture, warm
from giclee.gpu_worker.batch import Batcher
from giclee.gpu_worker.claims import SCHEMA, Claims
from giclee.gpu_worker.handle import Worker
from giclee.gpu_worker.provider import Ask, Shape
from giclee.gpu_worker.providers.diffusion import Diffusion, load_pipeline
from giclee.gpu_worker.settings import GpuWorkerSettings
from giclee.gpu_worker.shelf import Shelf
from giclee.models import world
from giclee.schemas.events import Event, ImageGenerated, ImageRouted
from giclee.schemas.models import Model
from giclee.schemas.parts import candidate_id
from tests.bench import log
from tests.bench.measure import Wrong

MODEL = "shapes-final"
EXAMPLE = json.loads((Path(__file__).parents[2] / "schemas/examples/ImageRouted.json").read_text())
ROUND_MAX_S = 600.0


@dataclass(slots=True)
class Figures:
    """Images per second of wall time and CPU milliseconds per image."""

    per_s: float
    cpu_ms: float


class Clock:
    """Wall and CPU time from its making on."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), self._cpu_s()

    @staticmethod
    def _cpu_s() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    def figures(self, images: int) -> Figures:
        wall_s, cpu_s = time.perf_counter() - self._began[0], self._cpu_s() - self._began[1]
        return Figures(images / wall_s, cpu_s / images * 1000)


# ---- raw ----------------------------------------------------------------------------------------------------


class Raw:
    """The pipeline in a thread of its own, set up as the worker's."""

    def __init__(self, pipeline: Any, model: Model, threads: int) -> None:
        self._pipeline, self._model = pipeline, model
        self._thread = ThreadPoolExecutor(1, "raw", initializer=device.prepare, initargs=(threads,))

    async def round(self, seeds: Sequence[int]) -> tuple[Figures, dict[int, np.ndarray]]:
        """Figures, and (height, width, 3) bytes by seed, made after the clock stopped."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._round, seeds)

    def _round(self, seeds: Sequence[int]) -> tuple[Figures, dict[int, np.ndarray]]:
        size, clock = self._model.batch_max, Clock()
        made = [self._batch(seeds[first : first + size]) for first in range(0, len(seeds), size)]
        figures = clock.figures(len(seeds))
        images = torch.cat(made).permute(0, 2, 3, 1).numpy()  # (images, height, width, 3)
        return figures, {seed: _bytes(image) for seed, image in zip(seeds, images, strict=True)}

    def _batch(self, seeds: Sequence[int]) -> Any:
        model = self._model
        with torch.inference_mode():
            return self._pipeline(
                prompt=[world.prompt_of(seed) for seed in seeds],
                width=model.width,
                height=model.height,
                num_inference_steps=model.steps,
                guidance_scale=model.guidance_scale,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                output_type="pt",
            ).images


def _bytes(image: np.ndarray) -> np.ndarray:
    found = picture.quantized(image)
    if found is None:
        raise Wrong("the raw loop made values that are not finite")
    return found


# ---- the worker ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Stage:
    """A worker's stage at work, and what its rounds need."""

    writer: Any
    bucket: Blobs
    model: Model
    brokers: str
    topic: str
    settled: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def note(self, events: Sequence[Event]) -> None:
        self.settled += sum(isinstance(event, ImageRouted) for event in events)
        self.changed.set()

    async def round(self, seeds: Sequence[int]) -> tuple[Figures, dict[str, int]]:
        """Send candidates and wait until all that came of them is acknowledged; candidate id -> seed."""
        routed = [self._routed(seed) for seed in seeds]
        records = [codec.encode(event, source="giclee/router") for event in routed]
        begin, clock = self.settled, Clock()
        await self.writer.send(records)
        async with asyncio.timeout(ROUND_MAX_S):
            while self.settled < begin + len(seeds):
                self.changed.clear()
                await self.changed.wait()
        return clock.figures(len(seeds)), {str(event.candidate_id): event.seed for event in routed}

    def _routed(self, seed: int) -> ImageRouted:
        rid, model = uuid.uuid4(), self.model
        hop = {
            "provider": model.provider,
            "pool": model.pool,
            "model": {"name": model.name, "revision": model.revision},
            "price_usd": str(model.price_usd),
            "params": {"steps": model.steps, "guidance_scale": model.guidance_scale},
            "width": model.width,
            "height": model.height,
        }
        request = {**EXAMPLE["request"], "prompt": world.prompt_of(seed)}
        named = {"request_id": str(rid), "candidate_id": str(candidate_id("acme", rid, 0)), "seed": seed}
        return ImageRouted.model_validate({**EXAMPLE, **named, "chain": [hop], "request": request})


async def _check(stage: Stage, seeds: dict[str, int], raw: dict[int, np.ndarray], starts: log.Ends) -> int:
    """How many images were compared with the raw loop's. Errors: Wrong."""
    came = await log.since(stage.brokers, stage.topic, starts)
    events = [ImageGenerated.model_validate_json(record.value) for record in came]
    log.exactly_once("G5, generated", seeds, (str(event.candidate_id) for event in events))
    compared = 0
    for event in events:
        body = await stage.bucket.get(event.image)  # checks its hash
        if event.reproduction is None or event.reproduction.batch != stage.model.batch_max:
            continue
        pixels = np.asarray(Image.open(io.BytesIO(body)))
        if not np.array_equal(pixels, raw[seeds[str(event.candidate_id)]]):
            raise Wrong(f"the image of seed {event.seed} is not the raw loop's")
        compared += 1
    return compared


@asynccontextmanager
async def _stage(chosen: GpuWorkerSettings, provider: Diffusion, model: Model) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as opened:
        pool = await opened.enter_async_context(database.connect(chosen.database, SCHEMA))
        bucket = await opened.enter_async_context(blobs.connect(chosen.blobs))
        transport = kafka.KafkaTransport(chosen.kafka, client_id="bench")
        writer = transport.writer("bench")
        await writer.start()
        topic = f"{chosen.kafka.topic_prefix}image.generated.v1"
        found = Stage(writer, bucket, model, chosen.kafka.bootstrap_servers, topic)
        batcher = Batcher({model.provider: provider}, wait_ms=chosen.batch_wait_ms)
        worker = Worker(
            claims=Claims(pool, chosen.pool), shelf=Shelf({model.name: model}), batcher=batcher, blobs=bucket
        )
        stage = worker.stage(concurrency=chosen.concurrency, deadline_s=chosen.deadline_s)

        async def settled(events: Sequence[Event]) -> None:
            await worker.settled(events)
            await found.note(events)

        stage = replace(stage, settled=settled)
        loop = Loop(
            Context(stage=stage, send=writer.send, cluster_id="bench"), transport.reader(stage.group, stage.topics())
        )
        tasks = [asyncio.create_task(batcher.run()), asyncio.create_task(loop.run())]
        try:
            yield found
        finally:
            loop.stop()
            await asyncio.wait(tasks[1:], timeout=30)
            tasks[0].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await writer.stop()


async def main(rounds: int, images: int) -> None:
    """Print one line a round: raw, worker, and how many images were equal."""
    chosen = settings.load(GpuWorkerSettings)
    model = warm.rows_of(chosen.weights(), chosen.config, Path(chosen.models_dir))[MODEL]
    loaded: list[Any] = []

    def load(row: Model, folder: Path, where: str) -> Any:
        loaded.append(load_pipeline(row, folder, where))
        return loaded[-1]

    provider = Diffusion(chosen.device, threads=chosen.threads, resident_max=1, load=load)
    await provider.describe(model)
    raw = Raw(loaded[0], model, chosen.threads)
    shape = Shape(model=model.name, width=model.width, height=model.height, steps=model.steps,
                  guidance_scale=model.guidance_scale)  # fmt: skip
    warm_up = [Ask(shape=shape, prompt=world.prompt_of(seed), seed=seed) for seed in range(model.batch_max)]
    await provider.make(model, warm_up, model.batch_max)
    await raw.round(range(model.batch_max))
    async with _stage(chosen, provider, model) as stage:
        await stage.round(range(model.batch_max))
        for number in range(rounds):
            seeds = range(3_000_000 + number * images, 3_000_000 + (number + 1) * images)
            bare, expected = await raw.round(seeds)
            starts = await log.ends(stage.brokers, stage.topic)
            ours, by_id = await stage.round(seeds)
            equal = await _check(stage, by_id, expected, starts)
            said = {"raw": [bare.per_s, bare.cpu_ms], "ours": [ours.per_s, ours.cpu_ms], "equal": equal}
            print(json.dumps({**said, "batch": model.batch_max, "threads": chosen.threads}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
