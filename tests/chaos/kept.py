"""One process of the chaos stack: kept up as the local stack keeps it, until a fault wants it down."""

from __future__ import annotations

import signal
from collections.abc import Callable

from giclee.infra.local.child import Child, Launch
from giclee.infra.local.folder import ProcessRecord
from giclee.infra.local.keeper import Keeper

HELD = "a fault holds it down"


class Kept:
    """A keeper with brakes."""

    def __init__(self, record: ProcessRecord, launch: Callable[[], Launch]) -> None:
        self.launch = launch
        self._keeper = Keeper(record, lambda: self.launch())

    @property
    def record(self) -> ProcessRecord:
        return self._keeper.record

    @property
    def child(self) -> Child | None:
        return self._keeper.child

    @property
    def pid(self) -> int | None:
        """Of the running process; None while there is none."""
        return self._keeper.record.pid

    def tend(self) -> None:
        """Notice a death, start what is due."""
        self._keeper.tend()

    def hold(self) -> None:
        """Do not start it again."""
        self.record.missing = HELD

    def release(self) -> None:
        """Keep it up again."""
        self.record.missing = None

    def send(self, number: signal.Signals) -> int | None:
        """A signal to the process alone; gives its pid, None when it does not run."""
        if self.child is None or self.child.exit_code() is not None:
            return None
        self.child.send(number)
        return self.child.pid
