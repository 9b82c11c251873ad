"""A rebalance storm: a stranger joins a stage's group, takes its share without ever committing, leaves, and again."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError

from giclee.schemas.topics import groups
from tests.chaos.fault import Draw, service_of
from tests.chaos.stack import STAGE_OF, Stack

STAYS_S = 1.0
GROUP_OF = {"intake": "giclee.intake.status", "gpu_worker": "giclee.gpu-worker.local"}


class Rebalance:
    """Comings and goings, one after the other."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._servers = stack.env["KAFKA_BOOTSTRAP_SERVERS"]
        service = service_of(draw.target)
        self._group = GROUP_OF.get(service, f"giclee.{STAGE_OF[service]}")
        self._joined = 0
        self._over = False
        self._storm: asyncio.Task[None] | None = None

    async def inject(self) -> None:
        self._storm = asyncio.create_task(self._come_and_go())

    async def heal(self) -> None:
        """The library swallows a cancellation that comes while a member leaves, so that is not enough to end it.

        Errors: TimeoutError, for a storm that goes on would be another run than the one that was planned.
        """
        self._over = True
        if self._storm is not None:
            self._storm.cancel()
            _, pending = await asyncio.wait([self._storm], timeout=30)
            if pending:
                raise TimeoutError(f"the storm in {self._group} does not end")

    def proof(self) -> dict[str, Any]:
        return {"joined": self._joined}

    async def _come_and_go(self) -> None:
        while not self._over:
            stranger = AIOKafkaConsumer(
                *groups()[self._group],
                bootstrap_servers=self._servers,
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="latest",
                session_timeout_ms=6000,
                partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            )
            try:
                await stranger.start()
                async with asyncio.timeout(20):
                    while not stranger.assignment():
                        await stranger.getmany(timeout_ms=100, max_records=1)
                self._joined += 1
                await asyncio.sleep(STAYS_S)
            except (KafkaError, TimeoutError, OSError):
                await asyncio.sleep(1.0)
            finally:
                await stranger.stop()
