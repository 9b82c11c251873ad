"""Keeps one process up: started again when it dies, with a wait that grows while it keeps dying."""

from __future__ import annotations

import time
from collections.abc import Callable

from giclee.infra.local.child import Child, Launch
from giclee.infra.local.folder import ProcessRecord
from giclee.infra.local.proc import start_ticks

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
STEADY_S = 30.0
"""Up for this long, a process has recovered: its next death is waited on from the start again."""


class Keeper:
    """One part or replica of the stack."""

    def __init__(self, record: ProcessRecord, launch: Callable[[], Launch]) -> None:
        self.record = record
        self.child: Child | None = None
        self._launch = launch
        self._wait_s = FIRST_WAIT_S
        self._due_at = 0.0

    @property
    def due_at(self) -> float | None:
        """When it is to be started (monotonic seconds); None while it runs or when it never will."""
        return self._due_at if self.child is None and self.record.missing is None else None

    def tend(self) -> bool:
        """Note a death, start what is due. True when something changed."""
        now = time.monotonic()
        if self.child is not None and self.child.exit_code() is not None:
            self._note_death(self.child, now)
            return True
        if self.due_at is not None and now >= self.due_at:
            self._start()
            return True
        return False

    def _start(self) -> None:
        self.child = Child(self._launch())
        self.record.pid = self.child.pid
        self.record.ticks = start_ticks(self.child.pid)
        self.record.started_at = self.child.started_at

    def _note_death(self, child: Child, now: float) -> None:
        child.kill()  # what is left of its group
        if time.time() - child.started_at > STEADY_S:
            self._wait_s = FIRST_WAIT_S
        self._due_at = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        self.child = None
        self.record.last_exit = child.exit_code()
        self.record.pid = self.record.ticks = self.record.started_at = None
        self.record.restarts += 1
