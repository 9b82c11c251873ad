"""Runs dimensions off the event loop: one thread, and whatever waits when it comes free goes in one batch.

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
        self.timeout_s = timeout_s
        self.arrived = asyncio.Event()
        self._batch_max = batch_max
        self._waiting: deque[Waiting] = deque()

    def is_for(self, asset_type: str) -> bool:
        return self._asset_types is None or asset_type in self._asset_types

    async def measure(self, picture: Picture) -> Measured:
        """The measurement of one picture. Errors: whatever the dimension raised, Stuck."""
        one = Waiting(picture, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self.arrived.set()
        return await one.answer

    async def run(self) -> None:
        """Measure in a thread of its own until cancelled. Errors: Stuck."""
        await run_together([self])

    def taken(self) -> list[Waiting]:
        """The next batch, empty when nobody waits: so many pictures, of so many pixels in all, at least one."""
        taken: list[Waiting] = []
        pixels = 0
        while self._waiting and len(taken) < self._batch_max:
            pixels += self._waiting[0].picture.pixels.size // 3
            if taken and pixels > BATCH_PIXELS_MAX:
                break
            one = self._waiting.popleft()
            if not one.answer.done():
                taken.append(one)
        return taken

    def found(self, batch: Sequence[Waiting]) -> Sequence[Measured]:
        """What the dimension answers; called in the thread. Errors: whatever it raises, ValueError for no answer."""
        began = time.perf_counter()
        answer = self.dimension.measure([one.picture for one in batch])
        telemetry.observe("giclee_dimension_seconds", time.perf_counter() - began, dimension=self.name)
        if (wrong := self._wrong(answer, len(batch))) is not None:
            raise ValueError(wrong)
        return answer

    def _wrong(self, found: object, asked: int) -> str | None:
        """What is wrong with an answer, whatever it is: a dimension may be anybody's code."""
        if not isinstance(found, Sequence):
            return f"{self.name} answered {type(found).__name__}"
        if len(found) != asked:
            return f"{self.name} answered {len(found)} of {asked} pictures"
        strange = [one for one in found if not _is_measured(one)]
        return f"{self.name} answered {strange[0]!r}" if strange else None


Batch = tuple[Lane, Sequence[Waiting]]


async def run_together(lanes: Sequence[Lane]) -> None:
    """Measure in one thread until cancelled: what waits in all these lanes is one job, since to change threads costs
    more than a small picture's sharpness. Errors: Stuck."""
    thread = ThreadPoolExecutor(1, f"dimension-{lanes[0].name}")
    arrived = asyncio.Event()
    for lane in lanes:
        lane.arrived = arrived
        arrived.set()
    while True:
        batches = [(lane, batch) for lane in lanes if (batch := lane.taken())]
        if batches:
            await _measure(thread, batches)
        else:
            arrived.clear()
            await arrived.wait()


async def _measure(thread: ThreadPoolExecutor, batches: Sequence[Batch]) -> None:
    """Answer who waits; a batch that failed goes again, picture by picture."""
    answers = await _within(thread, batches)
    again: list[Batch] = []
    for (lane, batch), found in zip(batches, answers, strict=True):
        if isinstance(found, BaseException) and len(batch) > 1:
            again += [(lane, [one]) for one in batch]
            continue
        for at, one in enumerate(batch):
            if one.answer.done():
                continue
            if isinstance(found, BaseException):
                one.answer.set_exception(found)
            else:
                one.answer.set_result(found[at])
    for single in again:
        await _measure(thread, [single])


async def _within(thread: ThreadPoolExecutor, batches: Sequence[Batch]) -> Sequence[Sequence[Measured] | BaseException]:
    """An answer or an error for each batch, in time. Errors: Stuck, said to who waits as well."""
    answers: list[Sequence[Measured] | BaseException] = []

    def work() -> None:
        for lane, batch in batches[len(answers) :]:
            answers.append(lane.found(batch))

    while len(answers) < len(batches):
        job = asyncio.get_running_loop().run_in_executor(thread, work)
        done, _ = await asyncio.wait({job}, timeout=max(lane.timeout_s for lane, _ in batches))
        if not done:
            raise _stuck(batches, len(answers))
        if (error := job.exception()) is not None:  # of this batch; the next job begins behind it
            answers.append(error)
    return answers


def _stuck(batches: Sequence[Batch], at: int) -> Stuck:
    lane, batch = batches[at]
    stuck = Stuck(f"{lane.name} took more than {lane.timeout_s:g} s for {len(batch)} pictures")
    for _, late in batches:
        for one in late:
            if not one.answer.done():
                one.answer.set_exception(stuck)
    return stuck


def _is_measured(one: object) -> bool:
    return isinstance(one, Measured) and isinstance(one.value, Real | None)
