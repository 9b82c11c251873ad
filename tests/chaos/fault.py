"""What a fault is: drawn from the seed, injected, healed, and able to show from outside that it took hold."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.chaos.stack import STAGE_OF, Stack

ALL_STAGES = tuple(STAGE_OF.values())
SETTLED_WITHIN_S = 180.0
"""A part that was away is expected back after so long on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One fault of a plan. `at_s` counts from the start of the load."""

    number: int
    name: str
    target: str
    at_s: float
    lasts_s: float
    seed: int

    @property
    def kind(self) -> str:
        """What figures are grouped by: the fault, and the service or part that it hit, replicas together."""
        return f"{self.name}:{service_of(self.target)}" if self.target else self.name

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages whose work it stops: of a process its own, of anything else all."""
        service = service_of(self.target)
        if service in STAGE_OF:
            return (STAGE_OF[service],)
        return () if service in ("router.health", "replay") else ALL_STAGES


class Fault(Protocol):
    """One fault at one target."""

    async def inject(self) -> None:
        """Begin it. Returns when it has begun, or is over where it has no length."""
        ...

    async def heal(self) -> None:
        """Undo it, as far as nobody else does, and wait until what was hit answers again."""
        ...

    def proof(self) -> dict[str, Any]:
        """Evidence that it took hold; empty or zeros while there is none."""
        ...


Build = Callable[[Stack, Draw], Fault]


def service_of(target: str) -> str:
    """`scorer` for `scorer.2`, `broker` for `kafka3`, anything else as it is."""
    if target.startswith("kafka"):
        return "broker"
    head, dot, tail = target.rpartition(".")
    return head if dot and tail.isdigit() else target


async def until(condition: Callable[[], Any | Awaitable[Any]], within_s: float) -> bool:
    """Whether `condition` became true in time."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)


def refuses(port: int) -> bool:
    """Whether nobody listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def state_of(pid: int) -> str:
    """What the kernel says of a process: R, S, T (stopped), … ; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
