"""Starts the stack in order, keeps it up, and stops it in reverse. One process, one thread, no polling.

It runs as `giclee dev supervise`, usually as a daemon made by `giclee dev up`. Whatever it started dies with it: it
stops everything when asked to, and the kernel does when it is killed.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from giclee.infra.local import leftovers, preflight, services
from giclee.infra.local.child import MARK, Launch, finish, stop_all
from giclee.infra.local.folder import Folder, ProcessRecord, Record
from giclee.infra.local.keeper import Keeper
from giclee.infra.local.part import Part
from giclee.infra.local.parts import client_env, parts_of, service_env
from giclee.infra.local.ports import Ports
from giclee.infra.local.proc import start_ticks
from giclee.infra.local.services import Wanted
from giclee.infra.trouble import Trouble

PART_READY_TIMEOUT_S = 120.0
HELD_PORTS_TIMEOUT_S = 75.0
"""A closed connection keeps its port for 60 s."""
LOG_CHECK_EVERY_S = 10.0
ALREADY_RUNNING = 75
"""Exit code of a supervisor that found another one at work."""


class _StopAsked(Exception):
    """SIGTERM or SIGINT came; raised at safe places only, never inside a signal handler."""


class Supervisor:
    """One run of one stack."""

    def __init__(self, folder: Folder, ports: Ports, wanted: Wanted) -> None:
        self._folder, self._ports, self._wanted = folder, ports, wanted
        self._record = Record(pid=os.getpid(), ticks=start_ticks(os.getpid()), started_at=time.time(), base=ports.base)
        self._parts: list[tuple[Part, Keeper]] = []
        self._services: list[Keeper] = []
        self._stop_asked = False
        self._wake_fd = -1

    def run(self) -> int:
        """Until it is asked to stop or cannot start; returns the exit code."""
        self._folder.make()
        lock = self._folder.lock()
        if lock is None:
            return ALREADY_RUNNING
        os.environ[MARK] = str(self._folder.root)  # inherited by everything below
        with lock, self._signals():
            try:
                self._bring_up()
                self._note("running")
                while True:
                    self._rest(LOG_CHECK_EVERY_S)
            except _StopAsked:
                return 0
            except Trouble as trouble:
                self._record.trouble = str(trouble)
                print(trouble, flush=True)
                return 1
            finally:
                self._end()

    def _bring_up(self) -> None:
        self._note("starting", "looking for left-overs")
        leftovers.clear(self._folder, self._check)
        preflight.check(self._wanted, self._ports, self._folder.root)
        self._await_ports()
        self._record.processes.clear()
        for part in parts_of(self._folder, self._ports, self._wanted):
            self._note("starting", f"preparing {part.name}")
            part.prepare(self._check)
            keeper = Keeper(self._process(part.name), part.launch)
            self._parts.append((part, keeper))
            keeper.tend()
        for part, _ in self._parts:
            self._await(part)
        self._folder.write_env(client_env(self._folder, self._ports, self._wanted))
        self._prepare_contents()
        self._start_services()

    def _await_ports(self) -> None:
        deadline = time.monotonic() + HELD_PORTS_TIMEOUT_S
        while held := preflight.held_ports(self._wanted, self._ports):
            if time.monotonic() > deadline:
                raise Trouble(f"Connections of other programs hold {held}; GICLEE_PORT_BASE moves all ports at once.")
            if not self._record.doing.endswith(held):
                self._note("starting", f"waiting for ports that a closing connection holds: {held}")
            self._rest(0.2)

    def _await(self, part: Part) -> None:
        self._note("starting", f"waiting for {part.name}")
        deadline = time.monotonic() + PART_READY_TIMEOUT_S
        while (trouble := part.trouble()) is not None:
            if time.monotonic() > deadline:
                log = self._folder.log(part.name)
                raise Trouble(f"{part.name} does not answer after {PART_READY_TIMEOUT_S:.0f} s: {trouble}; see {log}.")
            self._rest(0.05)

    def _prepare_contents(self) -> None:
        """Topics and tables, by the same commands that people use."""
        environment = service_env(self._folder, self._ports, self._wanted)
        for part, words in (("kafka", ("topics", "apply")), ("postgres", ("db", "migrate"))):
            if self._wanted.has(part):
                self._note("starting", f"giclee {' '.join(words)}")
                launch = Launch(argv=(giclee(), *words), env=environment, log=self._folder.log(words[0]))
                finish(launch, what=f"`giclee {' '.join(words)}`", timeout_s=180, keep_on=self._check)

    def _start_services(self) -> None:
        self._note("starting", "starting services")
        environment = service_env(self._folder, self._ports, self._wanted)
        wanted = self._wanted.services()
        missing = services.missing_modules(wanted)
        for service in wanted:
            for replica in range(1, self._wanted.replicas(service) + 1):
                process = self._process(services.replica_name(service, replica))
                process.missing = missing.get(service.name)
                process.health_port = services.health_port(service, replica, self._ports)
                process.http_port = self._ports.http(service.name, replica) if service.has_http else None
                launch = services.launch(service, replica, ports=self._ports, folder=self._folder, env=environment)
                self._services.append(Keeper(process, lambda launch=launch: launch))  # type: ignore[misc]
        self._check()

    def _process(self, name: str) -> ProcessRecord:
        process = ProcessRecord(name=name)
        self._record.processes.append(process)
        return process

    def _keepers(self) -> list[Keeper]:
        return [*(keeper for _, keeper in self._parts), *self._services]

    def _check(self) -> None:
        """Restart what died and is due. Errors: _StopAsked when a signal came."""
        if self._stop_asked:
            raise _StopAsked
        changes = [keeper.tend() for keeper in self._keepers()]
        if any(changes):
            self._folder.write_record(self._record)

    def _rest(self, longest_s: float) -> None:
        """Sleep until a child ends, a signal comes, something is due, or the time is over; then tend to all."""
        due = [keeper.due_at - time.monotonic() for keeper in self._keepers() if keeper.due_at is not None]
        readable, _, _ = select.select([self._wake_fd], [], [], max(0.0, min([longest_s, *due])))
        if readable:
            os.read(self._wake_fd, 4096)
        self._check()
        for keeper in self._keepers():
            if keeper.child is not None:
                keeper.child.trim_log()

    def _note(self, phase: str, doing: str = "") -> None:
        self._record.phase, self._record.doing = phase, doing
        self._folder.write_record(self._record)
        print(time.strftime("%H:%M:%S"), phase, doing, flush=True)

    def _end(self) -> None:
        """Services first and together, then the parts in reverse: what writes ends before what is written to."""
        self._note("stopping")
        stop_all([keeper.child for keeper in self._services if keeper.child is not None])
        for part, keeper in reversed(self._parts):
            if keeper.child is not None:
                print(time.strftime("%H:%M:%S"), "stopping", part.name, flush=True)
                part.stopped(keeper.child.stop())
        leftovers.kill_marked(self._folder)
        self._record.processes.clear()
        self._note("failed" if self._record.trouble else "stopped")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals become bytes on a pipe, so that a handler never interrupts a start half-way."""

        def ask(_number: int, _frame: object) -> None:
            self._stop_asked = True

        self._wake_fd, write_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        os.set_blocking(write_fd, False)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, ask)
        signal.signal(signal.SIGHUP, ask)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)


def giclee() -> str:
    """The command line of our own environment."""
    return str(Path(sys.executable).parent / "giclee")
