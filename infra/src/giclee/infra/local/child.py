"""One child process that cannot outlive us: own process group, a death signal from the kernel, a bounded log.

A child is started from the main thread only: the kernel sends the death signal when the *thread* that forked ends.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from giclee.infra.trouble import Trouble

LOG_MAX_BYTES = 10 * 1024 * 1024
"""A log is cut at this size and one older piece is kept, so a process costs at most 20 MiB of disk."""

MARK = "GICLEE_STACK_MARK"
"""In the environment of everything a stack starts, so that left-overs are found even if they left their group."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start a process and how to end it."""

    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    user: tuple[int, int] | None = None
    """(uid, gid) to become; None stays who we are."""
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends should we be killed: nobody is left to ask twice, so the default does not ask."""
    grace_s: float = 25.0


class Child:
    """A started process."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.started_at = time.time()
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()

        def before_exec() -> None:
            # after the change of user, which would clear the death signal
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(launch.death_signal), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        uid, gid = launch.user or (None, None)
        with launch.log.open("ab") as log:
            self._popen = subprocess.Popen(
                launch.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **launch.env},
                cwd=launch.cwd,
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
                process_group=0,
                preexec_fn=before_exec,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def send(self, number: signal.Signals) -> None:
        """A signal to the process alone."""
        if self.exit_code() is None:
            self._popen.send_signal(number)

    def ask_to_stop(self) -> None:
        self.send(self.launch.stop_signal)

    def kill(self) -> None:
        """SIGKILL to the whole group, then wait: nothing of it is left."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # the group is gone
        self._popen.wait()

    def stop(self) -> int:
        """Ask, wait for the grace, then kill; returns the exit code."""
        stop_all([self])
        return self._popen.returncode

    def trim_log(self) -> None:
        """Bound the log: copy, then cut. Lines written in between are lost, which a log can bear."""
        log = self.launch.log
        if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
            shutil.copyfile(log, log.with_suffix(log.suffix + ".1"))
            os.truncate(log, 0)


def stop_all(children: list[Child]) -> None:
    """Ask all at once, wait for each one's grace, kill what is left."""
    started = time.monotonic()
    for child in children:
        child.ask_to_stop()
    for child in children:
        while child.exit_code() is None and time.monotonic() - started < child.launch.grace_s:
            time.sleep(0.02)
        child.kill()


def finish(launch: Launch, *, what: str, timeout_s: float, keep_on: Callable[[], None] = lambda: None) -> None:
    """Run a command to its end. `keep_on` is called while waiting and may raise to break off.

    Errors: Trouble with the end of its log when it fails or takes longer than the timeout.
    """
    child = Child(launch)
    deadline = time.monotonic() + timeout_s
    try:
        while child.exit_code() is None:
            keep_on()
            if time.monotonic() > deadline:
                raise Trouble(f"{what} took longer than {timeout_s:.0f} s; see {launch.log}.")
            time.sleep(0.02)
    finally:
        child.kill()
    if child.exit_code() != 0:
        how = f"{what} failed ({child.exit_code()})"
        raise Trouble(f"{how}; see {launch.log}. Its last lines:\n{tail(launch.log, 8)}")


def tail(log: Path, lines: int) -> str:
    """The last lines of a log; empty when there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 400 * lines))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
