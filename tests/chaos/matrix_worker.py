"""The worker of the kill matrix: `python -m tests.chaos.matrix_worker`. Its provider writes down every image it sold.

PAID_LOG names the file: one seed a line, written before the answer is given, as a real provider books first.
A prompt with the word `exhausted` is answered by `rate`, which a chain of one provider cannot survive; one with the
word `slow` takes longer than the sweeper sleeps, so that its lease is renewed.
"""

from __future__ import annotations

import asyncio
import os
import runpy
from collections.abc import Sequence

from giclee.gpu_worker import providers
from giclee.gpu_worker.provider import Answer, Ask, NotMade
from giclee.gpu_worker.providers.stub import Stub
from giclee.schemas.models import Model

SLOW_S = 6.0


async def wait(asks: Sequence[Ask]) -> None:
    """As long as the slowest of a batch takes."""
    if any("slow" in ask.prompt for ask in asks):
        await asyncio.sleep(SLOW_S)


def sold(model: Model, ask: Ask) -> Answer | None:
    """None for an image that is made and paid for; why not, for the others."""
    if "exhausted" in ask.prompt:
        return NotMade(outcome="rate", message="the stub is busy")
    with open(os.environ["PAID_LOG"], "a") as file:
        file.write(f"{ask.seed}\n")
    return None


if __name__ == "__main__":
    providers.TABLE["stub"] = lambda kit: Stub(instead=sold, before=wait)
    runpy.run_module("giclee.gpu_worker", run_name="__main__", alter_sys=True)
