"""`python -m giclee.intake`: accepts requests over HTTP, keeps their status, minds their closing time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from giclee.bus import avro, database, kafka, outbox, run
from giclee.bus.gather import Gathered
from giclee.bus.settings import load
from giclee.bus.stage import Stage
from giclee.bus.table import Table
from giclee.intake import api
from giclee.intake.ask_scorer import ScorerCalls
from giclee.intake.bodies import Linker
from giclee.intake.clock import Clock
from giclee.intake.evaluation import Evaluator
from giclee.intake.handle import READS, STAGE, handle
from giclee.intake.projection import Projection
from giclee.intake.quote import Quoter
from giclee.intake.settings import IntakeSettings
from giclee.intake.store import SCHEMA, Store
from giclee.intake.stream import Bell
from giclee.schemas.events import SwitchSet

CONCURRENCY = 128
"""Events that share transactions, as fast as the database takes them."""
BATCH_MAX = 64


async def main(settings: IntakeSettings) -> None:
    """Open, wire, run."""
    transport = kafka.KafkaTransport(settings.kafka, client_id="giclee-intake")
    ttl = timedelta(hours=settings.request_ttl_h)
    async with (
        avro.of_settings(settings.kafka) as encoder,
        database.connect(settings.database, schema=SCHEMA) as pool,
    ):
        store, bell = Store(pool, ttl), Bell()
        projection = Projection(pool, bell, ttl)
        switches: Table[SwitchSet] = Table(SwitchSet, transport)
        quoter = Quoter(settings.policy_url, settings.router_url, settings.quote_deadline_s)
        linker = Linker(settings.links_from(), settings.assets_from())
        scorer = ScorerCalls(settings.scorer_url, settings.evaluation_deadline_s)
        desk = api.Desk(store, quoter, bell, linker, Evaluator(store, scorer, settings.evaluations_max))
        app = api.application(desk, api_key=settings.api_key.get_secret_value())
        stage = Stage(
            name=STAGE,
            reads=READS,
            emits=(),
            handle=partial(handle, apply=Gathered(projection.apply, BATCH_MAX)),
            concurrency=CONCURRENCY,
            projection=True,
            pools=settings.pools,
        )
        relay = outbox.PlainRelay(pool, SCHEMA, transport, encode=encoder.from_json if encoder else None)
        service = run.Service(
            name=SCHEMA,
            settings=settings,
            stages=(stage,),
            background=(
                relay.run,
                switches.follow,
                Clock(store, projection, switches.rows).run,
                partial(api.serve, app, settings.process.bind_host, settings.port),
            ),
            checks={"database": store.check, "outbox": relay.check},
        )
        await run.serve(service, transport)


if __name__ == "__main__":
    asyncio.run(main(load(IntakeSettings)))
