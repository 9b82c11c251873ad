"""Start, stop and ask a stack from outside its supervisor: what `giclee dev up|down|status` call."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from giclee.infra.local import leftovers
from giclee.infra.local.child import tail
from giclee.infra.local.folder import Folder, ProcessRecord, Record
from giclee.infra.local.parts import parts_of
from giclee.infra.local.ports import Ports
from giclee.infra.local.proc import is_running, usage
from giclee.infra.local.services import Wanted
from giclee.infra.local.supervisor import ALREADY_RUNNING, giclee
from giclee.infra.trouble import Trouble

START_TIMEOUT_S = 1200.0
"""Cold, with downloads over a slow line. A warm start takes seconds."""
READY_TIMEOUT_S = 180.0
"""For the services; the worker makes a warm-up image first."""
HOPELESS_RESTARTS = 5
"""A process that died this often while it was waited for will not come up by waiting."""
STOP_TIMEOUT_S = 90.0
"""Above the sum of the graces: 25 s for services, 10 s S3, 20 s Postgres, 20 s Kafka."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus:
    """One line of the status."""

    name: str
    ready: bool
    says: str
    missing: bool
    """Its module or environment is not installed, so it was never started."""
    pid: int | None
    rss_mb: float | None
    cpu_s: float | None
    uptime_s: float | None
    restarts: int
    health_port: int | None


def start(folder: Folder, arguments: list[str], tell: Tell) -> bool:
    """Start a supervisor in the background and wait until parts and services run; False when one was running already.

    Errors: Trouble with what the supervisor could not do. A KeyboardInterrupt stops what was started.
    """
    folder.make()
    was_running = folder.is_locked()
    log = folder.log("supervisor")
    supervisor = None
    try:
        if not was_running:
            with _interrupts_held():
                supervisor = _daemon(log, arguments)
        record = _until_running(folder, supervisor, tell)
    except KeyboardInterrupt:
        if supervisor is not None:
            tell("stopping what was started")
            _end_daemon(folder, supervisor)
        raise
    if record.phase == "failed":
        if supervisor is not None:  # it has said why, and may still be on its way out
            supervisor.wait(timeout=STOP_TIMEOUT_S)
        raise Trouble(record.trouble or f"The stack did not start; see {log}.")
    return supervisor is not None and supervisor.poll() is None


def wait_ready(folder: Folder, ports: Ports, tell: Tell, timeout_s: float = READY_TIMEOUT_S) -> list[ProcessStatus]:
    """The processes that are not ready at the end of the wait. Missing and hopeless ones are not waited for."""
    deadline = time.monotonic() + timeout_s
    said = ""
    while True:
        rows = statuses(folder, ports)
        waiting = [row for row in rows if not row.ready]
        names = ", ".join(row.name for row in waiting if not row.missing and row.restarts < HOPELESS_RESTARTS)
        if not names or time.monotonic() > deadline:
            return waiting
        if names != said:
            tell(f"waiting for {names}")
            said = names
        time.sleep(0.25)


def stop(folder: Folder) -> bool:
    """Stop the stack and wait until all of it is gone; False when nothing ran."""
    record = folder.record()
    was_running = folder.root.exists() and folder.is_locked()
    if was_running and record is not None:
        _signal(record, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while (folder.is_locked() or is_running(record.pid, record.ticks)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if folder.is_locked():
            _signal(record, signal.SIGKILL)  # the kernel then ends its children
    if folder.root.exists():
        leftovers.clear(folder, lambda: None)
    return was_running


def statuses(folder: Folder, ports: Ports) -> list[ProcessStatus]:
    """Every process of the record with what it uses and whether it answers; empty when no stack runs."""
    record = folder.record() if folder.root.exists() and folder.is_locked() else None
    return [_status(row, folder, ports) for row in record.processes] if record else []


def _status(row: ProcessRecord, folder: Folder, ports: Ports) -> ProcessStatus:
    alive = row.pid is not None and is_running(row.pid, row.ticks)
    used = usage(row.pid) if alive and row.pid is not None else None
    trouble = row.missing or (_trouble(row, folder, ports) if alive else _death(row))
    return ProcessStatus(
        name=row.name,
        ready=trouble is None,
        says=trouble or "ready",
        missing=row.missing is not None,
        pid=row.pid if alive else None,
        rss_mb=round(used.rss_mb, 1) if used else None,
        cpu_s=round(used.cpu_s, 2) if used else None,
        uptime_s=round(time.time() - row.started_at, 1) if alive and row.started_at else None,
        restarts=row.restarts,
        health_port=row.health_port,
    )


def _death(row: ProcessRecord) -> str:
    if row.last_exit is None:
        return "not started yet"
    how = f"signal {-row.last_exit}" if row.last_exit < 0 else f"exit code {row.last_exit}"
    return f"died ({how}), is started again"


def _trouble(row: ProcessRecord, folder: Folder, ports: Ports) -> str | None:
    """Why a living process is not ready."""
    if row.health_port is not None:
        return _health(ports.client_host, row.health_port)
    parts = parts_of(folder, ports, Wanted(registry=row.name == "registry"))
    return next((part.trouble() for part in parts if part.name == row.name), None)


def _health(host: str, port: int) -> str | None:
    connection = http.client.HTTPConnection(host, port, timeout=2.0)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(500).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return "no answer yet"
    finally:
        connection.close()
    return None if answer.status == 200 else f"not ready: {text or answer.status}"


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block: between a fork and knowing the child it would leave it behind."""
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


def _daemon(log: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C in our terminal does not reach it."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [giclee(), "dev", "supervise", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _until_running(folder: Folder, supervisor: subprocess.Popen[bytes] | None, tell: Tell) -> Record:
    """The record once it says running or failed. Errors: Trouble when the supervisor ended without a word."""
    deadline, said = time.monotonic() + START_TIMEOUT_S, ""
    while time.monotonic() < deadline:
        exit_code = supervisor.poll() if supervisor is not None else None
        record = folder.record()
        is_ours = record is not None and (supervisor is None or record.pid == supervisor.pid)
        if exit_code == ALREADY_RUNNING:
            supervisor = None  # another `up` was faster: wait for its stack
        elif exit_code is not None and not (is_ours and record and record.phase == "failed"):
            log = folder.log("supervisor")
            raise Trouble(f"The supervisor ended with {exit_code}; see {log}. Its last lines:\n{tail(log, 8)}")
        if record is not None and is_ours:
            if record.phase == "running" or (record.phase == "failed" and not folder.is_locked()):
                return record
            if record.doing != said:
                said = record.doing
                tell(said)
        if supervisor is None and not folder.is_locked():
            raise Trouble("The stack that was running has stopped; run `make up` again.")
        time.sleep(0.05)
    raise Trouble(f"The stack is not up after {START_TIMEOUT_S:.0f} s; see {folder.log('supervisor')}.")


def _end_daemon(folder: Folder, supervisor: subprocess.Popen[bytes]) -> None:
    supervisor.send_signal(signal.SIGTERM)
    try:
        supervisor.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        supervisor.kill()
    leftovers.clear(folder, lambda: None)


def _signal(record: Record, number: signal.Signals) -> None:
    if is_running(record.pid, record.ticks):
        try:
            os.kill(record.pid, number)
        except ProcessLookupError:
            pass  # it was faster
