"""Asks providers that bill: one call per ask, as many at once and a minute as may be. No batching.

The counterpart of batch.py for services. Calls at once are those of this process, calls a minute those of all workers
(rates.py); pools share both by weight (turns.py), and whose call is next is decided when there is room for one, so that
what somebody waits for does not stand behind bulk that waits for the next minute.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from giclee.bus import failpoints, telemetry
from giclee.gpu_worker.provider import Answer, Ask, Capabilities, NotMade, Provider
from giclee.gpu_worker.rates import LEASE_S, MINUTE_S, Cap, OwnRates, Rates
from giclee.gpu_worker.turns import Turns
from giclee.schemas.models import Model

PATIENCE_S = 120.0
"""Longest that a call waits for a provider's rate; less than a handler's time, so that the chain goes on instead."""
AGAIN_S = 0.05
"""Shortest pause before a cap that had no call to give is asked again."""

Begin = Callable[[], Awaitable[NotMade | None]]
"""Stores that a call is about to be made, or says why it must not be."""


def caps_of(model: Model, capabilities: Capabilities) -> tuple[Cap, ...]:
    """What counts a model's calls: the cap of its row, shared by rows of one location, and its provider's own."""
    found = []
    if model.per_minute is not None:
        where = Path(model.location)  # a file may lie elsewhere at another worker
        found.append(Cap(f"{model.provider} {where.name if where.is_absolute() else where}", model.per_minute))
    if capabilities.per_minute is not None:
        found.append(Cap(model.provider, capabilities.per_minute))
    return tuple(found)


class _Tap:
    """A worker's end of a cap: the calls that it has leased, and when it may ask for more."""

    def __init__(self, cap: Cap, rates: Rates, now: Callable[[], float]) -> None:
        self.cap, self._rates, self._now = cap, rates, now
        self._left, self._good_until, self._again_at = 0, 0.0, 0.0
        self._made: deque[float] = deque()

    def ready(self) -> bool:
        return self._left > 0 and self._now() < self._good_until

    async def wait_s(self, wanted: int) -> float:
        """Seconds until a call may be had; 0 where one is leased, for so many that want one, or made calls lately."""
        if self.ready():
            return 0.0
        asked = self._now()
        if asked < self._again_at:
            return self._again_at - asked
        while self._made and self._made[0] <= asked - LEASE_S:
            self._made.popleft()
        lease = await self._rates.lease(self.cap, min(self.cap.lease_max, max(wanted, len(self._made))))
        self._left, self._good_until = lease.calls, asked + LEASE_S
        if self.ready():
            return 0.0
        wait_s = max(lease.wait_s, AGAIN_S)
        self._again_at = self._now() + wait_s
        return wait_s

    def use(self) -> None:
        self._left -= 1
        self._made.append(self._now())


@dataclass(slots=True, eq=False)
class _Caller:
    """A call that waits; `turn` says whether it may go, at its turn or once that would be too late."""

    pool: str
    taps: tuple[_Tap, ...]
    turn: asyncio.Future[bool]
    since: float


class _Gate:
    """What one provider lets through: so many at once, each where all of its caps have a call, pools in turns."""

    def __init__(self, capabilities: Capabilities, calls: Calls) -> None:
        self._capabilities, self._calls = capabilities, calls
        self._now = calls.now
        self._places = capabilities.concurrency
        self._closed_until = 0.0
        self._line: list[_Caller] = []
        self._turns = Turns(calls.weights)
        self._taps: dict[Cap, _Tap] = {}
        self._changed = asyncio.Event()
        self._admitting: asyncio.Task[None] | None = None

    async def enter(self, model: Model) -> bool:
        """Wait for a place. False: the rate lets nobody through in time. Errors: Transient when nobody can say."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        taps = tuple(self._tap(cap) for cap in caps_of(model, self._capabilities))
        self._line.append(_Caller(model.pool, taps, turn, self._now()))
        self._turns.wait(model.pool, self._now())
        self._changed.set()
        if self._admitting is None or self._admitting.done():
            self._admitting = asyncio.create_task(self._admit())
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None and turn.result():
                self.leave()  # let in at the moment it was cut off
            raise

    def leave(self) -> None:
        """A call is over."""
        self._places += 1
        self._changed.set()

    def close(self, seconds: float) -> None:
        """No call before that: the provider asked to be left alone."""
        self._closed_until = max(self._closed_until, self._now() + seconds)

    def _tap(self, cap: Cap) -> _Tap:
        return self._taps.setdefault(cap, _Tap(cap, self._calls.rates, self._now))

    async def _admit(self) -> None:
        """Let callers in while there are any; whatever goes wrong is told to all of them."""
        while self._look():
            work = asyncio.ensure_future(self._admit_all())
            await asyncio.wait({work})
            if (error := work.exception()) is not None:
                for caller in self._look():
                    caller.turn.set_exception(error)

    async def _admit_all(self) -> None:
        while self._look():
            self._changed.clear()
            wait_s = await self._next() if self._places else None
            if wait_s != 0:
                await self._pause(wait_s)

    async def _next(self) -> float:
        """Let the next one in, or tell who waits in vain. 0, or seconds until somebody may be let in."""
        waits = [(caller, await self._wait_s(caller)) for caller in tuple(self._line)]
        ahead: Counter[str] = Counter()
        for caller, wait_s in waits:
            slowest = min((tap.cap.per_minute for tap in caller.taps), default=0)
            before = min(ahead[caller.pool], self._capabilities.concurrency - 1)
            total_s = wait_s + (before * MINUTE_S / slowest if slowest and wait_s else 0.0)
            ahead[caller.pool] += 1
            if total_s > self._calls.patience_s and not caller.turn.done():
                caller.turn.set_result(False)
        able = [one for one in self._look() if all(tap.ready() for tap in one.taps)] if self._is_open() else []
        if able:
            self._let_in(able)
            return 0.0
        return min((wait_s for caller, wait_s in waits if not caller.turn.done()), default=0.0)

    def _let_in(self, able: list[_Caller]) -> None:
        now = self._now()
        pool = self._turns.next({one.pool for one in able}, now)
        caller = next(one for one in able if one.pool == pool)
        self._line.remove(caller)
        for tap in caller.taps:
            tap.use()
        self._places -= 1
        self._turns.begin(pool, now, more=any(one.pool == pool for one in self._line))
        self._turns.end(pool, 1.0)
        telemetry.observe("giclee_turn_wait_seconds", now - caller.since, pool=pool)
        caller.turn.set_result(True)

    async def _wait_s(self, caller: _Caller) -> float:
        """Seconds until nothing but the others of the line is before it."""
        if not self._is_open():
            return self._closed_until - self._now()
        for tap in caller.taps:
            wanted = min(self._places, sum(tap in other.taps for other in self._line))
            if (wait_s := await tap.wait_s(wanted)) > 0:
                return wait_s
        return 0.0

    def _is_open(self) -> bool:
        return self._now() >= self._closed_until

    def _look(self) -> list[_Caller]:
        """The line without those who stopped waiting."""
        left = {one.pool for one in self._line if one.turn.done()}
        self._line = [one for one in self._line if not one.turn.done()]
        for pool in left - {one.pool for one in self._line}:
            self._turns.leave(pool)
        return self._line

    async def _pause(self, wait_s: float | None) -> None:
        """Until something changes, or for so long at most."""
        changed = asyncio.ensure_future(self._changed.wait())
        waited = [changed] if wait_s is None else [changed, asyncio.ensure_future(self._calls.sleep(wait_s))]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waited:
                one.cancel()


class Calls:
    """The way to all hosted providers of a worker. `providers` by name, `weights` by pool, `rates` where calls a minute
    are counted (absent: this process counts its own); `sleep` waits and `now` is a clock in seconds."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        patience_s: float = PATIENCE_S,
        weights: Mapping[str, int] | None = None,
        rates: Rates | None = None,
        now: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.providers, self.patience_s, self.weights = providers, patience_s, weights or {}
        self.now = now or (lambda: asyncio.get_running_loop().time())
        self.sleep, self.rates = sleep, rates or OwnRates(self.now)
        self._gates = {name: _Gate(one.capabilities, self) for name, one in providers.items()}

    async def make(self, model: Model, ask: Ask, begin: Begin | None = None) -> Answer:
        """The answer to one ask. `begin` is awaited when it is this call's turn, before the provider hears of it.

        Errors: those of `begin` and of the ask's `note`; Transient when nobody can say whether there may be a call;
        whatever a provider's bug raises.
        """
        gate = self._gates[model.provider]
        if not await gate.enter(model):
            message = f"{model.provider} lets no more calls through within {self.patience_s:g} s"
            return NotMade(outcome="rate", message=message, code="call_rate")
        try:
            refused = await begin() if begin is not None else None
            if refused is not None:
                return refused
            await failpoints.reach("before-provider-call")
            (answer,) = await self.providers[model.provider].make(model, [ask], 1)
            await failpoints.reach("after-provider-call")
        finally:
            gate.leave()
        if isinstance(answer, NotMade) and answer.retry_after_s is not None:
            gate.close(answer.retry_after_s)
        return answer
