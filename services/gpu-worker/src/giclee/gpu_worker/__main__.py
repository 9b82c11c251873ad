"""A worker process: `python -m giclee.gpu_worker`. Exits 2 for bad settings, 3 for models that cannot be used.

Torch is imported by the provider of our own models alone: a worker of a hosted pool runs without it.
"""

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
from giclee.gpu_worker.calls import Calls
from giclee.gpu_worker.claims import SCHEMA, Claims
from giclee.gpu_worker.handle import Worker
from giclee.gpu_worker.inquiries import Inquiries
from giclee.gpu_worker.ledger import Ledger
from giclee.gpu_worker.provider import ModelUnusable, Provider
from giclee.gpu_worker.settings import GpuWorkerSettings, keys_of
from giclee.gpu_worker.shelf import Shelf
from giclee.gpu_worker.sweep import Sweeper
from giclee.gpu_worker.warm import WarmUp
from giclee.schemas import spend_caps
from giclee.schemas.models import OWN_PROVIDERS
from giclee.schemas.strict import InvalidInput

MODELS_EXIT_CODE = 3


async def main(chosen: GpuWorkerSettings) -> None:
    """Check and load the models, then serve until told to stop."""
    rows = warm.rows_of(chosen.pool, chosen.config, Path(chosen.models_dir))
    warm.check_providers(rows, providers.TABLE)
    warm.check_files(rows)
    caps = spend_caps.load(chosen.config, warm.providers_of(chosen.config, Path(chosen.models_dir)))
    made = _providers(chosen, {row.provider for row in rows.values()})
    hosted = {name: one for name, one in made.items() if name not in OWN_PROVIDERS}
    first = WarmUp(list(rows.values()), made, resident_max=chosen.resident_max)
    await first.load()
    transport = kafka.KafkaTransport(chosen.kafka, client_id=f"giclee-gpu-worker-{chosen.pool}")
    connected = database.connect(chosen.database, SCHEMA)
    async with providers.closing(made), connected as pool, blobs.connect(chosen.blobs) as store:
        port = chosen.process.health_port  # bound before anything is claimed, and let go of last
        bills = {name: one.capabilities for name, one in hosted.items()}
        ledger = Ledger(pool, bills, caps, difference_max=chosen.price_difference_max)
        claims = Claims(pool, chosen.pool, place=str(port) if port else None, ledger=ledger)
        batcher = Batcher(made, wait_ms=chosen.batch_wait_ms)
        calls = Calls(hosted, patience_s=chosen.deadline_s / 2)
        worker = Worker(claims=claims, shelf=Shelf(rows), batcher=batcher, blobs=store, calls=calls)
        stage = worker.stage(concurrency=chosen.concurrency, deadline_s=chosen.deadline_s)

        async def submit(record: Record) -> None:
            await service.submit[stage.name](record)

        sweeper, inquiries = Sweeper(claims, submit), Inquiries(claims)
        relay = PlainRelay(pool, SCHEMA, transport)
        service = run.Service(
            name=f"gpu-worker.{chosen.pool}",
            settings=chosen,
            stages=(stage,),
            background=(batcher.run, first.run, sweeper.renew, sweeper.sweep, sweeper.forget, relay.run),
            internal={"/internal/claims": inquiries.claims, "/internal/calls": inquiries.calls},
            checks={"models": first.check, "database": partial(database.ping, pool), "blobs": store.check},
        )
        await run.serve(service, transport)


def _providers(chosen: GpuWorkerSettings, names: set[str]) -> dict[str, Provider]:
    """The providers of these names. Errors: BadSettings for keys that cannot be read."""
    kit = providers.Kit(
        device=chosen.device,
        threads=chosen.threads,
        resident_max=chosen.resident_max,
        download=chosen.download,
        keys=keys_of(names - OWN_PROVIDERS),
        base_urls=chosen.urls(),
        deadline_s=chosen.call_deadline_s,
        allow_private=chosen.allow_private,
    )
    return {name: providers.TABLE[name](kit) for name in names}


if __name__ == "__main__":
    try:
        asyncio.run(main(settings.load(GpuWorkerSettings)))
    except settings.BadSettings as error:
        sys.stderr.write(f"giclee.gpu_worker: {error}\n")
        raise SystemExit(settings.BAD_SETTINGS_EXIT_CODE) from None
    except (ModelUnusable, InvalidInput) as error:
        sys.stderr.write(f"giclee.gpu_worker: {error}\n")
        raise SystemExit(MODELS_EXIT_CODE) from None
