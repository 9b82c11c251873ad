"""A stream says everything once, in order, and ends after its last word."""

from __future__ import annotations

import asyncio

from giclee.intake.stream import LAST, Bell, Told, follow
from tests.kit.wait import until


class Stored:
    """Streams in a list."""

    def __init__(self) -> None:
        self.rows: list[Told] = []

    def say(self, event: str) -> None:
        self.rows.append(Told(len(self.rows) + 1, event, "{}"))

    async def told_after(self, number: int, after: int) -> tuple[list[Told], bool]:
        found = [row for row in self.rows if row.id > after]
        return found[:2], any(row.event == LAST for row in self.rows)


async def heard(stored: Stored, bell: Bell, after: int = 0) -> list[int]:
    async with asyncio.timeout(10):
        return [told.id async for told in follow(stored, bell, 1, after)]


async def test_a_stream_goes_on_where_it_broke_off() -> None:
    """What came before `Last-Event-ID` is not said again; what came after is said in order, page by page."""
    stored = Stored()
    for event in ("progress", "asset.approved", "progress", LAST):
        stored.say(event)

    assert await heard(stored, Bell()) == [1, 2, 3, 4]
    assert await heard(stored, Bell(), after=2) == [3, 4]
    assert await heard(stored, Bell(), after=4) == []
    assert await heard(stored, Bell(), after=99) == []


async def test_a_waiting_stream_is_woken_by_the_bell() -> None:
    """What is written while a stream waits reaches it, and the last word ends it and leaves no listener."""
    stored, bell = Stored(), Bell()
    listening = asyncio.create_task(heard(stored, bell))
    await until(lambda: bell.listeners(1))
    for event in ("progress", LAST):
        stored.say(event)
        bell.ring([1, 2])

    assert await listening == [1, 2]
    assert bell.listeners(1) == 0


async def test_what_another_replica_wrote_is_found_without_the_bell() -> None:
    """A bell that never rings only delays."""
    stored, bell = Stored(), Bell()
    listening = asyncio.create_task(heard(stored, bell))
    await until(lambda: bell.listeners(1))
    stored.say(LAST)

    assert await listening == [1]
