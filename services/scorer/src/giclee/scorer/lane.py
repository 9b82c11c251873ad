"""Runs one dimension off the event loop: one thread, and whatever waits when it comes free goes in one batch.

A failure of a batch is narrowed down to the picture that caused it. A measurement that does not come back
in time cannot be stopped, only its process can: the lane ends, and with it the service, which is started again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

from giclee.bus import telemetry
from giclee.scorer.dimension import Dimension, Evaluator, Measured, Picture

BATCH_PIXELS_MAX = 4 * 1024 * 1024
"""A picture of 2,048 x 2,048 is a batch of its own: safety looks at it 18 times, and a batch has one time-out."""

log = telemetry.logger(__name__)


class Stuck(Exception):
    """A dimension did not come back in time."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A picture and who waits for its measurement."""

    picture: Picture
    answer: asyncio.Future[Measured]


class Station(Protocol):
    """Where a picture gets one dimension's measurement: a lane here, or an evaluator elsewhere (remote.py)."""

    name: str
    evaluator: Evaluator

    def is_for(self, asset_type: str) -> bool:
        """Whether pictures of this asset type are measured here."""
        ...

    async def measure(self, picture: Picture) -> Measured: ...
    async def run(self) -> None: ...


class Lane:
    """The queue before one dimension. `asset_types`: whose pictures are measured; None is all."""

    def __init__(
        self,
        name: str,
        dimension: Dimension,
        *,
        batch_max: int = 8,
        timeout_s: float = 30.0,
        asset_types: frozenset[str] | None = None,
    ) -> None:
        self.name, self.dimension, self._asset_types = name, dimension, asset_types
        self.evaluator = dimension.describe()
        self._batch_max, self._timeout_s = batch_max, timeout_s
        self._waiting: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, f"dimension-{name}")

    def is_for(self, asset_type: str) -> bool:
        return self._asset_types is None or asset_type in self._asset_types

    async def measure(self, picture: Picture) -> Measured:
        """The measurement of one picture. Errors: whatever the dimension raised, Stuck."""
        one = Waiting(picture, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._arrived.set()
        return await one.answer

    async def run(self) -> None:
        """Measure until cancelled. Errors: Stuck."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            taken = self._taken()
            batch = [one for one in taken if not one.answer.done()]
            if batch:
                await self._measure(batch)

    def _taken(self) -> list[Waiting]:
        """The next batch: so many pictures, of so many pixels in all, at least one."""
        taken = [self._waiting.popleft()]
        pixels = taken[0].picture.pixels.size // 3
        while self._waiting and len(taken) < self._batch_max:
            pixels += self._waiting[0].picture.pixels.size // 3
            if pixels > BATCH_PIXELS_MAX:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _measure(self, batch: Sequence[Waiting]) -> None:
        began = time.perf_counter()
        found = await self._within([one.picture for one in batch], batch)
        telemetry.observe("giclee_dimension_seconds", time.perf_counter() - began, dimension=self.name)
        if isinstance(found, BaseException) and len(batch) > 1:
            for one in batch:
                await self._measure([one])
            return
        for at, one in enumerate(batch):
            if one.answer.done():
                continue
            if isinstance(found, BaseException):
                one.answer.set_exception(found)
            else:
                one.answer.set_result(found[at])

    async def _within(
        self, pictures: Sequence[Picture], batch: Sequence[Waiting]
    ) -> Sequence[Measured] | BaseException:
        """What the dimension answers or raises, in time. Errors: Stuck, said to who waits as well."""
        work = asyncio.get_running_loop().run_in_executor(self._thread, self.dimension.measure, pictures)
        done, _ = await asyncio.wait({work}, timeout=self._timeout_s)
        if not done:
            stuck = Stuck(f"{self.name} took more than {self._timeout_s:g} s for {len(pictures)} pictures")
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(stuck)
            raise stuck
        error = work.exception()
        if error is not None:
            return error
        found = work.result()
        return found if (wrong := self._wrong(found, len(pictures))) is None else ValueError(wrong)

    def _wrong(self, found: object, asked: int) -> str | None:
        """What is wrong with an answer, whatever it is: a dimension may be anybody's code."""
        if not isinstance(found, Sequence):
            return f"{self.name} answered {type(found).__name__}"
        if len(found) != asked:
            return f"{self.name} answered {len(found)} of {asked} pictures"
        strange = [one for one in found if not _is_measured(one)]
        return f"{self.name} answered {strange[0]!r}" if strange else None


def _is_measured(one: object) -> bool:
    return isinstance(one, Measured) and isinstance(one.value, Real | None)
