"""Ends what a supervisor that was killed left behind, if the kernel has not done so already."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from giclee.infra.local.folder import Folder
from giclee.infra.local.proc import is_running, marked

PATIENCE_S = 10.0
"""What was told to stop by the kernel needs a moment: Kafka a second or two."""


def clear(folder: Folder, keep_on: Callable[[], None]) -> None:
    """Wait for the processes of a dead supervisor to end, then kill those that do not."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and _recorded(folder):
        keep_on()
        time.sleep(0.1)
    for pid in _recorded(folder):
        _kill(pid)
    kill_marked(folder)


def kill_marked(folder: Folder) -> None:
    """Kill whatever carries the stack's mark, a child of a child for instance."""
    for pid in marked(str(folder.root)):
        _kill(pid)


def _recorded(folder: Folder) -> list[int]:
    """Pids of the last record that are still those processes. Postgres is among them, which hides its environment."""
    record = folder.record()
    rows = record.processes if record else []
    return [row.pid for row in rows if row.pid is not None and is_running(row.pid, row.ticks)]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
