"""Asks providers that bill: one call per ask, as many at once and a minute as the provider says. No batching.

The counterpart of batch.py for services. Limits are those of this process; several workers share a provider's by having
a part of them each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from giclee.bus import failpoints
from giclee.gpu_worker.provider import Answer, Ask, Capabilities, NotMade, Provider
from giclee.schemas.models import Model

MINUTE_S = 60.0
PATIENCE_S = 120.0
"""Longest that a call waits for its turn; less than a handler's time, so that the chain goes on instead."""

Begin = Callable[[], Awaitable[NotMade | None]]
"""Stores that a call is about to be made, or says why it must not be."""


class Bucket:
    """Tokens for calls: each comes back a minute after it was taken, so that no minute has more calls than allowed."""

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._taken: deque[float] = deque()
        self._closed_until = 0.0

    def take(self, now: float, patience_s: float = PATIENCE_S) -> float | None:
        """Take the next token: seconds from `now` until it may be used. None where that is longer than `patience_s`;
        then none is taken."""
        at = max(now, self._closed_until)
        full = self._per_minute is not None and len(self._taken) >= self._per_minute
        if full:
            at = max(at, self._taken[0] + MINUTE_S)
        if at - now > patience_s:
            return None
        if full:
            self._taken.popleft()
        if self._per_minute is not None:
            self._taken.append(at)
        return at - now

    def close(self, until: float) -> None:
        """No token before that: the provider asked to be left alone."""
        self._closed_until = max(self._closed_until, until)


class _Gate:
    """What one provider lets through."""

    def __init__(self, capabilities: Capabilities) -> None:
        self.slots = asyncio.Semaphore(capabilities.concurrency)
        self.bucket = Bucket(capabilities.per_minute)


class Calls:
    """The way to all hosted providers of a worker. `providers` by name; `sleep` waits and `now` is the loop's clock."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        patience_s: float = PATIENCE_S,
        now: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.providers, self.patience_s = providers, patience_s
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._gates = {name: _Gate(one.capabilities) for name, one in providers.items()}

    async def make(self, model: Model, ask: Ask, begin: Begin | None = None) -> Answer:
        """The answer to one ask. `begin` is awaited when it is this call's turn, before the provider hears of it.

        Errors: those of `begin` and of the ask's `note`; whatever a provider's bug raises.
        """
        gate = self._gates[model.provider]
        async with gate.slots:
            wait_s = gate.bucket.take(self._now(), self.patience_s)
            if wait_s is None:
                message = f"{model.provider} lets no more calls through within {self.patience_s:g} s"
                return NotMade(outcome="rate", message=message, code="call_rate")
            if wait_s > 0:
                await self._sleep(wait_s)
            refused = await begin() if begin is not None else None
            if refused is not None:
                return refused
            await failpoints.reach("before-provider-call")
            (answer,) = await self.providers[model.provider].make(model, [ask], 1)
            await failpoints.reach("after-provider-call")
        if isinstance(answer, NotMade) and answer.retry_after_s is not None:
            gate.bucket.close(self._now() + answer.retry_after_s)
        return answer
