"""The stack that faults are injected into: three brokers, Postgres, S3, every service twice; all of it dies with us.

Parts start before the event loop, services after it, since their way to every part leads through its proxies. What
dies is started again as the local stack does it. The data are thrown away at the end, the logs are kept.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

from giclee.infra.local import leftovers, services
from giclee.infra.local.child import MARK, Child, Launch, finish, stop_all
from giclee.infra.local.folder import Folder, ProcessRecord, checkout
from giclee.infra.local.kafka import Kafka
from giclee.infra.local.part import Part
from giclee.infra.local.ports import Ports
from giclee.infra.local.postgres import Postgres
from giclee.infra.local.s3 import REGION, S3
from giclee.infra.local.supervisor import giclee
from tests.chaos import brokers
from tests.chaos.kept import Kept
from tests.chaos.proxy import Gate
from tests.kit.stack import ports_of_our_own

POSTGRES_PROXY, S3_PROXY = 3, 4
"""Above the base of the first block of ports."""
PART_READY_S = 180.0
SERVICE_READY_S = 300.0
"""Much more than two quiet cores need."""
TEND_EVERY_S = 0.1
BROKER_DISK_MB = 768
FOREIGN = ("GICLEE_", "KAFKA_", "AWS_", "DATABASE_", "OTEL_", "SCHEMA_REGISTRY_")

STUBS = {"gpu_worker": "tests.chaos.stub_worker", "scorer": "tests.chaos.stub_scorer"}
STAGE_OF = {
    "intake": "intake",
    "policy": "policy",
    "router": "router",
    "gpu_worker": "gpu-worker",
    "scorer": "scorer",
    "publisher": "publisher",
}
"""Service -> the stage whose work stops with it."""
FULL: Mapping[str, int] = {
    "intake": 2, "policy": 2, "router": 2, "router.health": 1, "gpu_worker": 2, "scorer": 2, "publisher": 2,
    "replay": 1,
}  # fmt: skip
SMALL: Mapping[str, int] = {"intake": 1, "policy": 1, "router": 1, "gpu_worker": 2, "scorer": 1, "publisher": 2}
SETTINGS = {
    "GICLEE_TOPIC_REPLICATION": "3",
    "GICLEE_LOG_LEVEL": "info",
    "GICLEE_PUBLISHER_LATE_AFTER_S": "60",
    "GICLEE_GPU_WORKER_POOL": "local",
    "MALLOC_ARENA_MAX": "2",
}
MODELS = {"stub-first": 0.0004, "stub-second": 0.0006}
"""Name -> US dollars an image; the dearer one is what the chain falls back to."""
_MODEL = """
[[models]]
name = "{name}"
revision = "1"
location = "stub"
provider = "stub"
qualities = ["final", "draft"]
price_usd = {price}
seconds = 0.1
steps = 8
width = 64
height = 64
size_min = 64
size_max = 64
"""


@dataclass(slots=True)
class Stack:
    """What runs, by name: `kafka1`, `postgres`, `s3`, `scorer`, `scorer.2`, …"""

    folder: Folder
    blocks: Sequence[Ports]
    parts: dict[str, Part]
    kept: dict[str, Kept]
    gates: dict[str, Gate]
    env: dict[str, str]
    """What a client gets that stands outside of faults: no proxy between it and the parts."""
    others: list[Child] = field(default_factory=list)
    """The load and the recorders: not started again, but ended with the rest."""

    def command_env(self) -> dict[str, str]:
        """The whole environment of a command that stands outside of faults."""
        return {**os.environ, **self.env}

    def pids(self) -> dict[int, str]:
        """Of the processes that run now."""
        return {kept.pid: name for name, kept in self.kept.items() if kept.pid is not None}

    def brokers(self) -> dict[str, Kafka]:
        return {name: part for name, part in self.parts.items() if isinstance(part, Kafka)}

    def replicas(self, service: str) -> list[str]:
        """Names of the processes of one service."""
        return [name for name in self.kept if name == service or re.fullmatch(rf"{re.escape(service)}\.\d+", name)]

    def trouble(self, name: str) -> str | None:
        """Why a process does not do its work; None when it does. Blocks for at most three seconds."""
        kept = self.kept[name]
        if kept.pid is None:
            return "it does not run"
        if name in self.parts:
            return self.parts[name].trouble()
        return None if _is_ready(kept.record.health_port) else "it is not ready"

    async def wait_well(self, names: Sequence[str], within_s: float) -> None:
        """Until these do their work. Errors: TimeoutError with what is wrong."""
        deadline = time.monotonic() + within_s
        while ill := await self._ill(names):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not well after {within_s:.0f} s: {ill}")
            await asyncio.sleep(0.2)

    async def _ill(self, names: Sequence[str]) -> dict[str, str]:
        told = {name: await asyncio.to_thread(self.trouble, name) for name in names}
        return {name: why for name, why in told.items() if why is not None}


@contextmanager
def parts(root: Path, *, disk_mb: int | None = BROKER_DISK_MB) -> Iterator[Stack]:
    """The outside parts, up, with topics and tables, and no service yet. `disk_mb` bounds each broker's disk."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ[MARK] = str(root)
    folder = Folder(root)
    folder.make()
    with ExitStack() as held:
        blocks = [held.enter_context(ports_of_our_own()) for _ in range(3)]
        stack = _described(folder, blocks)
        if disk_mb is not None:
            for broker in stack.brokers().values():
                held.enter_context(_disk(broker.data(), disk_mb))
        held.callback(_end, stack)
        for name, part in stack.parts.items():
            part.prepare(lambda: None)
            stack.kept[name].tend()
        for name in stack.parts:
            _await(stack, name)
        for words in (("topics", "apply"), ("db", "migrate")):
            launch = Launch(argv=(giclee(), *words), env=stack.env, log=folder.log(words[0]))
            finish(launch, what=f"giclee {' '.join(words)}", timeout_s=180)
        yield stack


@asynccontextmanager
async def running(stack: Stack, scale: Mapping[str, int]) -> AsyncIterator[None]:
    """The services, ready, and everything kept up while the block runs."""
    async with AsyncExitStack() as held:
        for gate in stack.gates.values():
            await held.enter_async_context(gate.open())
        tending = asyncio.create_task(_tend(stack))
        held.callback(tending.cancel)
        for service in services.TABLE:
            for replica in range(1, scale.get(service.name, 0) + 1):
                _add(stack, service, replica)
        await stack.wait_well([name for name in stack.kept if name not in stack.parts], SERVICE_READY_S)
        yield


async def _tend(stack: Stack) -> None:
    while True:
        for kept in stack.kept.values():
            kept.tend()
        await asyncio.sleep(TEND_EVERY_S)


def _described(folder: Folder, blocks: Sequence[Ports]) -> Stack:
    main, secrets = blocks[0], folder.secrets()
    store = S3(folder.root / "s3", folder.log("s3"), main, secrets.aws_access_key_id, secrets.aws_secret_access_key)
    database = Postgres(
        folder.root / "postgres", folder.log("postgres"), main, secrets.postgres_password, durable=False
    )
    cluster = brokers.brokers_of(folder.root, blocks)
    found: list[Part] = [*cluster, database, store]
    every = {part.name: part for part in found}
    kept = {name: Kept(ProcessRecord(name=name), partial(_launch_of, part)) for name, part in every.items()}
    inside = ",".join(part.bootstrap_servers for part in cluster)
    env = {
        **SETTINGS,
        "KAFKA_BOOTSTRAP_SERVERS": inside,
        "DATABASE_URL": database.url,
        "AWS_ENDPOINT_URL_S3": store.endpoint,
        "AWS_ACCESS_KEY_ID": store.access_key_id,
        "AWS_SECRET_ACCESS_KEY": store.secret_access_key,
        "AWS_REGION": REGION,
        "GICLEE_BUCKET": store.bucket,
        "GICLEE_API_KEY": secrets.api_key,
        "GICLEE_CONFIG": str(_models(folder.root)),
        "GICLEE_MODELS_DIR": str(folder.root / "no-models"),
        "CHAOS_LEDGER": str(folder.root / "run" / "provider.jsonl"),
    }
    stack = Stack(folder, blocks, every, kept, {}, env)
    for broker in cluster:
        base = broker.ports.base
        stack.gates[broker.name] = _gate(stack, broker.name, base + brokers.PROXY, base + brokers.CLIENTS, frames=True)
    stack.gates["postgres"] = _gate(stack, "postgres", main.base + POSTGRES_PROXY, main.of("postgres"))
    stack.gates["s3"] = _gate(stack, "s3", main.base + S3_PROXY, main.of("s3"))
    return stack


def _gate(stack: Stack, name: str, port: int, target: int, *, frames: bool = False) -> Gate:
    return Gate(name, port, target, frames=frames, pids=stack.pids)


def _launch_of(part: Part) -> Launch:
    return brokers.launch_of(part) if isinstance(part, Kafka) else part.launch()


def _models(root: Path) -> Path:
    file, none = root / "models.toml", root / "no-models"
    none.mkdir(exist_ok=True)
    file.write_text("".join(_MODEL.format(name=name, price=price) for name, price in MODELS.items()))
    return file


def service_env(stack: Stack) -> dict[str, str]:
    """What services get: every part behind its proxy."""
    at = {name: gate.port for name, gate in stack.gates.items()}
    database = urlsplit(stack.env["DATABASE_URL"])
    through = database._replace(netloc=database.netloc.rpartition(":")[0] + f":{at['postgres']}")
    return {
        **stack.env,
        "KAFKA_BOOTSTRAP_SERVERS": ",".join(f"127.0.0.1:{at[name]}" for name in stack.brokers()),
        "DATABASE_URL": urlunsplit(through),
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{at['s3']}",
    }


def _add(stack: Stack, service: services.Service, replica: int) -> None:
    ports = stack.blocks[0]
    launch = services.launch(service, replica, ports=ports, folder=stack.folder, env=service_env(stack))
    module = STUBS.get(service.name, service.module)
    launch = replace(launch, argv=(sys.executable, "-m", module), cwd=checkout())
    name = services.replica_name(service, replica)
    record = ProcessRecord(name=name, health_port=services.health_port(service, replica, ports))
    record.http_port = ports.http(service.name, replica) if service.has_http else None
    stack.kept[name] = Kept(record, lambda: launch)


def _await(stack: Stack, name: str) -> None:
    deadline = time.monotonic() + PART_READY_S
    while (trouble := stack.trouble(name)) is not None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} does not answer after {PART_READY_S:.0f} s: {trouble}")
        for kept in stack.kept.values():
            kept.tend()
        time.sleep(0.1)


def _is_ready(port: int | None) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


@contextmanager
def _disk(folder: Path, size_mb: int) -> Iterator[None]:
    """A disk of its own for a folder, so that it can be filled; without the right to mount there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    if mounted:
        options = ["-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
        mounted = subprocess.run(["mount", *options], check=False, capture_output=True).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _end(stack: Stack) -> None:
    """Everything is over: processes killed, but for Postgres, whose children want to be asked; data removed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave half of it behind
    for other in stack.others:
        other.kill()
    for name, kept in stack.kept.items():
        kept.hold()
        if kept.child is not None and name != "postgres":
            kept.child.kill()
    database = stack.kept["postgres"].child
    if database is not None:
        stop_all([database])
    for part in stack.parts.values():
        part.stopped(-9)
        if isinstance(part, Postgres):
            shutil.rmtree(part.data(), ignore_errors=True)
            part.folder.with_suffix(".data").unlink(missing_ok=True)
    leftovers.kill_marked(stack.folder)
    shutil.rmtree(stack.folder.root / "s3", ignore_errors=True)
