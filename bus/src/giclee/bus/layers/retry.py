"""Tries a record again when only this record had bad luck. An outage is not retried here: it goes to the
loop, which pauses the stage and waits without limit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime

from giclee.bus import telemetry
from giclee.bus.errors import Exhausted, Transient
from giclee.bus.stage import Context, Delivery, Next
from giclee.schemas.events import Event

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Waits between tries, 30 s in all: contract rule 9."""


def layer(context: Context, inner: Next) -> Next:
    """Up to `stage.attempts` retries of a Transient of scope `record`, then Exhausted."""
    pauses = PAUSES_S[: context.stage.attempts]
    pause_for = context.parts.get("sleep", asyncio.sleep)

    async def again(delivery: Delivery) -> Sequence[Event]:
        for pause_s in (*pauses, None):
            delivery.attempts += 1
            try:
                events: Sequence[Event] = await inner(delivery)
                return events
            except Transient as error:
                if error.scope == "dependency":
                    raise
                telemetry.count("giclee_retries_total", stage=context.stage.name, scope="record")
                delivery.first_failed_at = delivery.first_failed_at or datetime.now(UTC).isoformat()
                if pause_s is None:
                    raise Exhausted(str(error)) from error
                await pause_for(pause_s * random.uniform(0.8, 1.2))
        raise AssertionError("the loop above returns or raises")

    return again
