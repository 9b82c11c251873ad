"""`python -m giclee.publisher`: decides orders, publishes them, and answers for assets."""

from __future__ import annotations

import asyncio
from functools import partial

from giclee.bus import avro, blobs, database, kafka, outbox, run
from giclee.bus.settings import load
from giclee.publisher import api
from giclee.publisher.closing import STAGE
from giclee.publisher.derive import deriving
from giclee.publisher.handle import stages
from giclee.publisher.inquiries import Inquiries
from giclee.publisher.seal import Sealer
from giclee.publisher.settings import PublisherSettings
from giclee.publisher.store import Store
from giclee.publisher.sweep import Sweeper


async def main(settings: PublisherSettings) -> None:
    """Open, wire, run."""
    transport = kafka.KafkaTransport(settings.kafka, client_id="giclee-publisher")
    async with (
        avro.of_settings(settings.kafka) as encoder,
        database.connect(settings.database, schema=STAGE) as pool,
        blobs.connect(settings.blobs) as bucket,
        deriving() as deriver,
    ):
        store = Store(pool, settings.pace(), settings.links_from())
        sealer = Sealer(bucket, deriver)
        inquiries = Inquiries(store, bucket)
        assets = api.application(
            store, bucket, api_key=settings.api_key.get_secret_value(), link_s=settings.download_link_s
        )
        plain = outbox.PlainRelay(pool, STAGE, transport)
        encode = encoder.from_json if encoder else None
        exactly_once = outbox.TransactionalRelay(pool, STAGE, transport, encode=encode)
        service = run.Service(
            name=STAGE,
            settings=settings,
            stages=stages(store, sealer, concurrency=settings.concurrency),
            background=(
                plain.run,
                exactly_once.run,
                partial(store.rates.run, store),
                Sweeper(store, sealer, settings.sweep_interval_s).run,
                partial(api.serve, assets, settings.process.bind_host, settings.port),
            ),
            internal={"/internal/orders": inquiries.orders, "/internal/blobs": inquiries.blobs},
            checks={
                "database": store.check,
                "bucket": bucket.check,
                "waves": plain.check,
                "approvals": exactly_once.check,
            },
        )
        await run.serve(service, transport)


if __name__ == "__main__":
    asyncio.run(main(load(PublisherSettings)))
