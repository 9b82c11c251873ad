"""Carries out a plan and writes `faults.jsonl`: what was planned, what happened, and the evidence."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException

from tests.chaos.fault import Draw, until
from tests.chaos.faults import TABLE
from tests.chaos.plan import takes
from tests.chaos.stack import Stack

FELT_WITHIN_S = 60.0
"""A fault that nobody has met yet when its time is over goes on for so long."""
_ROWS = {row.name: row for row in TABLE}


@dataclass(slots=True)
class Nemesis:
    """One run of one plan."""

    stack: Stack
    scale: Mapping[str, int]
    log: TextIO
    happened: int = 0
    failures: list[str] = field(default_factory=list)
    _locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def run(self, plan: Sequence[Draw]) -> None:
        """Until the last fault is healed. What it started is healed as well when it is cancelled."""
        for one in plan:
            self._note(one, planned=True, at_s=one.at_s, lasts_s=one.lasts_s)
        began = time.monotonic()
        async with asyncio.TaskGroup() as faults:
            for one in plan:
                await asyncio.sleep(max(0.0, began + one.at_s - time.monotonic()))
                faults.create_task(self._carry_out(one))

    async def _carry_out(self, one: Draw) -> None:
        row = _ROWS[one.name]
        async with AsyncExitStack() as held:
            for thing in sorted(takes(row, one.target, self.scale)):
                await held.enter_async_context(self._locks[thing])
            fault = row.build(self.stack, one)
            began_at = time.time()
            try:
                async with _failures(self.failures, one):
                    await fault.inject()
                    await asyncio.sleep(one.lasts_s if one.name != "end-txn-delay" else 0.0)
                    if one.lasts_s:
                        await until(lambda: any(fault.proof().values()), FELT_WITHIN_S)
            finally:
                ended_at = time.time()
                async with _failures(self.failures, one):
                    await fault.heal()
            proof = fault.proof()
            shown = any(proof.values())
            self.happened += shown
            self._note(one, planned=True, happened=shown, began_at=began_at, ended_at=ended_at, proof=proof)

    def _note(self, one: Draw, **more: Any) -> None:
        line = {"id": one.number, "kind": one.kind, "target": one.target, "stages": one.stages, **more}
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()
        print(f"{time.strftime('%H:%M:%S')} fault {one.number} {one.kind} {one.target}: {_said(more)}", flush=True)


@asynccontextmanager
async def _failures(found: list[str], one: Draw) -> AsyncIterator[None]:
    """What an outside part does wrong is told and goes on: whether the fault happened is for its proof to say."""
    try:
        yield
    except (OSError, TimeoutError, KafkaError, KafkaException) as error:
        found.append(f"{one.number} {one.kind}: {type(error).__name__}: {error}")
        print(found[-1], flush=True)


def _said(more: Mapping[str, Any]) -> str:
    return "planned" if "proof" not in more else f"happened {more['proof']}"
