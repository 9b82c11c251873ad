"""Gathers concurrent calls into one: whoever comes while a batch is written shares the next one.

For stores: a transaction per event would cost more than everything else. An error that may be one caller's
fault makes the batch be tried again one by one, so that nobody fails for another; an outage is everybody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from giclee.bus.errors import Transient

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Gathered(Generic[Asked, Answer]):
    """Calls of `write(batch)`, at most one at a time, each with at most `at_most` of what is waiting, in order.

    A batch waits `linger_s` seconds for company before it is written.
    """

    def __init__(
        self, write: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]], at_most: int, *, linger_s: float = 0.0
    ) -> None:
        self._write = write
        self._at_most = at_most
        self._linger_s = linger_s
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, asked: Asked) -> Answer:
        """What `write` answers to this one. Errors: those of `write`."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        return await future

    async def _write_all(self) -> None:
        while self._waiting:
            if len(self._waiting) < self._at_most:
                await asyncio.sleep(self._linger_s)
            batch, self._waiting = self._waiting[: self._at_most], self._waiting[self._at_most :]
            await self._answer([one for one in batch if not one[1].done()])

    async def _answer(self, batch: Sequence[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        if not batch:
            return
        writing = asyncio.ensure_future(self._write([asked for asked, _ in batch]))
        await asyncio.wait({writing})  # its error belongs to those who wait, not to this loop
        error = writing.exception()
        if error is None:
            for (_, future), answer in zip(batch, writing.result(), strict=True):
                if not future.done():
                    future.set_result(answer)
        elif len(batch) > 1 and not (isinstance(error, Transient) and error.scope == "dependency"):
            for one in batch:
                await self._answer([one])
        else:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
