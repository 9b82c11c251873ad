"""Time and turns: an event loop whose clock is set by hand, and the turnstile before every effect.

An effect is what leaves a process: a statement, a send, a commit, a blob. Each waits at the turnstile until the
scheduler lets it through; between two effects a process computes, and that takes no time. So one seed is one
order of effects.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


class SeededLoop(asyncio.SelectorEventLoop):
    """Time stands still unless `pass_time` is called; what others do in threads is done at once."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        super().__init__()
        self.set_task_factory(_of_its_process)  # type: ignore[arg-type]

    def time(self) -> float:
        return self.now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        async def at_once() -> Any:
            return func(*args)

        return self.create_task(at_once())

    def is_idle(self) -> bool:
        """Whether nothing is left to run but what waits for a timer, a reply or the caller."""
        return not self._ready  # type: ignore[attr-defined]

    def until_timer_s(self) -> float | None:
        """Seconds until the next timer; None without one."""
        due = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        return max(min(due) - self.now_s, 0.0) if due else None

    def pass_time(self, seconds: float) -> None:
        """Let time pass; timers that come due run one after the other when the loop goes on."""
        self.now_s += seconds


@dataclass(eq=False)
class Life:
    """One life of a process: from its start until it is killed or the history ends."""

    name: str
    number: int = 0
    dead: bool = False
    frozen_for: int = 0
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def title(self) -> str:
        return f"{self.name}.{self.number}"


_LIFE: ContextVar[Life | None] = ContextVar("life", default=None)
_FREE: ContextVar[bool] = ContextVar("free", default=False)


def _of_its_process(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(coro, loop=loop, **more)
    life = _LIFE.get()
    if life is not None:
        life.tasks.add(task)
        task.add_done_callback(life.tasks.discard)
    return task


@contextmanager
def living(life: Life) -> Iterator[None]:
    """What is created inside belongs to this life, and so does what that creates."""
    token = _LIFE.set(life)
    try:
        yield
    finally:
        _LIFE.reset(token)


def alone(work: Coroutine[Any, Any, Any]) -> None:
    """Let it run beside the scheduler; how it ends, a death included, is its own matter."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


@dataclass(eq=False)
class Effect:
    """Somebody before the turnstile since turn `since`. `loses_reply`: it happens, and its doer is not told."""

    life: Life
    name: str
    go: asyncio.Future[None]
    since: int
    loses_reply: bool = False

    def rank(self) -> tuple[int, str, str]:
        """An order that does not depend on which of two replies came first."""
        return self.since, self.life.title, self.name


class LostReply(Exception):
    """The effect took place; its answer did not arrive. Adapters say it in their own words."""


class Turnstile:
    """Everybody who is about to do something, and everybody who is doing it."""

    def __init__(self, loop: SeededLoop) -> None:
        self._loop = loop
        self.waiting: list[Effect] = []
        self.flying: set[object] = set()
        self.trace: list[str] = []
        """One line per turn."""

    @asynccontextmanager
    async def effect(self, name: str) -> AsyncIterator[None]:
        """Around an effect of the process that runs. Errors: CancelledError for the dead, LostReply."""
        life = _LIFE.get()
        if life is None or _FREE.get():
            async with self.flight():
                yield
            return
        if life.dead:
            raise asyncio.CancelledError(f"{life.title} is dead")
        mine = Effect(life, name, self._loop.create_future(), len(self.trace))
        self.waiting.append(mine)
        try:
            await mine.go
        finally:
            if mine in self.waiting:
                self.waiting.remove(mine)
        async with self.flight():
            yield
        if mine.loses_reply:
            raise LostReply(name)

    @asynccontextmanager
    async def flight(self) -> AsyncIterator[None]:
        """Around what must come back before anybody's next turn, without being a turn itself."""
        token = object()
        self.flying.add(token)
        free = _FREE.set(True)
        try:
            yield
        finally:
            _FREE.reset(free)
            self.flying.discard(token)

    def turns(self) -> list[Effect]:
        """Who could be let through, those that wait longest first; the frozen could not."""
        return sorted((one for one in self.waiting if not one.life.frozen_for), key=Effect.rank)

    def let_through(self, effect: Effect) -> None:
        self.waiting.remove(effect)
        self.trace.append(f"{self._loop.now_s:.3f} {effect.life.title} {effect.name}")
        effect.go.set_result(None)


async def kill(life: Life) -> None:
    """End a life as kill -9 does: nothing it was about to do is done. Its tasks are gone when this returns."""
    life.dead = True
    while life.tasks:
        for task in tuple(life.tasks):
            task.cancel()
        await asyncio.sleep(0)


@contextmanager
def seeded_time() -> Iterator[SeededLoop]:
    """A loop whose clock is also `time.monotonic`, for those who measure with that."""
    loop, before = SeededLoop(), time.monotonic
    time.monotonic = loop.time
    try:
        yield loop
    finally:
        time.monotonic = before
        loop.close()
