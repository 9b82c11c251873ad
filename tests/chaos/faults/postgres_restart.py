"""Postgres is told to stop at once (`pg_ctl stop -m immediate`) and started again: it recovers from its log."""

from __future__ import annotations

import signal
import time
from urllib.parse import urlsplit

from tests.chaos.fault import SETTLED_WITHIN_S, Draw, refuses, until
from tests.chaos.faults.kill import Kill
from tests.chaos.stack import Stack


class PostgresRestart(Kill):
    """An immediate shutdown. It is over when the server listens again: whoever keeps it up waits longer each time."""

    number = signal.SIGQUIT

    def __init__(self, stack: Stack, draw: Draw) -> None:
        super().__init__(stack, draw)
        self._port = urlsplit(stack.env["DATABASE_URL"]).port or 0

    async def inject(self) -> None:
        await super().inject()
        if self._proof:
            self._proof["refused"] = int(refuses(self._port))
            began = time.monotonic()
            await until(lambda: not refuses(self._port), SETTLED_WITHIN_S)
            self._proof["away_s"] = round(time.monotonic() - began, 1)
