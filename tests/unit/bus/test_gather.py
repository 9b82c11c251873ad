"""Concurrent calls share a batch; nobody fails for another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from giclee.bus.errors import Poison, Transient
from giclee.bus.gather import Gathered


class Writer:
    """Doubles numbers; 13 is poison, 500 an outage. Waits for `free` and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = asyncio.Event()

    async def write(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        await self.free.wait()
        if 500 in batch:
            raise Transient("away")
        if 13 in batch:
            raise Poison("unlucky")
        return [2 * one for one in batch]


async def test_who_comes_while_a_batch_is_written_shares_the_next() -> None:
    """The first goes alone; the others go together, in order, a few at a time."""
    writer = Writer()
    gathered = Gathered(writer.write, at_most=3)
    calls = [asyncio.create_task(gathered(1))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    calls += [asyncio.create_task(gathered(n)) for n in (2, 3, 4, 5)]
    await asyncio.sleep(0)
    writer.free.set()

    assert await asyncio.gather(*calls) == [2, 4, 6, 8, 10]
    assert writer.batches == [[1], [2, 3, 4], [5]]


async def test_an_error_belongs_to_its_caller() -> None:
    """A batch with one poisonous member is written again one by one."""
    writer = Writer()
    writer.free.set()
    gathered = Gathered(writer.write, at_most=10)
    found = await asyncio.gather(*(gathered(n) for n in (1, 13, 3)), return_exceptions=True)

    assert found[::2] == [2, 6]
    assert isinstance(found[1], Poison)


async def test_an_outage_belongs_to_all() -> None:
    """An outage is not tried again one by one; and the next batch is written as usual."""
    writer = Writer()
    writer.free.set()
    gathered = Gathered(writer.write, at_most=10)
    found = await asyncio.gather(*(gathered(n) for n in (1, 500)), return_exceptions=True)

    assert all(isinstance(one, Transient) for one in found)
    assert len(writer.batches) == 1
    assert await gathered(4) == 8


async def test_a_caller_that_gave_up_disturbs_nobody() -> None:
    """Its place in the batch is answered to no one."""
    writer = Writer()
    gathered = Gathered(writer.write, at_most=10)
    first, second = asyncio.create_task(gathered(1)), asyncio.create_task(gathered(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    writer.free.set()

    assert await second == 4
    with pytest.raises(asyncio.CancelledError):
        await first
