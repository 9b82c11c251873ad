"""Runs a service: its stages, its background work and its probes, until a signal or a failure.

Start: everything that is configured is opened, or the process says what is wrong and exits. Stop, on
SIGTERM or SIGINT: stages drain and leave their groups, background work is cancelled, writers and probes
close. Whatever ends by itself ends the process with exit code 1, and the supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from giclee.bus import kafka, probes, telemetry
from giclee.bus.loop import Loop
from giclee.bus.settings import KafkaSettings, ProcessSettings
from giclee.bus.stage import Context, Stage
from giclee.bus.table import Table
from giclee.bus.transport import Record, Transport, Writer
from giclee.schemas.events import SwitchSet

VERSION = "0.1.0"
STOP_MAX_S = 25.0
"""Longest a stop may take before the rest is dropped; the supervisor's patience is a little longer."""

Background = Callable[[], Awaitable[None]]
Check = Callable[[], Awaitable[None]]
Internal = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

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
    the health port. `submit` is filled while running: stage name -> the loop's way in for work that no poll brought.
    """

    name: str
    settings: ServiceSettings
    stages: Sequence[Stage] = ()
    background: Sequence[Background] = ()
    checks: dict[str, Check] = field(default_factory=dict)
    internal: dict[str, Internal] = field(default_factory=dict)
    submit: dict[str, Callable[[Record], Awaitable[None]]] = field(default_factory=dict)


async def serve(service: Service, transport: Transport | None = None) -> None:
    """Run `service` until SIGTERM or SIGINT. Errors: SystemExit(1) when a part of it ended by itself."""
    settings = service.settings
    telemetry.start(service.name, log_level=settings.process.log_level)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    checks = dict(service.checks)
    alive: dict[str, Callable[[], None]] = {}
    async with probes.serving(settings.process, checks=checks, alive=alive, internal=service.internal):
        carrier = transport or kafka.KafkaTransport(settings.kafka, client_id=f"giclee-{service.name}")
        failed = await _run_until(stop, service, carrier, checks, alive)
    log.info("stopped", service=service.name)
    if failed:
        raise SystemExit(1)


async def _run_until(
    stop: asyncio.Event,
    service: Service,
    transport: Transport,
    checks: dict[str, Check],
    alive: dict[str, Callable[[], None]],
) -> bool:
    """Whether something other than `stop` ended the service."""
    background = {
        asyncio.create_task(_named(work), name=getattr(work, "__qualname__", "background"))
        for work in service.background
    }
    starting = asyncio.create_task(_open(service, transport, background), name="start")
    stopped = asyncio.create_task(stop.wait())
    loops: list[Loop] = []
    writer: Writer | None = None
    running: dict[asyncio.Task[None], str] = {}
    failed = False
    try:
        await asyncio.wait({starting, stopped, *background}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and not starting.cancelled():
            loops, writer = starting.result()
        for loop in loops:
            checks[loop.stage.name] = loop.check
            alive[loop.stage.name] = loop.alive
            service.submit[loop.stage.name] = loop.submit
            running[asyncio.create_task(loop.run())] = loop.stage.name
        if not stop.is_set():
            log.info("started", service=service.name, stages=[loop.stage.name for loop in loops])
            await asyncio.wait({stopped, *running, *background}, return_when=asyncio.FIRST_COMPLETED)
        failed = _say_who_ended({*running, *background})
    finally:
        await _close(starting, stopped, loops, running, background, writer)
    return failed


async def _named(work: Background) -> None:
    await work()


async def _open(
    service: Service, transport: Transport, background: set[asyncio.Task[None]]
) -> tuple[list[Loop], Writer | None]:
    """Loops ready to run; waits for the broker and for the switches, however long that takes."""
    if not service.stages:
        return [], None
    cluster_id = await transport.cluster_id()
    writer = transport.writer(service.name)
    await writer.start()
    switches: Table[SwitchSet] = Table(SwitchSet, transport)
    background.add(asyncio.create_task(switches.follow(), name="switches"))
    await switches.caught_up.wait()
    prefix = service.settings.kafka.topic_prefix
    loops = []
    for stage in service.stages:
        context = Context(
            stage=stage,
            send=writer.send,
            cluster_id=cluster_id,
            version=VERSION,
            topic_prefix=prefix,
            parts={"switches": switches},
        )
        loops.append(Loop(context, transport.reader(stage.group, stage.topics())))
    return loops, writer


def _say_who_ended(tasks: set[asyncio.Task[None]]) -> bool:
    ended = [task for task in tasks if task.done() and not task.cancelled()]
    for task in ended:
        log.critical("a part ended by itself", part=task.get_name(), exc_info=task.exception())
    return bool(ended)


async def _close(
    starting: asyncio.Task[Any],
    stopped: asyncio.Task[Any],
    loops: Sequence[Loop],
    running: dict[asyncio.Task[None], str],
    background: set[asyncio.Task[None]],
    writer: Writer | None,
) -> None:
    """Drain, then cancel, then close; bounded, because a broker that is away must not keep us."""
    for loop in loops:
        loop.stop()
    if running:
        await asyncio.wait(running, timeout=STOP_MAX_S)
    left = {task for task in (*running, *background, starting, stopped) if not task.done()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=5)
    if writer is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await writer.stop()
