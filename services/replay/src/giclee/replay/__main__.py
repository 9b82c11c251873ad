"""`python -m giclee.replay`: dead letters and switches for operators."""

from __future__ import annotations

import asyncio

import uvicorn

from giclee.bus import database, kafka, run
from giclee.bus.settings import load
from giclee.bus.table import Table
from giclee.replay.api import application
from giclee.replay.index import Index
from giclee.replay.runs import Runs
from giclee.replay.settings import ReplaySettings
from giclee.replay.store import Store
from giclee.replay.switches import Switches
from giclee.schemas.events import SwitchSet


async def main(settings: ReplaySettings) -> None:
    """Open, wire, run."""
    transport = kafka.KafkaTransport(settings.kafka, client_id="giclee-replay")
    pools = tuple(settings.pools.split(","))
    async with database.connect(settings.database, schema="replay") as pool:
        store = Store(pool)
        writer = transport.writer("replay")
        await writer.start()
        table: Table[SwitchSet] = Table(SwitchSet, transport)
        runs = Runs(store, writer.send, pools)
        switches = Switches(table, store, writer.send)
        index = Index(transport, store, pools)
        app = application(store, runs, switches, api_key=settings.api_key.get_secret_value())
        config = uvicorn.Config(
            app, host=settings.process.bind_host, port=settings.port, log_config=None, lifespan="off", access_log=False
        )
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        service = run.Service(
            name="replay",
            settings=settings,
            background=(index.run, runs.sweep, switches.release, table.follow, server._serve),
            checks={"database": store.ping, "index": index.check},
        )
        try:
            await run.serve(service)
        finally:
            await writer.stop()


if __name__ == "__main__":
    asyncio.run(main(load(ReplaySettings)))
