"""Lanes: batches while busy, a failure reaches only the picture that caused it, a hang ends the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from giclee.scorer.dimension import Evaluator, Measured, Picture
from giclee.scorer.lane import Lane, Stuck, run_together
from tests.kit.wait import until


class Told:
    """A dimension that does what it is told and remembers its batches."""

    def __init__(self, answer: Callable[[Picture], float]) -> None:
        self.answer = answer
        self.batches: list[int] = []

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        self.batches.append(len(pictures))
        return [Measured(self.answer(one)) for one in pictures]

    def describe(self) -> Evaluator:
        return Evaluator("told", "1")


def picture(prompt: str) -> Picture:
    return Picture(pixels=np.zeros((2, 2, 3), np.uint8), prompt=prompt)


async def test_what_waits_goes_in_one_batch_and_comes_back_in_order() -> None:
    """Ten pictures, batches of at most four."""
    dimension = Told(lambda one: float(one.prompt))
    lane = Lane("told", dimension, batch_max=4)
    answers = [asyncio.create_task(lane.measure(picture(str(at)))) for at in range(10)]
    await asyncio.sleep(0)
    running = asyncio.create_task(lane.run())
    assert [found.value for found in await asyncio.gather(*answers)] == list(range(10))
    assert dimension.batches == [4, 4, 2]
    running.cancel()


async def test_a_batch_holds_so_many_pixels_and_at_least_one_picture() -> None:
    """A batch has one time-out: large pictures go alone, small ones together."""
    large = Picture(pixels=np.zeros((2400, 2400, 3), np.uint8), prompt="1")
    middle = Picture(pixels=np.zeros((1400, 1400, 3), np.uint8), prompt="1")
    dimension = Told(lambda one: float(one.prompt))
    lane = Lane("told", dimension, batch_max=4)
    order = (middle, middle, middle, large, large, *(picture("1") for _ in range(5)))
    answers = [asyncio.create_task(lane.measure(one)) for one in order]
    await asyncio.sleep(0)
    running = asyncio.create_task(lane.run())
    await asyncio.gather(*answers)
    assert dimension.batches == [2, 1, 1, 1, 4, 1]
    running.cancel()


async def test_a_picture_that_breaks_a_dimension_breaks_only_its_own_measurement() -> None:
    """Its neighbours in the batch are measured."""

    def answer(one: Picture) -> float:
        if one.prompt == "bad":
            raise RuntimeError("boom")
        return 1.0

    lane = Lane("told", Told(answer), batch_max=4)
    work = [asyncio.create_task(lane.measure(picture(prompt))) for prompt in ("a", "bad", "b")]
    await asyncio.sleep(0)
    running = asyncio.create_task(lane.run())
    first, bad, last = await asyncio.gather(*work, return_exceptions=True)
    assert isinstance(bad, RuntimeError)
    assert isinstance(first, Measured) and isinstance(last, Measured)
    running.cancel()


async def test_an_answer_of_the_wrong_length_is_no_answer() -> None:
    """Nobody gets another picture's value."""
    dimension = Told(lambda _: 1.0)
    dimension.measure = lambda pictures: [Measured(1.0)] * (len(pictures) + 1)  # type: ignore[method-assign]
    lane = Lane("told", dimension)
    running = asyncio.create_task(lane.run())
    with pytest.raises(ValueError, match="answered 2 of 1"):
        await lane.measure(picture("x"))
    running.cancel()


async def test_a_measurement_that_hangs_is_said_and_ends_the_lane() -> None:
    """A thread cannot be stopped; the process can."""
    go = threading.Event()
    lane = Lane("told", Told(lambda _: float(go.wait(20))), timeout_s=0.1)
    running = asyncio.create_task(lane.run())
    with pytest.raises(Stuck):
        await lane.measure(picture("x"))
    await until(running.done)
    assert isinstance(running.exception(), Stuck)
    go.set()


async def test_lanes_that_share_a_thread_fail_alone() -> None:
    """One breaks on every picture, the others' answers count; each was asked once with all that waited."""

    def broken(one: Picture) -> float:
        raise RuntimeError("boom")

    told = {name: Told(answer) for name, answer in (("a", lambda _: 1.0), ("b", broken), ("c", lambda _: 3.0))}
    lanes = [Lane(name, dimension) for name, dimension in told.items()]
    asked = [asyncio.create_task(lane.measure(picture(str(at)))) for at in range(2) for lane in lanes]
    await asyncio.sleep(0)
    running = asyncio.create_task(run_together(lanes))
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [one.value if isinstance(one, Measured) else str(one) for one in found] == [1.0, "boom", 3.0] * 2
    assert [told[name].batches for name in "abc"] == [[2], [2, 1, 1], [2]]
    running.cancel()


async def test_a_thread_that_hangs_is_said_by_the_lane_that_hangs() -> None:
    """Whoever waits behind it hears of it too."""
    go = threading.Event()
    hung = Lane("hung", Told(lambda _: float(go.wait(20))), timeout_s=0.1)
    behind = Lane("behind", Told(lambda _: 1.0), timeout_s=0.1)
    asked = [asyncio.create_task(lane.measure(picture("x"))) for lane in (hung, behind)]
    await asyncio.sleep(0)
    running = asyncio.create_task(run_together([hung, behind]))
    said = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(one, Stuck) and "hung took more than" in str(one) for one in said] == [True, True]
    await until(running.done)
    assert isinstance(running.exception(), Stuck)
    go.set()
