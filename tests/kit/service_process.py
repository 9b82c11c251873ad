"""A service as a process of its own, as the stack runs it: ready before the test goes on, stopped by SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from tests.kit.wait import until

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0


@asynccontextmanager
async def running(module: str, env: Mapping[str, str], *words: str) -> AsyncIterator[int]:
    """`python -m <module> <words>` with nothing of ours in its environment but `env`; gives its health port.

    Errors: AssertionError when it is not ready in time or does not stop cleanly.
    """
    port = free_port()
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("GICLEE_", "KAFKA_"))}
    mine = {**kept, **env, "GICLEE_HEALTH_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, *words, env=mine)
    try:
        await until(lambda: _ready_or_gone(process, port), within_s=READY_WITHIN_S)
        assert process.returncode is None, f"{module} exited with {process.returncode}"
        yield port
        process.terminate()
        assert await asyncio.wait_for(process.wait(), STOP_WITHIN_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def post(port: int, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of an internal endpoint. Errors: HTTPError for a problem."""

    def ask() -> dict[str, Any]:
        request = Request(f"http://127.0.0.1:{port}{path}", data=json.dumps(body).encode(), method="POST")
        with urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    return await asyncio.to_thread(ask)


async def _ready_or_gone(process: asyncio.subprocess.Process, port: int) -> bool:
    """/readyz says so, or the process has ended."""
    return process.returncode is not None or await asyncio.to_thread(_is_ready, port)


def _is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(json.load(answer)["ready"])
    except (URLError, OSError):
        return False
