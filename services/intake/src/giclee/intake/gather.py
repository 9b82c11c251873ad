"""Gathers concurrent calls into one transaction: whoever comes while a batch is written shares the next one.

A transaction per event would cost more than everything else of this stage. An error that may be one event's
fault makes the batch be tried again one by one, so that no event fails for another; an outage is everybody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from giclee.bus.errors import Transient

Asked = TypeVar("Asked")


class Gathered(Generic[Asked]):
    """Calls of `write(batch)`, one at a time, each with at most `batch_max` of what waits, in order."""

    def __init__(self, write: Callable[[Sequence[Asked]], Awaitable[None]], batch_max: int) -> None:
        self._write = write
        self._batch_max = batch_max
        self._waiting: list[tuple[Asked, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, asked: Asked) -> None:
        """Return once this one is written. Errors: those of `write`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await future

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._batch_max], self._waiting[self._batch_max :]
            await self._settle([one for one in batch if not one[1].done()])

    async def _settle(self, batch: Sequence[tuple[Asked, asyncio.Future[None]]]) -> None:
        if not batch:
            return
        writing = asyncio.ensure_future(self._write([asked for asked, _ in batch]))
        await asyncio.wait({writing})  # its error belongs to those who wait, not to this loop
        error = writing.exception()
        if error is not None and len(batch) > 1 and not (isinstance(error, Transient) and error.scope == "dependency"):
            for one in batch:
                await self._settle([one])
            return
        for _, future in batch:
            if future.done():  # its deadline passed meanwhile
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
