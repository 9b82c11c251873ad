"""Everything killed at once, then started in any order: does the line recover by itself, and how soon?

`python -m tests.chaos.cold_start ROUNDS SEED` starts broker, Postgres, S3 and every service of one stack in random
order, each a random moment after the one before, and asks a stack that was never tended to make one image.
Prints one line a round: the order, and the seconds from the last start until the request of the round was closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from giclee.infra import migrate
from giclee.infra import topics as infra
from tests.kit.service_process import free_port
from tests.kit.stack import Stack, stack
from tests.kit.stub_line import MODEL, MODULES
from tests.kit.wait import until

RECOVERS_WITHIN_S = 60.0
"""From the start of the last part until a request is closed, on a machine that does nothing else."""
GAP_MAX_S = 2.0
KEY = "a-key-of-at-least-16"


class Keeper:
    """Keeps service processes alive as a supervisor does: one that exits is started again after a second."""

    def __init__(self, env: dict[str, str], logs: Path) -> None:
        self._env = env
        self._logs = logs
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, module: str) -> None:
        self._tasks.append(asyncio.create_task(self._keep(module)))

    async def _keep(self, module: str) -> None:
        env = {**self._env, "GICLEE_HEALTH_PORT": str(free_port())}
        while True:
            with (self._logs / f"{module}.log").open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", module, env=env, stdout=log, stderr=log
                )
            try:
                await process.wait()
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            await asyncio.sleep(1.0)

    async def kill(self) -> None:
        """kill -9 to all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


def environment(parts: Stack, folder: Path, prefix: str) -> dict[str, str]:
    """What every service reads."""
    (folder / "giclee.toml").write_text(MODEL)
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("GICLEE_", "KAFKA_", "AWS_"))}
    own = {
        "GICLEE_TOPIC_PREFIX": prefix, "GICLEE_API_KEY": KEY, "GICLEE_CONFIG": str(folder / "giclee.toml"),
        "GICLEE_MODELS_DIR": str(folder), "GICLEE_GPU_WORKER_POOL": "local", "PYTHONPATH": os.getcwd(),
        "GICLEE_INTAKE_PORT": str(free_port()), "GICLEE_PUBLISHER_PORT": str(free_port()),
    }  # fmt: skip
    return {**kept, **parts.env(), **own}


def _asked(base: str, request_id: str) -> str | None:
    """What intake says of a request that is asked for again and again under one id; None while it says nothing."""
    body = json.dumps({"request_id": request_id, "prompt": "a small red circle", "size": {"width": 64, "height": 64}})
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    try:
        with urlopen(Request(f"{base}/v1/requests", body.encode(), headers), timeout=5):
            pass
        with urlopen(Request(f"{base}/v1/requests/{request_id}", headers=headers), timeout=5) as answer:
            return str(json.load(answer)["state"])
    except (URLError, OSError):
        return None


async def cold_start(
    parts: Stack, env: dict[str, str], logs: Path, order: Sequence[str], dice: random.Random, *, within_s: float
) -> float:
    """Start everything in `order`; seconds from the last start until a request was closed. Leaves everything dead.

    Errors: AssertionError when that takes longer than `within_s`.
    """
    keeper = Keeper(env, logs)
    running = {"kafka": parts.kafka.running, "postgres": parts.postgres.running, "s3": parts.s3.running}
    starts = {name: partial(one.start, wait=False) for name, one in running.items()}
    try:
        for name in order:
            if name in starts:
                await asyncio.to_thread(starts[name])
            else:
                keeper.start(name)
            await asyncio.sleep(dice.uniform(0, GAP_MAX_S))
        began, rid = time.monotonic(), str(uuid.uuid4())
        base = f"http://127.0.0.1:{env['GICLEE_INTAKE_PORT']}"

        async def ended() -> bool:
            """the request is closed"""
            state = await asyncio.to_thread(_asked, base, rid)
            return state in ("approved", "failed", "partial")

        await until(ended, within_s=within_s)
        return time.monotonic() - began
    finally:
        await keeper.kill()
        for one in running.values():
            await asyncio.to_thread(one.kill)


async def rounds(count: int, seed: int, *, within_s: float = RECOVERS_WITHIN_S) -> list[float]:
    """The seconds of every round."""
    dice, found = random.Random(seed), []
    names = ["kafka", "postgres", "s3", *MODULES]
    with stack(durable=True) as parts, tempfile.TemporaryDirectory(prefix="giclee-cold-") as folder:
        env = environment(parts, Path(folder), f"c{uuid.uuid4().hex[:6]}.")
        infra.apply(infra.Target(parts.bootstrap_servers, env["GICLEE_TOPIC_PREFIX"], replication=1))
        await migrate.migrate(parts.database_url)
        for one in (parts.kafka.running, parts.postgres.running, parts.s3.running):
            one.kill()
        for _ in range(count):
            order = dice.sample(names, len(names))
            found.append(await cold_start(parts, env, Path(folder), order, dice, within_s=within_s))
            print(f"{found[-1]:5.1f} s  {' '.join(order)}", flush=True)
    return found


if __name__ == "__main__":
    took = asyncio.run(rounds(int(sys.argv[1]), int(sys.argv[2])))
    print(f"{len(took)} cold starts, most {max(took):.1f} s")
