"""Postgres is told to stop at once (`pg_ctl stop -m immediate`) and started again: it recovers from its log."""

from __future__ import annotations

import signal
from urllib.parse import urlsplit

from tests.chaos.fault import Draw, refuses
from tests.chaos.faults.kill import Kill
from tests.chaos.stack import Stack


class PostgresRestart(Kill):
    """An immediate shutdown."""

    number = signal.SIGQUIT

    def __init__(self, stack: Stack, draw: Draw) -> None:
        super().__init__(stack, draw)
        self._port = urlsplit(stack.env["DATABASE_URL"]).port or 0

    async def inject(self) -> None:
        await super().inject()
        if self._proof:
            self._proof["refused"] = int(refuses(self._port))
