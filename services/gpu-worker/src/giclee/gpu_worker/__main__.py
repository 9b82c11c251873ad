"""A worker process: `python -m giclee.gpu_worker`. Exits 2 for bad settings, 3 for models that cannot be used."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path

from giclee.bus import blobs, database, kafka, run, settings
from giclee.bus.outbox import PlainRelay
from giclee.bus.transport import Record
from giclee.gpu_worker import providers, warm
from giclee.gpu_worker.batch import Batcher
from giclee.gpu_worker.claims import SCHEMA, Claims
from giclee.gpu_worker.handle import Worker
from giclee.gpu_worker.inquiries import Inquiries
from giclee.gpu_worker.provider import ModelUnusable
from giclee.gpu_worker.settings import GpuWorkerSettings
from giclee.gpu_worker.shelf import Shelf
from giclee.gpu_worker.sweep import Sweeper
from giclee.gpu_worker.warm import WarmUp
from giclee.schemas.strict import InvalidInput

MODELS_EXIT_CODE = 3


async def main(chosen: GpuWorkerSettings) -> None:
    """Check and load the models, then serve until told to stop."""
    rows = warm.rows_of(chosen.pool, chosen.config, Path(chosen.models_dir))
    warm.check_files(rows)
    kit = providers.Kit(
        device=chosen.device, threads=chosen.threads, resident_max=chosen.resident_max, download=chosen.download
    )
    made = {name: providers.TABLE[name](kit) for name in {row.provider for row in rows.values()}}
    first = WarmUp(list(rows.values())[: chosen.resident_max], made)
    await first.load()
    transport = kafka.KafkaTransport(chosen.kafka, client_id=f"giclee-gpu-worker-{chosen.pool}")
    async with database.connect(chosen.database, SCHEMA) as pool, blobs.connect(chosen.blobs) as store:
        port = chosen.process.health_port  # bound before anything is claimed, and let go of last
        claims = Claims(pool, chosen.pool, place=str(port) if port else None)
        batcher = Batcher(made, wait_ms=chosen.batch_wait_ms)
        worker = Worker(claims=claims, shelf=Shelf(rows), batcher=batcher, blobs=store)
        stage = worker.stage(concurrency=chosen.concurrency, deadline_s=chosen.deadline_s)

        async def submit(record: Record) -> None:
            await service.submit[stage.name](record)

        sweeper = Sweeper(claims, submit)
        relay = PlainRelay(pool, SCHEMA, transport)
        service = run.Service(
            name=f"gpu-worker.{chosen.pool}",
            settings=chosen,
            stages=(stage,),
            background=(batcher.run, first.run, sweeper.renew, sweeper.sweep, sweeper.forget, relay.run),
            internal={"/internal/claims": Inquiries(claims).claims},
            checks={"models": first.check, "database": partial(database.ping, pool), "blobs": store.check},
        )
        await run.serve(service, transport)


if __name__ == "__main__":
    try:
        asyncio.run(main(settings.load(GpuWorkerSettings)))
    except (ModelUnusable, InvalidInput) as error:
        sys.stderr.write(f"giclee.gpu_worker: {error}\n")
        raise SystemExit(MODELS_EXIT_CODE) from None
