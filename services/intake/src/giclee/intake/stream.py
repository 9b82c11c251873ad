"""A caller's event stream: what is stored after an id, then whatever comes, until the request has closed.

Rows are the truth; the bell only saves waiting. It rings in the process that wrote, another replica's rows
are found by the poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple, Protocol

POLL_S = 1.0
LAST = "request.closed"


class Told(NamedTuple):
    """One event of a stream; `document` is JSON."""

    id: int
    event: str
    document: str


class Rows(Protocol):
    """Where streams are stored."""

    async def told_after(self, number: int, after: int) -> tuple[list[Told], bool]:
        """What request `number` said after an id, and whether it had said its last word before that was read."""
        ...


class Bell:
    """Wakes the streams of requests that something was written about."""

    def __init__(self) -> None:
        self._waiting: dict[int, set[asyncio.Event]] = {}

    def ring(self, numbers: Iterable[int]) -> None:
        """Wake every stream of these requests."""
        for number in numbers:
            for event in self._waiting.get(number, ()):
                event.set()

    def listeners(self, number: int) -> int:
        """How many streams wait for a request."""
        return len(self._waiting.get(number, ()))

    def listen(self, number: int) -> asyncio.Event:
        """An event that `ring` sets; give it back with `leave`."""
        event = asyncio.Event()
        self._waiting.setdefault(number, set()).add(event)
        return event

    def leave(self, number: int, event: asyncio.Event) -> None:
        waiting = self._waiting.get(number, set())
        waiting.discard(event)
        if not waiting:
            self._waiting.pop(number, None)


async def follow(rows: Rows, bell: Bell, number: int, after: int) -> AsyncIterator[Told]:
    """Everything after id `after`; ends after request.closed. Errors: Transient when the database is away."""
    woken = bell.listen(number)
    try:
        while True:
            woken.clear()
            found, ended = await rows.told_after(number, after)
            for told in found:
                yield told
                after = told.id
                if told.event == LAST:
                    return
            if ended and not found:
                return
            if not found:
                await _either(woken)
    finally:
        bell.leave(number, woken)


async def _either(woken: asyncio.Event) -> None:
    """Until woken, at most POLL_S."""
    try:
        async with asyncio.timeout(POLL_S):
            await woken.wait()
    except TimeoutError:
        return
