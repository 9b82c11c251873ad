"""What an outside part of the stack is: something to prepare, a process to start, and a true question to ask it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from giclee.infra.local.child import Launch

KeepOn = Callable[[], None]
"""Called while a preparation waits; raises when the stack was asked to stop."""


class Part(Protocol):
    """Kafka, Postgres, S3 or the schema registry."""

    @property
    def name(self) -> str: ...

    def prepare(self, keep_on: KeepOn) -> None:
        """Everything before the first start: download, format, create. Nothing to do the second time."""

    def launch(self) -> Launch:
        """How to start it. Called again for every restart."""

    def trouble(self) -> str | None:
        """Why it does not do its work yet, from a real request bounded to about a second; None when it does."""

    def stopped(self, exit_code: int) -> None:
        """Called after it was asked to stop and did."""
