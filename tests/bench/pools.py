"""How long what somebody waits for waits beside a backlog of bulk: in one pool with it, and in a pool of its own.

`python -m tests.bench.pools [rounds]` starts Kafka, Postgres and S3 and, in turns, a worker that serves `local` and
one that serves `now:4,local`, whose device takes a tenth of a second for a batch of at most four. 500 candidates of
bulk are sent at once, then 40 that somebody waits for, one every fifth of a second; every image must come once.
"""

from __future__ import annotations

import asyncio
import runpy
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from giclee.bus.kafka import KafkaTransport
from giclee.bus.layers import codec
from giclee.bus.settings import KafkaSettings
from giclee.infra import migrate, topics
from giclee.schemas.events import ImageGenerated, ImageRouted
from giclee.schemas.models import Model
from tests.bench import sides
from tests.bench.measure import Wrong, load, machine
from tests.kit.candidates import hop, model, routed
from tests.kit.loops import Collector
from tests.kit.service_process import running
from tests.kit.stack import stack
from tests.kit.wait import until

BATCH_S = 0.1
BULK, WAITED, EVERY_S = 500, 40, 0.2
WITHIN_S = 120.0
POOLS = ("now", "local")
GENERATED = "image.generated.v1"
ROWS = {pool: model(f"press-{pool}", pool=pool, price_usd="0.0004", batch_max=4) for pool in POOLS}


def worker() -> None:
    """The worker's own entry point with a device that takes its time."""
    from giclee.gpu_worker import providers
    from giclee.gpu_worker.provider import Answer, Ask
    from giclee.gpu_worker.providers.stub import Stub

    class Press(Stub):
        """Paints, and is busy for as long as a batch takes."""

        async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
            answers, _ = await asyncio.gather(super().make(model, asks, padded), asyncio.sleep(BATCH_S))
            return answers

    providers.TABLE["stub"] = lambda kit: Press()
    runpy.run_module("giclee.gpu_worker", run_name="__main__", alter_sys=True)


class Watch(Collector):
    """Notes when the images of `candidates` were told."""

    def __init__(self, transport: Any, candidates: Sequence[ImageRouted]) -> None:
        super().__init__(transport, [GENERATED])
        self._ours, self._read = {one.candidate_id for one in candidates}, 0
        self.told: dict[uuid.UUID, float] = {}
        """Seconds since 1970 by candidate."""

    def look(self) -> int:
        """How many candidates have an image by now. Errors: Wrong for one that has two."""
        fresh, self._read = self.records[self._read :], len(self.records)
        for record in fresh:
            candidate = ImageGenerated.model_validate_json(record.value or b"").candidate_id
            if candidate in self.told:
                raise Wrong(f"{candidate} has two images")
            if candidate in self._ours:  # others are of earlier rounds
                self.told[candidate] = record.timestamp_ms / 1000
        return len(self.told)


def _candidates(pool: str, count: int) -> list[ImageRouted]:
    return [routed(hop(ROWS[pool]), seed=at) for at in range(count)]


async def _round(env: dict[str, str], served: str) -> tuple[list[float], float]:
    """Seconds that each of the 40 waited, and until the last of bulk was there. Errors: Wrong."""
    kafka = KafkaSettings(
        bootstrap_servers=env["KAFKA_BOOTSTRAP_SERVERS"],
        topic_prefix=env["GICLEE_TOPIC_PREFIX"],
        schema_registry_url=None,
    )
    transport = KafkaTransport(kafka, client_id="bench")
    writer = transport.writer("bench")
    await writer.start()
    bulk, waited = _candidates("local", BULK), _candidates(POOLS[0] if "now" in served else POOLS[1], WAITED)
    sent: dict[uuid.UUID, float] = {}
    argv = {**env, "GICLEE_GPU_WORKER_POOL": served}
    async with running("tests.bench.pools", argv, "worker"), Watch(transport, [*bulk, *waited]) as watch:
        began = time.time()
        await writer.send([codec.encode(one, source="bench") for one in bulk])
        await until(lambda: watch.look() >= 8, within_s=WITHIN_S)
        for one in waited:
            sent[one.candidate_id] = time.time()
            await writer.send([codec.encode(one, source="bench")])
            await asyncio.sleep(EVERY_S)
        await until(lambda: watch.look() == BULK + WAITED, within_s=WITHIN_S)
    await writer.stop()
    waits = [watch.told[candidate] - at for candidate, at in sent.items()]
    return waits, max(watch.told[one.candidate_id] for one in bulk) - began


def _row(of: Model) -> str:
    size = f"width = {of.width}\nheight = {of.height}\nsize_min = {of.size_min}\nsize_max = {of.size_max}\n"
    return (
        f'[[models]]\nname = "{of.name}"\nrevision = "{of.revision}"\nlocation = "painted"\nprovider = "stub"\n'
        f'pool = "{of.pool}"\nprice_usd = "{of.price_usd}"\nsteps = {of.steps}\nbatch_max = {of.batch_max}\n{size}'
    )


async def _measured(env: dict[str, str], rounds: int) -> None:
    await migrate.migrate(env["DATABASE_URL"])
    target = topics.Target(env["KAFKA_BOOTSTRAP_SERVERS"], env["GICLEE_TOPIC_PREFIX"], 1, POOLS)
    await asyncio.to_thread(topics.apply, target)
    found: dict[str, tuple[list[float], list[float]]] = {"local": ([], []), "now:4,local": ([], [])}
    for _ in range(rounds):
        for served, (waits, ends) in found.items():
            more, end = await _round(env, served)
            waits += more
            ends.append(end)
    print("| pools of the worker | p50 | p99 | longest | last of bulk |\n| --- | --- | --- | --- | --- |")
    for served, (waits, ends) in found.items():
        cuts = statistics.quantiles(waits, n=100, method="inclusive")
        figures = " | ".join(f"{one:.2f} s" for one in (cuts[49], cuts[98], max(waits), statistics.median(ends)))
        print(f"| `{served}` | {figures} |")


def main(rounds: int) -> None:
    """Print a table. Errors: Wrong."""
    print(f"{machine()}; load averages {load()} before")
    with stack(durable=True) as parts, tempfile.TemporaryDirectory(prefix="giclee-bench-") as folder:
        env = sides.environment(parts, "pools.", Path(folder), parts.database_url)
        Path(env["GICLEE_CONFIG"]).write_text("\n".join(map(_row, ROWS.values())))
        asyncio.run(_measured(env, rounds))
    print(f"load averages {load()} after")


if __name__ == "__main__":
    words = sys.argv[1:]
    worker() if words == ["worker"] else main(int(words[0]) if words else 3)
