"""When a run is over: every accepted request has its closing, and no stage has anything left to read."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from giclee.infra import topics
from giclee.infra.trouble import Trouble
from tests.chaos.stack import STAGE_OF

CLOSED = "image.closed.v1"
STILL_FOR_S = 3.0


@dataclass(slots=True)
class Closings:
    """Ids of the requests whose closing a `read_committed` subscriber has seen."""

    bootstrap_servers: str
    ids: set[str] = field(default_factory=set)

    async def follow(self) -> None:
        """Until cancelled; starts over when a client gives up."""
        while True:
            consumer = AIOKafkaConsumer(
                CLOSED,
                bootstrap_servers=self.bootstrap_servers,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                request_timeout_ms=10_000,
            )
            try:
                async with consumer:
                    async for record in consumer:
                        self.ids.add(str(json.loads(record.value)["request_id"]))
            except (KafkaError, OSError):
                await asyncio.sleep(1.0)


def accepted(operations: Path) -> dict[str, dict[str, Any]]:
    """Request id -> last line of its operation, of every request that was promised an end."""
    lines: dict[str, dict[str, Any]] = {}
    if operations.exists():
        for text in operations.read_text().splitlines():
            line = json.loads(text)
            lines[line["id"]] = line
    promised = [
        line
        for line in lines.values()
        if line["kind"] in ("http", "kafka")
        and line["result"] == "ok"
        and line.get("valid", True)
        and "repeats" not in line
    ]
    return {line["request_id"]: line for line in promised}


def behind(env: Mapping[str, str]) -> dict[str, int]:
    """Group and topic -> records that a stage has yet to read. Blocks. Errors: Trouble.

    Without what the relay writes: an aborted transaction at the end of a log looks like records that nobody reads.
    """
    groups = {f"giclee.{stage}" for stage in STAGE_OF.values()} | {"giclee.intake.status", "giclee.gpu-worker.local"}
    rows = topics.lag(topics.Target(env["KAFKA_BOOTSTRAP_SERVERS"], "", 3))
    return {
        f"{row.group} on {row.topic}": row.lag
        for row in rows
        if row.lag and row.group in groups and row.topic not in topics.TRANSACTIONAL
    }


async def wait(
    env: Mapping[str, str], operations: Path, closings: Closings, within_s: float, tell: Callable[[str], None]
) -> list[str]:
    """Wait until it is over; gives the ids of requests that are open when the time is up."""
    deadline, still_since, said = time.monotonic() + within_s, 0.0, 0.0
    while True:
        left = accepted(operations).keys() - closings.ids
        try:
            unread = await asyncio.to_thread(behind, env) if not left else {}
        except Trouble as trouble:
            unread = {str(trouble): 1}
        now = time.monotonic()
        if left or unread:
            still_since = now
        if now > deadline:
            tell(f"not quiet after {within_s:.0f} s: {len(left)} open, {unread}")
            return sorted(left)
        if now - still_since >= STILL_FOR_S:
            return []
        if now - said > 10:
            said = now
            tell(f"waiting for {len(left)} requests {unread or ''}")
        await asyncio.sleep(0.5)
