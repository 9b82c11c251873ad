"""The clock of the store: forgetting is nothing that a service must be up for."""

from __future__ import annotations

import asyncio
from typing import Any

from giclee.router.store import Waves


class Away:
    """A database that refuses connections."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def fetchval(self, *_: object) -> None:
        self.asked.set()
        raise ConnectionRefusedError("nobody listens")


async def test_an_outage_while_it_forgets_does_not_end_the_process() -> None:
    """Background work that ends takes the whole process with it; this one tries again an hour later."""
    away: Any = Away()
    forgetting = asyncio.create_task(Waves(away).keep_pruned())
    try:
        await away.asked.wait()
        await asyncio.wait({forgetting}, timeout=0.05)
        assert not forgetting.done()
    finally:
        forgetting.cancel()
