"""A line of its own for the kill matrix: one database and topic prefix on shared parts, every service a process.

A process that dies is started again at once, without the failpoint that killed it, as a supervisor would.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from giclee.infra import migrate, topics
from giclee.infra.local.child import Child, Launch
from giclee.schemas import topics as names
from tests.chaos.fault import state_of
from tests.kit.stack import Stack, ports_of_our_own
from tests.kit.wait import until

API_KEY = "a-key-of-at-least-16"
READY_MAX_S = 240.0
"""A process is ready after 3 s; on a machine that does ten other things, much later."""
STOP_MAX_S = 40.0
TEND_S = 0.05
RESTART_S = 0.2
PORTS = 28
"""Two for each of two replicas of seven services."""
MODULES = {
    "intake": "giclee.intake",
    "policy": "giclee.policy",
    "router": "giclee.router",
    "gpu-worker": "tests.chaos.matrix_worker",
    "scorer": "tests.chaos.stub_scorer",
    "publisher": "giclee.publisher",
    "replay": "giclee.replay",
}
PRICE_USD = "0.0004"
_MODEL = f"""
[[models]]
name = "stub"
revision = "1"
location = "stub"
provider = "stub"
qualities = ["final", "draft"]
price_usd = {PRICE_USD}
steps = 8
width = 64
height = 64
size_min = 64
size_max = 64
"""


@dataclass(slots=True)
class Process:
    """One replica of a service; `deaths` are the exit codes of those that ended without being asked."""

    service: str
    replica: int
    port: int
    api_port: int
    log: Path
    module: Sequence[str]
    """What `python -m` is given."""
    child: Child | None = None
    wanted: bool = True
    deaths: list[int] = field(default_factory=list)
    heirs: list[str] = field(default_factory=list)
    """What those who are started in its place are armed with, one after the other."""

    def state(self) -> str:
        """One letter of /proc: T is stopped, Z or nothing is gone."""
        return state_of(self.child.pid) if self.child is not None else ""

    def send(self, number: signal.Signals) -> None:
        if self.child is not None:
            self.child.send(number)

    def end(self) -> str:
        """The last it has written."""
        return self.log.read_text(errors="replace")[-400:]

    def said(self, text: str, times: int = 1) -> bool:
        """Whether the process has written this line, so many times with those in its place before."""
        return self.log.exists() and self.log.read_text(errors="replace").count(text) >= times


class World:
    """The line. `seen` are the committed records of public topics and dead letters, by topic without the prefix."""

    def __init__(
        self, stack: Stack, name: str, folder: Path, ports: Sequence[int], *, models: str = _MODEL, **env: str
    ) -> None:
        self.stack, self.prefix, self.folder = stack, f"{name}.", folder
        self.seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.processes: dict[str, Process] = {}
        self.paid_log = folder / "paid.log"
        self._ports = iter(ports)
        self._taken: dict[tuple[str, int], tuple[int, int]] = {}
        base = urlsplit(stack.database_url)
        self.database_url = urlunsplit(base._replace(path=f"/matrix_{name}"))
        self.env = {**self._environment(models), **env}
        self.producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap_servers, acks="all")

    def _environment(self, rows: str) -> dict[str, str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        config, models = self.folder / "models.toml", self.folder / "no-models"
        config.write_text(rows)
        models.mkdir(exist_ok=True)
        return {
            **self.stack.env(),
            "DATABASE_URL": self.database_url,
            "GICLEE_TOPIC_PREFIX": self.prefix,
            "GICLEE_CONFIG": str(config),
            "GICLEE_MODELS_DIR": str(models),
            "GICLEE_API_KEY": API_KEY,
            "GICLEE_LOG_LEVEL": "info",
            "MALLOC_ARENA_MAX": "2",
            "PAID_LOG": str(self.paid_log),
        }

    # ---- processes ------------------------------------------------------------------------------

    def launch(
        self, service: str, failpoint: str | None = None, *, replica: int = 1, module: Sequence[str] = ()
    ) -> Process:
        """Start a process of a service, on ports of its own; what it says is in `log`."""
        port, api_port = self.ports_of(service, replica)
        log = self.folder / f"{service}.{replica}.log"
        process = Process(service, replica, port, api_port, log, module or (MODULES[service],))
        process.log.write_text("")  # what an earlier one said is no proof of this one
        self._start(process, failpoint)
        return process

    def beside(self, process: Process) -> Process:
        """Start the other replica of a service."""
        return self.launch(process.service, replica=3 - process.replica)

    def ports_of(self, service: str, replica: int) -> tuple[int, int]:
        """For health and for its API; the same as long as the world lasts."""
        if (service, replica) not in self._taken:
            self._taken[service, replica] = next(self._ports), next(self._ports)
        return self._taken[service, replica]

    def _start(self, process: Process, failpoint: str | None) -> None:
        own = {
            "GICLEE_HEALTH_PORT": str(process.port),
            "GICLEE_PUBLIC_URL": f"http://127.0.0.1:{process.api_port}",
            **({"GICLEE_FAILPOINT": failpoint, "GICLEE_ALLOW_FAILPOINTS": "1"} if failpoint else {}),
        }
        if process.service in ("intake", "publisher", "replay"):
            own[f"GICLEE_{process.service.upper()}_PORT"] = str(process.api_port)
        argv = (sys.executable, "-m", *process.module)
        process.child = Child(Launch(argv=argv, log=process.log, env={**self.env, **own}, cwd=Path.cwd()))

    async def tend(self) -> None:
        """Until cancelled: note deaths, start again."""
        while True:
            for process in list(self.processes.values()):
                code = process.child.exit_code() if process.child is not None and process.wanted else None
                if code is not None:
                    process.deaths.append(code)
                    await asyncio.sleep(RESTART_S)
                    self._start(process, process.heirs.pop(0) if process.heirs else None)
            await asyncio.sleep(TEND_S)

    async def stop(self, process: Process) -> None:
        """SIGTERM and wait; killed when it does not end in time."""
        process.wanted = False
        if process.child is not None:
            process.send(signal.SIGCONT)
            process.send(signal.SIGTERM)
            child = process.child
            with suppress(AssertionError):
                await until(lambda: child.exit_code() is not None, STOP_MAX_S)
            child.kill()

    async def renew(self, service: str, failpoint: str | None, *, module: Sequence[str] = ()) -> Process:
        """The service's process ends and another one begins; not waited for."""
        known = self.processes.get(service)
        if known is not None:
            await self.stop(known)
        process = self.launch(service, failpoint, module=module)
        self.processes[service] = process
        return process

    async def ready(self, process: Process, or_else: Callable[[], bool] = lambda: False) -> None:
        """Wait until it is ready, or something else is true. Errors: AssertionError with the end of its log."""
        try:
            await until(lambda: _either(process.port, or_else), READY_MAX_S)
        except AssertionError:
            raise AssertionError(f"{process.service} is not ready:\n{process.log.read_text()[-3000:]}") from None

    # ---- topics and rows ------------------------------------------------------------------------

    async def send(self, topic: str, value: bytes, headers: dict[str, str] | None = None) -> tuple[int, int]:
        """A record of ours; where it lies, as (partition, offset)."""
        wire = [(name, text.encode()) for name, text in (headers or {}).items()]
        sent = await self.producer.send_and_wait(self.prefix + topic, value, headers=wire)
        return sent.partition, sent.offset

    async def follow(self, consumer: AIOKafkaConsumer) -> None:
        """Until cancelled."""
        while True:
            for at, records in (await consumer.getmany(timeout_ms=200)).items():
                topic = at.topic.removeprefix(self.prefix)
                for record in records:
                    headers = {name: (raw or b"").decode(errors="replace") for name, raw in record.headers}
                    self.seen[topic].append({"value": _read(record.value), "headers": headers})

    async def rows(self, query: str, *values: object) -> list[Any]:
        """What the database answers."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()


def _read(value: bytes | None) -> Any:
    try:
        return json.loads(value or b"null")
    except ValueError:
        return None


async def _either(port: int, or_else: Callable[[], bool]) -> bool:
    return or_else() or await asyncio.to_thread(is_ready, port)


def is_ready(port: int) -> bool:
    """What /readyz says."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(json.load(answer)["ready"])
    except (URLError, OSError, ValueError):
        return False


def poisoned_topic(stage: str) -> str | None:
    """A topic whose undecodable records this stage owns; None where it is never the first reader."""
    for row in names.TABLE:
        readers = [reader.removeprefix("giclee.") for reader in row.readers]
        if readers and readers[0].startswith(stage) and not row.compacted:
            return row.name.replace("<pool>", "local")
    return None


@asynccontextmanager
async def running(stack: Stack, name: str, folder: Path) -> AsyncIterator[World]:
    """A world with all services ready, tended and followed."""
    followed = ["image.approved.v1", "image.closed.v1", "image.stalled.v1"]
    followed += [f"{topic}.dlq" for stage in MODULES if (topic := poisoned_topic(stage)) is not None]
    with ports_of_our_own() as ports:
        world = World(stack, name, folder, range(ports.base, ports.base + PORTS))
        async with opened(world, followed):
            for service in MODULES:
                world.processes[service] = world.launch(service)
            for process in world.processes.values():
                await world.ready(process)
            yield world


@asynccontextmanager
async def opened(world: World, followed: Sequence[str]) -> AsyncIterator[None]:
    """Its database and topics; what runs in it is tended, these topics are followed, and all is stopped in the end."""
    stack, url = world.stack, urlsplit(world.database_url)
    admin = await asyncpg.connect(stack.database_url)
    await admin.execute(f"CREATE DATABASE {url.path.lstrip('/')}")
    await admin.close()
    await asyncio.to_thread(topics.apply, topics.Target(stack.bootstrap_servers, world.prefix, 1))
    await migrate.migrate(world.database_url)
    consumer = AIOKafkaConsumer(
        *(world.prefix + topic for topic in followed),
        bootstrap_servers=stack.bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    await world.producer.start()
    await consumer.start()
    work: list[Awaitable[None]] = [world.tend(), world.follow(consumer)]
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(world.stop(process) for process in world.processes.values()))
        await consumer.stop()
        await world.producer.stop()
