"""The two sides of G2 and G3 as processes: our services with stubbed models, and the bare relays."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.bench import relays
from tests.bench.measure import Wrong, cpu_s
from tests.kit.stack import Stack
from tests.kit.wait import until

START_MAX_S = 120.0
MODEL = """
[[models]]
name = "prepared"
revision = "1"
location = "prepared"
provider = "stub"
qualities = ["final"]
price_usd = 0.0004
steps = 8
width = 64
height = 64
size_min = 64
size_max = 64
"""
SERVICES: dict[str, tuple[str, ...]] = {
    "policy": ("giclee.policy",),
    "router": ("giclee.router",),
    "gpu_worker": ("tests.bench.stubbed", "gpu_worker"),
    "scorer": ("tests.bench.stubbed", "scorer"),
    "publisher": ("giclee.publisher",),
}


@dataclass(slots=True)
class Side:
    """Processes by name that turn a record on `source` into one on each of `targets`."""

    source: str
    targets: tuple[str, ...]
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of each process and its children so far."""
        return {name: cpu_s([process.pid]) for name, process in self.processes.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _clean() -> dict[str, str]:
    foreign = ("GICLEE_", "KAFKA_", "AWS_", "DATABASE_", "OTEL_", "SCHEMA_REGISTRY_")
    return {name: text for name, text in os.environ.items() if not name.startswith(foreign)}


def _end_of(log: Path) -> str:
    return log.read_text()[-3000:]


async def ready(process: asyncio.subprocess.Process, port: int, log: Path) -> bool:
    """/readyz says so."""
    if process.returncode is not None:
        raise Wrong(f"{log.stem} ended with {process.returncode}:\n{_end_of(log)}")
    try:
        return bool(await asyncio.to_thread(_answers, port))
    except (URLError, OSError):
        return False


def _answers(port: int) -> bool:
    with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
        return bool(answer.status == 200)


async def _stop(side: Side) -> None:
    for process in side.processes.values():
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
    for process in side.processes.values():
        try:
            async with asyncio.timeout(40):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def environment(stack: Stack, prefix: str, folder: Path, database_url: str) -> dict[str, str]:
    """What the local stack would give every service, the prepared model included."""
    config, models = folder / "models.toml", folder / "no-models"
    config.write_text(MODEL)
    models.mkdir(exist_ok=True)
    return {
        **_clean(),
        **stack.env(),
        "DATABASE_URL": database_url,
        "GICLEE_TOPIC_PREFIX": prefix,
        "GICLEE_CONFIG": str(config),
        "GICLEE_MODELS_DIR": str(models),
        "GICLEE_API_KEY": "a-key-of-at-least-16",
        "GICLEE_LOG_LEVEL": "warning",
        "MALLOC_ARENA_MAX": "2",
    }


@asynccontextmanager
async def line(env: Mapping[str, str], folder: Path) -> AsyncIterator[Side]:
    """The five services between request and approval, ready; each a process, as in the local stack."""
    side = Side("image.requested.v1", ("image.approved.v1", "image.closed.v1"))
    ports = {name: free_port() for name in SERVICES}
    try:
        for name, module in SERVICES.items():
            own = {"GICLEE_HEALTH_PORT": str(ports[name]), "GICLEE_PUBLISHER_PORT": "0"}
            with (folder / f"{name}.log").open("ab") as log:
                side.processes[name] = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", *module, env={**env, **own}, stdout=log, stderr=log
                )
        for name, process in side.processes.items():
            log_of = folder / f"{name}.log"
            await until(lambda p=process, n=name, f=log_of: ready(p, ports[n], f), START_MAX_S)  # type: ignore[misc]
        yield side
    finally:
        await _stop(side)


@asynccontextmanager
async def bare(brokers: str, prefix: str) -> AsyncIterator[Side]:
    """Six relays, joined, in as many processes as the line has: the last process runs two."""
    side = Side(relays.topic(0), (relays.topic(relays.HOPS),))
    count = len(SERVICES)
    try:
        for number in range(count):
            last = relays.HOPS - 1 if number == count - 1 else number
            argv = ("-m", "tests.bench.relays", brokers, prefix, str(number), str(last))
            side.processes[f"relay {number}"] = await asyncio.create_subprocess_exec(
                sys.executable, *argv, env=_clean(), stdout=asyncio.subprocess.PIPE
            )
        for name, process in side.processes.items():
            assert process.stdout is not None
            async with asyncio.timeout(START_MAX_S):
                if (await process.stdout.readline()).strip() != b"ready":
                    raise Wrong(f"{name} did not start")
        yield side
    finally:
        await _stop(side)
