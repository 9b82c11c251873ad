"""The worker as a process without a model: `python -m tests.chaos.stub_worker`.

Claims, leases, batches, bucket, topics and failpoints are the service's own; only its table of providers differs.
What an ask gets depends on its seed alone, so that a worker that takes over meets the same fate.
"""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import Sequence

from giclee.gpu_worker import providers
from giclee.gpu_worker.provider import Answer, Ask, NotMade
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


if __name__ == "__main__":
    providers.TABLE["stub"] = lambda kit: Stub(instead=fate, before=wait)
    runpy.run_module("giclee.gpu_worker", run_name="__main__", alter_sys=True)
