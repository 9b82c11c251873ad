"""SIGSTOP, then SIGCONT: a process that hangs, and wakes up believing that no time has passed."""

from __future__ import annotations

import signal
from typing import Any

from tests.chaos.fault import SETTLED_WITHIN_S, Draw, state_of, until
from tests.chaos.stack import Stack


class Stop:
    """A hung process: worse than a dead one, since nobody starts it again."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._kept = stack.kept[draw.target]
        self._pid: int | None = None
        self._proof: dict[str, Any] = {}

    async def inject(self) -> None:
        await until(lambda: self._kept.pid is not None, SETTLED_WITHIN_S)
        pid = self._pid = self._kept.send(signal.SIGSTOP)
        if pid is not None and await until(lambda: state_of(pid) == "T", 5.0):
            self._proof = {"pid": pid, "state": "T"}

    async def heal(self) -> None:
        if self._pid is not None and self._kept.pid == self._pid:
            self._kept.send(signal.SIGCONT)

    def proof(self) -> dict[str, Any]:
        return self._proof
