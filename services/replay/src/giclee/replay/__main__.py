"""`python -m giclee.replay`: dead letters and switches for operators."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import uvicorn

from giclee.bus import blobs, database, kafka, run
from giclee.bus.settings import load
from giclee.bus.table import Table
from giclee.replay import calls_api, doctor_api, gate_api, held_api, price_api
from giclee.replay.api import application
from giclee.replay.ask import Neighbours
from giclee.replay.checks import Checks
from giclee.replay.desk import Desk
from giclee.replay.index import Index
from giclee.replay.ledger import Ledger
from giclee.replay.objects import Objects
from giclee.replay.offsets import Offsets
from giclee.replay.preflight import REPLAYS_MAX, Preflight
from giclee.replay.reconcile import Reconciler
from giclee.replay.runs import Runs
from giclee.replay.settings import ReplaySettings
from giclee.replay.store import Store
from giclee.replay.switches import Switches
from giclee.schemas import topics
from giclee.schemas.events import GateSet, PriceSet, ProviderHealth, SwitchSet


async def main(settings: ReplaySettings) -> None:
    """Open, wire, run."""
    transport = kafka.KafkaTransport(settings.kafka, client_id="giclee-replay")
    pools = tuple(settings.pools.split(","))
    async with database.connect(settings.database, schema="replay") as pool, blobs.connect(settings.blobs) as bucket:
        store = Store(pool)
        writer = transport.writer("replay")
        table: Table[SwitchSet] = Table(SwitchSet, transport)
        gate: Table[GateSet] = Table(GateSet, transport)
        prices: Table[PriceSet] = Table(PriceSet, transport)
        health: Table[ProviderHealth] = Table(ProviderHealth, transport)
        lookup = transport.lookup()
        neighbours = Neighbours(settings.publisher_url, settings.workers())
        preflight = Preflight(lookup, neighbours, pools)
        ledger = Ledger(pool, preflight.allowed, REPLAYS_MAX)
        runs = Runs(ledger, lookup, preflight, writer.send)
        switches = Switches(table, store, writer.send)
        index = Index(transport, store, pools)
        reconciler = Reconciler(
            Checks(pool, switches.listed),
            Offsets(pool, transport.groups(), topics.groups(pools)),
            Objects(pool, bucket, timedelta(hours=settings.orphan_grace_h)),
            pool,
            settings.reconcile_interval_s,
        )
        app = application(Desk(store, ledger, preflight, runs), switches, api_key=settings.api_key.get_secret_value())
        doctor_api.routes(app, reconciler)
        held_api.routes(app, pool)
        gate_api.routes(app, gate, store, writer.send)
        price_api.routes(app, prices, store, writer.send)
        price_api.provider_routes(app, health, table)
        calls_api.routes(app, neighbours)
        config = uvicorn.Config(
            app, host=settings.process.bind_host, port=settings.port, log_config=None, lifespan="off", access_log=False
        )
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        service = run.Service(
            name="replay",
            settings=settings,
            background=(
                index.run,
                runs.work,
                switches.release,
                reconciler.run,
                table.follow,
                gate.follow,
                prices.follow,
                health.follow,
                server._serve,
            ),
            checks={"database": store.ping, "index": index.check},
        )
        try:
            await run.serve(service)
        finally:
            await lookup.stop()
            await writer.stop()


if __name__ == "__main__":
    asyncio.run(main(load(ReplaySettings)))
