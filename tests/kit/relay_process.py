"""A transactional relay as a process of its own, to be killed or stopped: DATABASE_URL, bootstrap servers, prefix."""

from __future__ import annotations

import asyncio
import sys

from giclee.bus import database, outbox
from giclee.bus.kafka import KafkaTransport
from giclee.bus.outbox import TransactionalRelay
from giclee.bus.settings import DatabaseSettings, KafkaSettings
from tests.kit.outboxes import SCHEMA

IDLE_MAX_S = 6
"""More than opening a producer takes on a busy machine, or the relay loses its session before it has begun."""


async def main(database_url: str, bootstrap_servers: str, topic_prefix: str) -> None:
    """Relay until killed; its session may be silent for IDLE_MAX_S only, so that a test sees what happens then."""
    outbox.SESSION_IDLE_MAX_S = IDLE_MAX_S
    settings = KafkaSettings(bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    async with database.connect(DatabaseSettings(url=database_url, pool_max=2), SCHEMA) as pool:
        await TransactionalRelay(pool, SCHEMA, KafkaTransport(settings)).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
