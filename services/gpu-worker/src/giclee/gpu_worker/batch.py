"""Gathers concurrent asks into batches of one shape, padded to fixed sizes (1, 2, 4, ... batch_max).

While the device works, asks pile up by themselves; an idle device waits `wait_ms` after the first ask for
others of its shape. Pools that share the device take turns by weight (turns.py), in seconds of the device; within a
pool the group whose first ask waits longest goes next. Who is next is asked anew whenever an ask comes, so nothing but
the batch in progress is before whoever's turn it is. Fixed sizes, because a size is a shape: kernels are chosen by it,
and pictures of one seed are equal bit by bit only within it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from giclee.bus import failpoints, telemetry
from giclee.bus.errors import Transient
from giclee.gpu_worker.provider import Answer, Ask, DeviceLost, Provider, Shape
from giclee.gpu_worker.turns import Turns
from giclee.schemas.models import Model

TURN_MIN_S = 0.001
"""A batch counts at least this, so that one which took no time that a clock can tell is a turn all the same."""

log = telemetry.logger(__name__)


def padded_size(asks: int, batch_max: int) -> int:
    """The fixed size that holds `asks`: the next power of two, at most `batch_max`."""
    return min(1 << (asks - 1).bit_length(), batch_max)


@dataclass(slots=True, eq=False)
class Waiting:
    """An ask and who waits for its answer."""

    model: Model
    ask: Ask
    answer: asyncio.Future[Answer]
    since: float


class Batcher:
    """The queue before one device. `providers` by name; `weights` by pool; `now` is a clock in seconds."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        wait_ms: float = 10.0,
        weights: Mapping[str, int] | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.providers = providers
        self.wait_s = wait_ms / 1000
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._lines: dict[str, dict[Shape, deque[Waiting]]] = {}
        self._turns = Turns(weights)
        self._arrived = asyncio.Event()

    async def make(self, model: Model, ask: Ask) -> Answer:
        """The answer to one ask, made in a turn of its model's pool.

        Errors: Transient when the device is lost; whatever a provider's bug raises.
        """
        now = self._now()
        waiting = Waiting(model, ask, asyncio.get_running_loop().create_future(), now)
        self._lines.setdefault(model.pool, {}).setdefault(ask.shape, deque()).append(waiting)
        self._turns.wait(model.pool, now)
        self._arrived.set()
        return await waiting.answer

    async def run(self) -> None:
        """Make batches until cancelled. Errors: DeviceLost, which only a new process mends."""
        while True:
            pool, shape = await self._next()
            began = self._now()
            batch = self._taken(pool, shape, began)
            if batch:
                await self._make(batch)
                self._turns.end(pool, max(self._now() - began, TURN_MIN_S))

    async def _next(self) -> tuple[str, Shape]:
        """Of which pool and shape the next batch is: full, or waited for long enough."""
        while True:
            left_s = None
            if self._lines:
                now = self._now()
                pool = self._turns.next(self._lines, now)
                shape, group = min(self._lines[pool].items(), key=lambda pair: pair[1][0].since)
                left_s = group[0].since + self.wait_s - now
                if left_s <= 0 or len(group) >= group[0].model.batch_max:
                    return pool, shape
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._arrived.wait()

    def _taken(self, pool: str, shape: Shape, now: float) -> list[Waiting]:
        """A batch out of its line; whoever stopped waiting takes no place in it."""
        line, batch = self._lines[pool], list[Waiting]()
        group = line[shape]
        while group and len(batch) < group[0].model.batch_max:
            one = group.popleft()
            if not one.answer.done():
                batch.append(one)
                telemetry.observe("giclee_turn_wait_seconds", now - one.since, pool=pool)
        if not group:
            del line[shape]
        if not line:
            del self._lines[pool]
        self._turns.begin(pool, now, more=bool(line))
        return batch

    async def _make(self, batch: list[Waiting]) -> None:
        model = batch[0].model
        padded = padded_size(len(batch), model.batch_max)
        work = asyncio.ensure_future(self._asked(model, [one.ask for one in batch], padded))
        await asyncio.wait({work})
        error = work.exception()
        lost = isinstance(error, DeviceLost)
        if error is None:
            telemetry.count("giclee_images_total", len(batch), model=model.name, padded=str(padded))
            for one, answer in zip(batch, work.result(), strict=True):
                if not one.answer.done():
                    one.answer.set_result(answer)
            return
        for one in batch:
            if not one.answer.done():
                one.answer.set_exception(Transient(f"the device is lost: {error}") if lost else error)
        if lost:
            log.critical("device lost", error=str(error))
            raise error

    async def _asked(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        """What the provider says. Errors: those of a provider."""
        try:
            await failpoints.reach("before-provider-call")
            answers = await self.providers[model.provider].make(model, asks, padded)
            await failpoints.reach("after-provider-call")
        except failpoints.Raised as error:
            raise DeviceLost(str(error)) from error
        return answers
