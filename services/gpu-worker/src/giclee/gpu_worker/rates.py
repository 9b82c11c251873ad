"""How many calls a minute there may be: a provider counts its account's calls, whoever makes them, so workers share.

A worker leases a few calls at a time from a row of the database and makes them within LEASE_S, or not at all. A lease
counts until a minute after its end, so no minute of all workers together has more calls than allowed, and what a worker
that dies had leased is lost for that long. `OwnRates` keeps the same rules for one process alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from giclee.bus import database
from giclee.bus.database import Pool

MINUTE_S = 60.0
LEASE_S = 2.0
"""How long leased calls may be made. Longer would ask the database less often; of a minute's calls one in thirty is
the price of this."""

queries = database.Queries(Path(__file__).with_name("rates.sql"))


class Lease(NamedTuple):
    """`calls` that may be made within LEASE_S of asking; where it is none, try again in `wait_s` seconds."""

    calls: int
    wait_s: float


class Cap(NamedTuple):
    """At most `per_minute` calls under `name`, which is the same in every worker."""

    name: str
    per_minute: int

    @property
    def lease_max(self) -> int:
        """Calls leased at once: a second's worth of the cap, at least one. More could lapse with one worker."""
        return max(1, self.per_minute // 60)


class Rates(Protocol):
    """Where calls are leased."""

    async def lease(self, cap: Cap, wanted: int) -> Lease:
        """At most `wanted` calls. Errors: Transient when nobody can say; then no call is made."""
        ...


class SharedRates:
    """Those of every worker on this database, on its clock."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def lease(self, cap: Cap, wanted: int) -> Lease:
        with database.translated():
            row = await self._pool.fetchrow(queries.lease_calls, cap.name, cap.per_minute, wanted, LEASE_S)
        assert row is not None, "the statement returns the row that it made or changed"
        return Lease(row["granted"], row["wait_s"])


class OwnRates:
    """Those of this process alone. `now` is a clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._leases: dict[str, deque[tuple[float, int]]] = {}

    async def lease(self, cap: Cap, wanted: int) -> Lease:
        now, leases = self._now(), self._leases.setdefault(cap.name, deque())
        while leases and leases[0][0] <= now:
            leases.popleft()
        calls = max(0, min(wanted, cap.per_minute - sum(calls for _, calls in leases)))
        if calls == 0:
            return Lease(0, leases[0][0] - now if leases else 0.0)
        leases.append((now + LEASE_S + MINUTE_S, calls))
        return Lease(calls, 0.0)
