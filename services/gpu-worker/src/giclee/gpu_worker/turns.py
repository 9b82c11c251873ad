"""Whose turn it is among pools that share a device, or a provider's calls: by weight, and never too long without one.

Every pool has a meter of what it used, over its weight; of those that wait the one with the least goes next (start-time
fair queueing). A pool that comes back while another has its turn starts where that one started: it neither saved up
while it was away nor pays for what it used before, so what somebody waits for is next. While several pools wait without
a break, each gets its weight's part to within one turn. A pool without a turn for LATE_S and LATE_TURNS goes first
whatever the weights: bulk is late, never starved. Pure; `batch.py` and `calls.py` keep the lines of those who wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LATE_S, LATE_TURNS = 60.0, 10
"""A pool that has waited so long for its next turn, and seen so many of others, is next. Seconds alone would make a
slow device, or a provider with few calls a minute, go in turns of one and one."""


class Turns:
    """The turns at one thing that is shared. A pool that `weights` does not name weighs 1. Times in seconds."""

    def __init__(self, weights: Mapping[str, int] | None = None, *, late_s: float = LATE_S) -> None:
        self._weights, self._late_s = weights or {}, late_s
        self._used: dict[str, float] = {}
        self._since: dict[str, tuple[float, int]] = {}
        self._level, self._turn = 0.0, 0
        self._last: str | None = None

    def wait(self, pool: str, now: float) -> None:
        """Somebody of `pool` waits, from `now` on where nobody of it did before."""
        if pool not in self._since:
            self._since[pool] = now, self._turn
            if pool != self._last:  # else it has its turn now, and what it used of it counts
                self._used[pool] = self._level

    def next(self, pools: Iterable[str], now: float) -> str:
        """Whose turn is next of `pools`, each of which waits: the one without a turn for too long, else by weight."""
        longest = min(pools, key=lambda pool: (self._since[pool], pool))
        when, turn = self._since[longest]
        if now - when >= self._late_s and self._turn - turn >= LATE_TURNS:
            return longest
        return min(pools, key=lambda pool: (self._used[pool], -self._weight(pool), pool))

    def begin(self, pool: str, now: float, *, more: bool) -> None:
        """A turn of `pool` begins; `more` of it wait for another."""
        self._level, self._last = self._used[pool], pool
        self._turn += 1
        if more:
            self._since[pool] = now, self._turn
        else:
            del self._since[pool]

    def end(self, pool: str, used: float) -> None:
        """A turn of `pool` has ended and used so much (seconds of a device, or calls)."""
        self._used[pool] += used / self._weight(pool)

    def leave(self, pool: str) -> None:
        """Nobody of `pool` waits any more, and it had no turn."""
        self._since.pop(pool, None)

    def _weight(self, pool: str) -> int:
        return self._weights.get(pool, 1)
