"""The offsets of a stage's group are deleted. The stage must say so and stand still; an operator gives it first
offsets (`giclee topics apply`), and it reads everything again."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from giclee.infra.local.supervisor import giclee
from tests.chaos.fault import SETTLED_WITHIN_S, Draw, service_of, until
from tests.chaos.faults.rebalance import GROUP_OF
from tests.chaos.stack import STAGE_OF, Stack

EMPTY_WITHIN_S = 30.0
"""A session of 8 s must end before a group without members can be deleted."""


class OffsetsDeleted:
    """All replicas of one service."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._stack, service = stack, service_of(draw.target)
        self._names = stack.replicas(service)
        self._group = GROUP_OF.get(service, f"giclee.{STAGE_OF[service]}")
        self._deleted = self._unready = 0

    async def inject(self) -> None:
        await self._down()
        admin = AdminClient({"bootstrap.servers": self._stack.env["KAFKA_BOOTSTRAP_SERVERS"], "log_level": 2})
        self._deleted = await until(lambda: asyncio.to_thread(_delete, admin, self._group), EMPTY_WITHIN_S)
        self._up()

    async def heal(self) -> None:
        ill = [await asyncio.to_thread(self._stack.trouble, name) for name in self._names]
        self._unready = sum(why is not None for why in ill)
        await self._down()
        applied = await until(self._apply, SETTLED_WITHIN_S)
        self._up()
        if applied:
            await self._stack.wait_well(self._names, SETTLED_WITHIN_S)

    def proof(self) -> dict[str, Any]:
        return {"deleted": int(self._deleted), "unready": self._unready}

    async def _down(self) -> None:
        for name in self._names:
            self._stack.kept[name].hold()
            self._stack.kept[name].send(signal.SIGKILL)
        await until(lambda: all(self._stack.kept[name].pid is None for name in self._names), 10.0)

    def _up(self) -> None:
        for name in self._names:
            self._stack.kept[name].release()

    async def _apply(self) -> bool:
        """As an operator does; refused while members that were killed are still thought to live."""
        log = self._stack.folder.log("topics").open("ab")
        with log:
            ran = await asyncio.create_subprocess_exec(
                giclee(), "topics", "apply", env=self._stack.command_env(), stdout=log, stderr=log
            )
            return await ran.wait() == 0


def _delete(admin: AdminClient, group: str) -> bool:
    try:
        for future in admin.delete_consumer_groups([group], request_timeout=10).values():
            future.result(timeout=15)
    except (KafkaException, TimeoutError):
        return False
    return True
