"""The worker as a process without a model: `python -m tests.chaos.stub_worker`.

Claims, leases, batches, bucket, topics and failpoints are the service's own; only its table of providers differs.
What an ask gets depends on its seed alone, so that a worker that takes over meets the same fate.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import time
from collections.abc import Sequence
from pathlib import Path

from giclee.gpu_worker import providers
from giclee.gpu_worker.provider import Answer, Ask, Description, NotMade, Provider
from giclee.gpu_worker.providers.stub import Stub
from giclee.schemas.models import Model

IN = 1000
LONG_BELOW = 5
"""Of a thousand seeds, so many take longer than a claim is renewed after."""
LONG_S = 12.0
REFUSED_BELOW = 25
RATE_BELOW = 60
"""From REFUSED_BELOW to here the first model of a chain answers `rate`, and the chain goes on."""
FIRST_MODEL = "stub-first"
QUICK_S = 0.05


async def wait(asks: Sequence[Ask]) -> None:
    """As long as the slowest of a batch takes."""
    slow = any(ask.seed % IN < LONG_BELOW for ask in asks)
    await asyncio.sleep(LONG_S if slow else QUICK_S)


def fate(model: Model, ask: Ask) -> Answer | None:
    """A failure for a few seeds, None for those that get their picture."""
    drawn = ask.seed % IN
    if LONG_BELOW <= drawn < REFUSED_BELOW:
        return NotMade(outcome="refused-content", message="refused by the stub")
    if REFUSED_BELOW <= drawn < RATE_BELOW and model.name == FIRST_MODEL:
        return NotMade(outcome="rate", message="the stub is busy")
    return None


class Charging:
    """The stub with a ledger of its own: a line per call that it charges, when it accepts it."""

    capabilities = Stub.capabilities

    def __init__(self, stub: Stub, ledger: Path) -> None:
        self._stub, self._ledger = stub, ledger
        ledger.parent.mkdir(parents=True, exist_ok=True)

    async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        price = str(model.price_usd)
        charged = [{"at": time.time(), "seed": one.seed, "price_usd": price} for one in asks if not fate(model, one)]
        with self._ledger.open("a", encoding="utf-8") as out:
            out.write("".join(json.dumps(line) + "\n" for line in charged))
        return await self._stub.make(model, asks, padded)

    async def describe(self, model: Model) -> Description:
        return await self._stub.describe(model)

    async def close(self) -> None:
        await self._stub.close()


def provider() -> Provider:
    """The stub; with CHAOS_LEDGER set, one that keeps a ledger there."""
    stub, ledger = Stub(instead=fate, before=wait), os.environ.get("CHAOS_LEDGER")
    return Charging(stub, Path(ledger)) if ledger else stub


if __name__ == "__main__":
    providers.TABLE["stub"] = lambda kit: provider()
    runpy.run_module("giclee.gpu_worker", run_name="__main__", alter_sys=True)
