"""Machines die in the middle of the work: every request still closes exactly once, and nothing comes twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections import Counter
from typing import Any

from tests.system.conftest import System
from tests.system.test_line import Follower, check_bytes, prompt, publish

VICTIMS = ("policy", "router", "gpu_worker", "scorer", "publisher", "intake", "replay", "router.health", "kafka")
REQUESTS = 60


async def _kill(system: System, name: str) -> int:
    """kill -9 the process of that name; its pid."""
    found = await asyncio.to_thread(system.processes)
    pid: int = next(one["pid"] for one in found if one["name"] == name)
    os.kill(pid, signal.SIGKILL)
    return pid


async def test_every_request_closes_once_while_each_process_is_killed(system: System) -> None:
    """Sixty requests, kill -9 of each service and of the broker: sixty closings, no approval twice, all bytes there.

    A poison record in between is stalled and does not stop the others.
    """
    run = uuid.uuid4().hex[:8]
    bodies = [
        json.dumps({"prompt": prompt(n), "client_ref": f"{run}-{n}", "labels": {"run": run}}) for n in range(REQUESTS)
    ]
    killed: dict[str, int] = {}
    async with Follower(system, "image.closed.v1", "image.approved.v1", "image.stalled.v1") as follower:

        def mine(topic: str) -> list[dict[str, Any]]:
            return [one for one in follower.seen[topic] if one.get("labels", {}).get("run") == run]

        share = -(-REQUESTS // len(VICTIMS))
        for at, victim in enumerate(VICTIMS):
            await publish(system, [body.encode() for body in bodies[at * share : (at + 1) * share]])
            if at == 2:
                await publish(system, [b'{"prompt":"poison","wanted":"many"}'])
            closed = len(mine("image.closed.v1"))
            killed[victim] = await _kill(system, victim)
            wanted = min(closed + 2, len(bodies[: (at + 1) * share]))
            await follower.until(lambda wanted=wanted: len(mine("image.closed.v1")) >= wanted, 120)
        await follower.until(lambda: len(mine("image.closed.v1")) >= REQUESTS, 240)
        named = sum(len(one.get("assets", ())) for one in mine("image.closed.v1"))
        await follower.until(lambda: len(mine("image.approved.v1")) >= named, 60)

    closings = Counter(one["client_ref"] for one in mine("image.closed.v1"))
    assert set(closings) == {f"{run}-{n}" for n in range(REQUESTS)}
    assert set(closings.values()) == {1}
    approvals = mine("image.approved.v1")
    assert len({(one["asset_id"], one["version"]) for one in approvals}) == len(approvals) == named
    assert [one for one in follower.seen["image.stalled.v1"] if one["class"] == "invalid"]
    await check_bytes(system, approvals)
    now = {one["name"]: one for one in await asyncio.to_thread(system.processes)}
    assert all(now[name]["pid"] != pid and now[name]["restarts"] >= 1 for name, pid in killed.items())
