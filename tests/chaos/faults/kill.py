"""kill -9 of a process; whoever keeps it up starts it again."""

from __future__ import annotations

import signal
from typing import Any

from tests.chaos.fault import SETTLED_WITHIN_S, Draw, until
from tests.chaos.stack import Stack


class Kill:
    """A death without a word."""

    number = signal.SIGKILL

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._stack, self._target = stack, draw.target
        self._kept = stack.kept[draw.target]
        self._proof: dict[str, Any] = {}

    async def inject(self) -> None:
        await until(lambda: self._kept.pid is not None, SETTLED_WITHIN_S)
        pid = self._kept.send(self.number)
        if pid is not None and await until(lambda: self._kept.pid != pid, SETTLED_WITHIN_S):
            self._proof = {"pid": pid, "exit": self._kept.record.last_exit}

    async def heal(self) -> None:
        if self._target in self._stack.parts:
            await self._stack.wait_well([self._target], SETTLED_WITHIN_S)

    def proof(self) -> dict[str, Any]:
        return self._proof
