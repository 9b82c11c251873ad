"""Parts that are gone for a while: killed, and not started again before the end. Targets are joined by a plus."""

from __future__ import annotations

import signal
from typing import Any

from giclee.infra.local.kafka import Kafka
from giclee.infra.local.s3 import S3
from tests.chaos.fault import SETTLED_WITHIN_S, Draw, refuses, until
from tests.chaos.stack import Stack


class Away:
    """Nobody listens."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._stack, self._targets = stack, draw.target.split("+")
        self._proof: dict[str, Any] = {}

    async def inject(self) -> None:
        for target in self._targets:
            self._stack.kept[target].hold()
            self._stack.kept[target].send(signal.SIGKILL)
        dead = [self._stack.kept[target] for target in self._targets]
        if await until(lambda: all(kept.pid is None for kept in dead), 10.0):
            self._proof = {"refused": sum(refuses(self._port(target)) for target in self._targets)}

    async def heal(self) -> None:
        for target in self._targets:
            self._stack.kept[target].release()
        await self._stack.wait_well(self._targets, SETTLED_WITHIN_S)

    def proof(self) -> dict[str, Any]:
        return self._proof

    def _port(self, target: str) -> int:
        part = self._stack.parts[target]
        assert isinstance(part, Kafka | S3)
        return part.ports.of("kafka" if isinstance(part, Kafka) else "s3")
