"""A rolling restart: one broker after the other stops as it should, and the next only when no replica lags."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.chaos.fault import SETTLED_WITHIN_S, Draw, until
from tests.chaos.stack import Stack

STOPS_WITHIN_S = 30.0


class Rolling:
    """All three, in turn."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._stack = stack
        self._restarted = 0

    async def inject(self) -> None:
        admin = AdminClient({"bootstrap.servers": self._stack.env["KAFKA_BOOTSTRAP_SERVERS"], "log_level": 2})
        for name in self._stack.brokers():
            await until(lambda: asyncio.to_thread(_in_sync, admin), SETTLED_WITHIN_S)
            kept = self._stack.kept[name]
            pid = kept.send(signal.SIGTERM)
            if not await until(lambda: kept.pid != pid, STOPS_WITHIN_S):  # noqa: B023 - awaited in this round
                kept.send(signal.SIGKILL)
            self._restarted += kept.record.last_exit == 128 + signal.SIGTERM
            await self._stack.wait_well([name], SETTLED_WITHIN_S)
        await until(lambda: asyncio.to_thread(_in_sync, admin), SETTLED_WITHIN_S)

    async def heal(self) -> None:
        """Nothing is left of it."""

    def proof(self) -> dict[str, Any]:
        return {"restarted": self._restarted}


def _in_sync(admin: AdminClient) -> bool:
    """Whether every replica of every partition keeps up. Blocks for at most five seconds."""
    try:
        topics = admin.list_topics(timeout=5).topics.values()
    except KafkaException:
        return False
    return all(len(part.isrs) == len(part.replicas) for topic in topics for part in topic.partitions.values())
