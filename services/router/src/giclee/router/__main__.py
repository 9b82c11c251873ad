"""Runs the router: reads clearances and waves, sends candidates to pools, answers quotes."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from giclee.bus import database, kafka, run, settings
from giclee.bus.stage import Stage
from giclee.bus.table import Table
from giclee.router import advice
from giclee.router.choose import Known
from giclee.router.costs import terms_of
from giclee.router.handle import STAGE, Router
from giclee.router.prices import Prices, rows_of
from giclee.router.quote import Quote
from giclee.router.routes import catalogue
from giclee.router.settings import RouterSettings
from giclee.router.store import Waves
from giclee.schemas import tenant_terms
from giclee.schemas.events import (
    CandidatesRequested,
    GenerationFailed,
    ImageCleared,
    ImageRouted,
    PriceSet,
    ProviderHealth,
    SwitchSet,
)
from giclee.schemas.strict import InvalidInput
from giclee.schemas.tenant_terms import Demands


async def main(own: RouterSettings) -> None:
    """Run until a signal. Errors: SystemExit with what is wrong."""
    try:
        tables = catalogue(own.config, Path(own.models_dir), own.pools)
        prices = rows_of(own.config, [offer.model for offer in tables.offers])
        terms = terms_of(own.config)
        demands = Demands(tenant_terms.load(own.config))
    except InvalidInput as error:
        sys.exit(f"router: {error}")
    transport = kafka.KafkaTransport(own.kafka, client_id="giclee-router")
    # Nothing waits for these tables but the one of prices: without health every provider counts as well, and the
    # switches that stop a stage are followed by the bus; here they only say whom to pass over.
    health: Table[ProviderHealth] = Table(ProviderHealth, transport)
    switches: Table[SwitchSet] = Table(SwitchSet, transport)
    live: Table[PriceSet] = Table(PriceSet, transport)
    known = Known(
        prices=Prices(prices, live.rows),
        advice=advice.Advice(health.rows, switches.rows),
        switches=switches.rows,
        terms=terms,
        demands=demands,
    )
    async with database.connect(own.database, schema="router") as pool:
        store = Waves(pool)
        router = Router(tables, store, known)
        quote = Quote(tables.offers, lambda: advice.fresh(health.rows, datetime.now(UTC)), known)
        stage = Stage(
            name=STAGE,
            reads=(ImageCleared, CandidatesRequested),
            emits=(ImageRouted, GenerationFailed),
            handle=router.handle,
            refuse=router.refuse,
            concurrency=own.concurrency,
        )
        service = run.Service(
            name="router",
            settings=own,
            stages=(stage,),
            background=(store.keep_pruned, health.follow, switches.follow, live.follow),
            checks={"database": store.check, "prices": live.check},
            internal={"/internal/quote": quote.quote},
        )
        await run.serve(service, transport)


if __name__ == "__main__":
    asyncio.run(main(settings.load(RouterSettings)))
