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
from giclee.gpu_worker.rates import SharedRates
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
    weights = chosen.weights()
    rows = warm.rows_of(weights, chosen.config, Path(chosen.models_dir))
    warm.check_providers(rows, providers.TABLE)
    warm.check_files(rows)
    caps = spend_caps.load(chosen.config, warm.providers_of(chosen.config, Path(chosen.models_dir)))
    made = _providers(chosen, {row.provider for row in rows.values()})
    hosted = {name: one for name, one in made.items() if name not in OWN_PROVIDERS}
    first = WarmUp(list(rows.values()), made, resident_max=chosen.resident_max)
    await first.load()
    transport = kafka.KafkaTransport(chosen.kafka, client_id=f"giclee-gpu-worker-{'_'.join(weights)}")
    connected = database.connect(chosen.database, SCHEMA)
    async with providers.closing(made), connected as pool, blobs.connect(chosen.blobs) as store:
        port = chosen.process.health_port  # bound before anything is claimed, and let go of last
        bills = {name: one.capabilities for name, one in hosted.items()}
        ledger = Ledger(pool, bills, caps, difference_max=chosen.price_difference_max)
        batcher = Batcher(made, wait_ms=chosen.batch_wait_ms, weights=weights)
        calls = Calls(hosted, patience_s=chosen.deadline_s / 2, weights=weights, rates=SharedRates(pool))
        workers = [  # of one device and one way to providers, a stage for each pool
            Worker(
                claims=Claims(pool, one, place=str(port) if port else None, ledger=ledger),
                shelf=Shelf({row.name: row for row in rows.values() if row.pool == one}),
                batcher=batcher,
                blobs=store,
                calls=calls,
            )
            for one in weights
        ]
        stages = [one.stage(concurrency=chosen.concurrency, deadline_s=chosen.deadline_s) for one in workers]

        async def submit(name: str, record: Record) -> None:
            await service.submit[name](record)

        sweepers = [
            Sweeper(one.claims, partial(submit, stage.name)) for one, stage in zip(workers, stages, strict=True)
        ]
        inquiries = Inquiries(workers[0].claims)  # rows are found whatever their pool
        relay = PlainRelay(pool, SCHEMA, transport)
        service = run.Service(
            name=f"gpu-worker.{'_'.join(weights)}",
            settings=chosen,
            stages=stages,
            background=(
                batcher.run,
                first.run,
                relay.run,
                *(work for one in sweepers for work in (one.renew, one.sweep, one.forget)),
            ),
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
