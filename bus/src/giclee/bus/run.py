"""Runs a service: its stages, its background work and its probes, until a signal or a failure.

Start: everything that is configured is opened, or the process says what is wrong and exits. Stop, on
SIGTERM or SIGINT: stages drain and leave their groups, background work is cancelled, writers and probes
close. Whatever ends by itself ends the process with exit code 1, and the supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from giclee.bus import avro, kafka, probes, telemetry
from giclee.bus.errors import Transient
from giclee.bus.loop import Loop
from giclee.bus.settings import KafkaSettings, ProcessSettings
from giclee.bus.stage import Context, Stage
from giclee.bus.table import Table
from giclee.bus.transport import Record, Transport, Writer
from giclee.schemas.events import SwitchSet

VERSION = "0.1.0"
STOP_MAX_S = 25.0
"""Longest a stop may take before the rest is dropped; the supervisor's patience is a little longer."""

Background = Callable[[], Coroutine[Any, Any, None]]
Check = Callable[[], Coroutine[Any, Any, None]]
Submit = Callable[[Record], Coroutine[Any, Any, None]]

log = telemetry.logger(__name__)


class ServiceSettings(Protocol):
    """The groups that running a service needs; every service's settings class has them."""

    @property
    def kafka(self) -> KafkaSettings: ...
    @property
    def process(self) -> ProcessSettings: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What one process does.

    `background`: functions that run until cancelled (relays, sweepers, an HTTP server). `checks`: name ->
    function that raises while not ready. `internal`: path -> function behind a small JSON POST endpoint on
    the health port, or an Upload. `submit` is filled while running: stage name -> the loop's way in for work that
    no poll brought; who is there before the loop waits for it.
    """

    name: str
    settings: ServiceSettings
    stages: Sequence[Stage] = ()
    background: Sequence[Background] = ()
    checks: dict[str, Check] = field(default_factory=dict)
    internal: dict[str, probes.Internal] = field(default_factory=dict)
    submit: dict[str, Submit] = field(default_factory=dict)


def collect_seldom() -> None:
    """Let the garbage collector look every 50,000 objects instead of every 700, and not at what is there already:
    it would walk records in flight again and again, and next to nothing of them is in cycles. 15 us a record."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def serve(service: Service, transport: Transport | None = None) -> None:
    """Run `service` until SIGTERM or SIGINT. Errors: SystemExit(1) when a part of it ended by itself."""
    settings = service.settings
    telemetry.start(service.name, log_level=settings.process.log_level)
    collect_seldom()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    carrier = transport or kafka.KafkaTransport(settings.kafka, client_id=f"giclee-{service.name}")
    async with avro.of_settings(settings.kafka) as reading:
        process = _Process(service, carrier, reading)
        checks, alive = process.checks, process.alive
        async with probes.serving(settings.process, checks=checks, alive=alive, internal=service.internal):
            failed = await process.run(stop)
    log.info("stopped", service=service.name)
    if failed:
        raise SystemExit(1)


class _Process:
    """One running service. `checks` and `alive` are what its probes ask; they grow as parts come up."""

    def __init__(self, service: Service, transport: Transport, reading: avro.Avro | None) -> None:
        self.service = service
        self.transport = transport
        self.checks: dict[str, Check] = {**service.checks, "start": self._has_started}
        self.alive: dict[str, Callable[[], None]] = {}
        self._switches: Table[SwitchSet] = Table(SwitchSet, transport)
        self._parts: dict[str, Any] = {"avro": reading, "switches": self._switches}
        self._background: set[asyncio.Task[Any]] = set()
        self._loops: list[Loop] = []
        self._running: set[asyncio.Task[Any]] = set()
        self._writer: Writer | None = None
        self._started = asyncio.Event()
        self._ways_in: dict[str, Submit] = {}

    async def _has_started(self) -> None:
        if not self._started.is_set():
            raise Transient("waits for the broker and the switches")

    async def run(self, stop: asyncio.Event) -> bool:
        """Until `stop`, or until a part ends by itself; whether that happened."""
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            for stage in self.service.stages:
                self.service.submit[stage.name] = partial(self._submitted, stage.name)
            for work in self.service.background:
                self._spawn(work(), getattr(work, "__qualname__", "background"))
            if self.service.stages:
                self._spawn(self._switches.follow(), "switches")
            starting = self._spawn(self._start(), "start")
            await asyncio.wait({stopped, *self._background}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and starting.exception() is None:
                self._background.discard(starting)
                await asyncio.wait({stopped, *self._background, *self._running}, return_when=asyncio.FIRST_COMPLETED)
            return _say_who_ended({*self._background, *self._running})
        finally:
            stopped.cancel()
            await self._close()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        return task

    async def _submitted(self, stage: str, record: Record) -> None:
        await self._started.wait()
        await self._ways_in[stage](record)

    async def _start(self) -> None:
        """Start every stage; waits for the broker and for the switches, however long that takes."""
        if self.service.stages:
            cluster_id = await self.transport.cluster_id()
            self._writer = self.transport.writer(self.service.name)
            await self._writer.start()
            await self._switches.caught_up.wait()
            for stage in self.service.stages:
                self._run_stage(stage, cluster_id, self._writer)
        self._started.set()
        log.info("started", service=self.service.name, stages=[stage.name for stage in self.service.stages])

    def _run_stage(self, stage: Stage, cluster_id: str, writer: Writer) -> None:
        context = Context(
            stage=stage,
            send=writer.send,
            cluster_id=cluster_id,
            version=VERSION,
            topic_prefix=self.service.settings.kafka.topic_prefix,
            parts=self._parts,
        )
        loop = Loop(context, self.transport.reader(stage.group, stage.topics()))
        self.checks[stage.name], self.alive[stage.name] = loop.check, loop.alive
        self._ways_in[stage.name] = loop.submit
        self._loops.append(loop)
        self._running.add(asyncio.create_task(loop.run(), name=stage.name))

    async def _close(self) -> None:
        """Drain, then cancel, then close; bounded, because a broker that is away must not keep us."""
        for loop in self._loops:
            loop.stop()
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_MAX_S)
        left = {task for task in (*self._running, *self._background) if not task.done()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=5)
        if self._writer is not None:
            with contextlib.suppress(TimeoutError, Transient):
                async with asyncio.timeout(5):
                    await self._writer.stop()


def _say_who_ended(tasks: set[asyncio.Task[Any]]) -> bool:
    """Whether any of `tasks` has ended, which none was told to; one that was cancelled from inside counts too."""
    ended = [task for task in tasks if task.done()]
    for task in ended:
        error = None if task.cancelled() else task.exception()
        log.critical("a part ended by itself", part=task.get_name(), exc_info=error)
    return bool(ended)
