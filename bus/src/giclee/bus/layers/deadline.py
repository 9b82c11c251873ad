"""Gives a handler its time and no more; a handler that hangs must not hold its partition for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from giclee.bus import telemetry
from giclee.bus.errors import Transient
from giclee.bus.stage import Context, Delivery, Next
from giclee.schemas.events import Event


def layer(context: Context, inner: Next) -> Next:
    """A handler past `deadline_s` is cancelled and counts as a try that failed for this record."""
    deadline_s = context.stage.deadline_s

    async def within(delivery: Delivery) -> Sequence[Event]:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(deadline_s) as clock:
                events: Sequence[Event] = await inner(delivery)
                return events
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            raise Transient("was cancelled from inside", scope="record") from error  # a future that others gave up
        except TimeoutError as error:
            if not clock.expired():  # somebody else's time-out, not ours
                raise
            raise Transient(f"not done within {deadline_s:g} s", scope="record") from error
        finally:
            telemetry.observe("giclee_handler_seconds", time.perf_counter() - began, stage=context.stage.name)

    return within
