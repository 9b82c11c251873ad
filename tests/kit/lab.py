"""The provider lab (tests/lab) as a process of its own, and what a test says to it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from urllib.request import Request, urlopen

from pydantic import SecretStr

from giclee.gpu_worker.providers import HOSTED, Kit

STOP_WITHIN_S = 10.0
ANSWER_WITHIN_S = 10.0
PATHS = {"openai": "openai/v1", "replicate": "replicate/v1"}
KEYS = {
    **{name: f"lab-{name}-key-0123456789" for name in sorted(HOSTED)},
    "replicate": "r8_lab0123456789abcdef",
    "openai": "sk-lab-0123456789abcdef",
    "bedrock": "AKIALAB0123456789:lab+secret/0123456789abcdef",
}


class Lab:
    """A running lab, by the port it listens on."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, provider: str) -> str:
        """Where a provider's API begins here."""
        return f"http://127.0.0.1:{self.port}/{PATHS.get(provider, provider)}"

    def kit(self, **fields: Any) -> Kit:
        """What settings would say to use the lab."""
        keys = {name: SecretStr(key) for name, key in KEYS.items()}
        return Kit(**{"keys": keys, "base_urls": {name: self.url(name) for name in KEYS}, "deadline_s": 30.0, **fields})

    async def told(self) -> dict[str, Any]:
        """All the lab knows: bill, requests seen, faults met, how often the trap was, bytes of endless answers."""
        return await self._said("", None)

    async def bill(self, provider: str) -> list[dict[str, Any]]:
        """What a provider charged, an entry an image."""
        return [line for line in (await self.told())["bill"] if line["provider"] == provider]

    async def charged(self, provider: str) -> Decimal:
        """US dollars in all."""
        return sum((Decimal(line["usd"]) for line in await self.bill(provider)), Decimal(0))

    async def seen(self, provider: str, call: str) -> list[dict[str, Any]]:
        """The requests of one kind, in their order."""
        rows = (await self.told())["seen"]
        return [row for row in rows if (row["provider"], row["call"]) == (provider, call)]

    async def inject(self, provider: str, call: str, fault: str, *, times: int | None = None, **params: Any) -> None:
        """Let a call fail: so many times, or until the lab is cleared."""
        await self._said("/faults", {"provider": provider, "call": call, "fault": fault, "times": times, **params})

    async def price(self, provider: str, factor: str) -> None:
        """From now on everything costs so much more."""
        await self._said("/price", {"provider": provider, "factor": factor})

    async def release(self, provider: str) -> None:
        """Whatever stands still goes on."""
        await self._said("/release", {"provider": provider})

    async def forget(self, provider: str) -> None:
        """The provider knows none of its jobs any more."""
        await self._said("/forget", {"provider": provider})

    async def mend(self) -> None:
        """No fault waits any more."""
        await self._said("/mend", {})

    async def clear(self) -> None:
        """Everything as at the start."""
        await self._said("/clear", {})

    async def _said(self, path: str, body: Any) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            request = Request(f"http://127.0.0.1:{self.port}/lab{path}", data=data, headers=headers)
            with urlopen(request, timeout=ANSWER_WITHIN_S) as answer:
                found: dict[str, Any] = json.load(answer)
                return found

        return await asyncio.to_thread(ask)


@contextmanager
def running() -> Iterator[Lab]:
    """`python -m tests.lab`, up to its first line; ended with the block."""
    process = subprocess.Popen([sys.executable, "-m", "tests.lab"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Lab(json.loads(process.stdout.readline())["port"])
    finally:
        process.kill()
        process.wait(STOP_WITHIN_S)
        if process.stdout is not None:
            process.stdout.close()
