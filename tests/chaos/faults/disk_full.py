"""The disk of one broker is full: it cannot write, gives up its log folder, and dies again at every start."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from typing import Any

from giclee.infra.local.kafka import Kafka
from tests.chaos.fault import SETTLED_WITHIN_S, Draw, until
from tests.chaos.stack import Stack

PIECE = bytes(1024 * 1024)
DIES_WITHIN_S = 60.0


class DiskFull:
    """A file takes all that is left."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._stack, self._target = stack, draw.target
        part = stack.parts[draw.target]
        assert isinstance(part, Kafka)
        self._data = part.data()
        self._filler = part.data() / "filler"
        self._proof: dict[str, Any] = {}

    async def inject(self) -> None:
        if not await asyncio.to_thread(os.path.ismount, self._data):
            return  # no disk of its own: filling it would fill everybody's
        kept = self._stack.kept[self._target]
        restarts = kept.record.restarts
        full = await asyncio.to_thread(self._fill)
        if full and await until(lambda: kept.record.restarts > restarts, DIES_WITHIN_S):
            self._proof = {"errno": errno.ENOSPC, "died": kept.record.restarts - restarts}

    async def heal(self) -> None:
        self._filler.unlink(missing_ok=True)
        await self._stack.wait_well([self._target], SETTLED_WITHIN_S)

    def proof(self) -> dict[str, Any]:
        return self._proof

    def _fill(self) -> bool:
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                # at the end a write is cut short, and the one after it fails
                if file.write(PIECE) < len(PIECE):
                    file.write(PIECE)
        usage = os.statvfs(self._data)
        return usage.f_bavail * usage.f_frsize < len(PIECE)
