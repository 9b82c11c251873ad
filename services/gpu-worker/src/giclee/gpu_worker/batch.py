"""Gathers concurrent asks into batches of one shape, padded to fixed sizes (1, 2, 4, ... batch_max).

While the device works, asks pile up by themselves; an idle device waits `wait_ms` after the first ask for
others of its shape. The group whose first ask waits longest goes next. Fixed sizes, because a size is a
shape: kernels are chosen by it, and pictures of one seed are equal bit by bit only within it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from giclee.bus import failpoints, telemetry
from giclee.bus.errors import Transient
from giclee.gpu_worker.provider import Answer, Ask, DeviceLost, Provider, Shape
from giclee.schemas.models import Model

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
    """The queue before one device. `providers` by name; `now` is a clock in seconds."""

    def __init__(
        self, providers: Mapping[str, Provider], *, wait_ms: float = 10.0, now: Callable[[], float] | None = None
    ) -> None:
        self.providers = providers
        self.wait_s = wait_ms / 1000
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._groups: dict[Shape, deque[Waiting]] = {}
        self._arrived = asyncio.Event()

    async def make(self, model: Model, ask: Ask) -> Answer:
        """The answer to one ask. Errors: Transient when the device is lost; whatever a provider's bug raises."""
        waiting = Waiting(model, ask, asyncio.get_running_loop().create_future(), self._now())
        self._groups.setdefault(ask.shape, deque()).append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def run(self) -> None:
        """Make batches until cancelled. Errors: DeviceLost, which only a new process mends."""
        while True:
            batch = await self._next()
            if batch:
                await self._make(batch)

    async def _next(self) -> list[Waiting]:
        """The next batch: of the shape that waits longest, full or waited for."""
        while not self._groups:
            self._arrived.clear()
            await self._arrived.wait()
        shape, group = min(self._groups.items(), key=lambda pair: pair[1][0].since)
        size = group[0].model.batch_max
        while len(group) < size and (left_s := group[0].since + self.wait_s - self._now()) > 0:
            self._arrived.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._arrived.wait()
            except TimeoutError:
                break
        batch = [group.popleft() for _ in range(min(size, len(group)))]
        if not group:
            del self._groups[shape]
        return [one for one in batch if not one.answer.done()]

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
