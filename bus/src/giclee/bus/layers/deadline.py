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
    """One handler at work since `began` (monotonic seconds). `expired`: its time is over, its task was told to stop."""

    __slots__ = ("began", "cancelling", "expired", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task, self.cancelling, self.expired = task, task.cancelling(), False
        self.began = time.monotonic()


class _Clock:
    """One timer for all handlers of a stage, whose times end in the order in which they began. `asyncio.timeout`
    makes a timer each, which costs 9 us."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._turns: dict[_Turn, None] = {}  # a set that keeps its order
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> _Turn:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        turn = _Turn(task)
        self._turns[turn] = None
        if self._timer is None:
            self._timer = loop.call_later(self._limit_s, self._ring, loop)
        return turn

    def end(self, turn: _Turn) -> bool:
        """Whether the handler's time had ended; the cancellation is then taken back, as `asyncio.timeout` does."""
        if not turn.expired:
            del self._turns[turn]
            return False
        return turn.task.uncancel() <= turn.cancelling

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for turn in list(self._turns):
            left_s = turn.began + self._limit_s - time.monotonic()
            if left_s > 0:
                self._timer = loop.call_later(left_s, self._ring, loop)
                return
            del self._turns[turn]
            turn.expired = True
            turn.task.cancel()


def layer(context: Context, inner: Next) -> Next:
    """A handler past `deadline_s` is cancelled and counts as a try that failed for this record."""
    deadline_s = context.stage.deadline_s
    clock = _Clock(deadline_s)
    took = telemetry.observer("giclee_handler_seconds", stage=context.stage.name)

    async def within(delivery: Delivery) -> Sequence[Event]:
        turn, ours = clock.begin(), False
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
            took(time.monotonic() - turn.began)

    return within
