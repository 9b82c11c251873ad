"""Gives a handler its time and no more; a handler that hangs must not hold its partition for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from giclee.bus import telemetry
from giclee.bus.errors import Transient
from giclee.bus.stage import Context, Delivery, Next
from giclee.schemas.events import Event


class _Turn:
    """One handler at work. `expired`: its time is over and its task was told to stop."""

    __slots__ = ("cancelling", "expired", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task, self.cancelling, self.expired = task, task.cancelling(), False


class _Clock:
    """One timer for all handlers of a stage, whose times end in the order in which they began. `asyncio.timeout`
    makes a timer each, which costs 9 us."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._ends: dict[_Turn, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> _Turn:
        task = asyncio.current_task()
        assert task is not None
        turn, loop = _Turn(task), task.get_loop()
        at = self._ends[turn] = loop.time() + self._limit_s
        if self._timer is None:
            self._timer = loop.call_at(at, self._ring, loop)
        return turn

    def end(self, turn: _Turn) -> bool:
        """Whether the handler's time had ended; the cancellation is then taken back, as `asyncio.timeout` does."""
        if not turn.expired:
            del self._ends[turn]
            return False
        return turn.task.uncancel() <= turn.cancelling

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for turn, at in list(self._ends.items()):
            if at > loop.time():
                self._timer = loop.call_at(at, self._ring, loop)
                return
            del self._ends[turn]
            turn.expired = True
            turn.task.cancel()


def layer(context: Context, inner: Next) -> Next:
    """A handler past `deadline_s` is cancelled and counts as a try that failed for this record."""
    deadline_s = context.stage.deadline_s
    clock = _Clock(deadline_s)

    async def within(delivery: Delivery) -> Sequence[Event]:
        began, turn, ours = time.perf_counter(), clock.begin(), False
        try:
            try:
                events: Sequence[Event] = await inner(delivery)
                return events
            finally:
                ours = clock.end(turn)
        except asyncio.CancelledError as error:
            if ours:
                raise Transient(f"not done within {deadline_s:g} s", scope="record") from error
            if turn.task.cancelling():
                raise
            raise Transient("was cancelled from inside", scope="record") from error  # a future that others gave up
        finally:
            telemetry.observe("giclee_handler_seconds", time.perf_counter() - began, stage=context.stage.name)

    return within
