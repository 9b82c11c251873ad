"""Waiting for a condition with a bound: the only wait that tests know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

STEP_S = 0.02


async def until(condition: Callable[[], Any | Awaitable[Any]], within_s: float = 10.0) -> Any:
    """The first true value of `condition`. Errors: AssertionError when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, (
            f"not true within {within_s:g} s: {getattr(condition, '__doc__', None) or condition}"
        )
        await asyncio.sleep(STEP_S)
