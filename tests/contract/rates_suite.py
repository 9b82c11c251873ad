"""What every place that leases calls must do: never more a minute than allowed, and give back what was not used."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from giclee.gpu_worker.rates import LEASE_S, MINUTE_S, Cap, Rates

Advance = Callable[[float], Awaitable[None]]


class RatesSuite:
    """`rates` is the place, `advance` lets seconds pass for it."""

    @pytest.mark.parametrize("per_minute", [1, 7, 60])
    async def test_no_minute_has_more_than_allowed_wherever_in_its_lease_a_call_is_made(
        self, rates: Rates, advance: Advance, per_minute: int
    ) -> None:
        """Leases at random times, each call made at the start or at the very end of its lease."""
        chance, cap, now = random.Random(per_minute), Cap("shop", per_minute), 0.0
        made: list[float] = []
        for _ in range(120):
            lease = await rates.lease(cap, chance.randint(1, 5))
            made += [now + LEASE_S * chance.choice((0.0, 1.0)) for _ in range(lease.calls)]
            step_s = chance.choice((0.0, 0.5, 0.5 + lease.wait_s, 20.0))
            await advance(step_s)
            now += step_s
        made.sort()
        assert len(made) > per_minute
        windows = zip(made, made[per_minute:], strict=False)  # a database runs on a little between two leases
        assert all(later - first >= MINUTE_S - 0.05 for first, later in windows)

    async def test_what_is_not_there_is_there_when_it_says(self, rates: Rates, advance: Advance) -> None:
        """A cap of 3: three of five now, none then, and two once the first lease counts no longer."""
        cap = Cap("shop", 3)
        assert await rates.lease(cap, 2) == (2, 0.0)
        await advance(10.0)
        assert await rates.lease(cap, 3) == (1, 0.0)
        calls, wait_s = await rates.lease(cap, 1)
        assert calls == 0 and wait_s == pytest.approx(MINUTE_S + LEASE_S - 10.0, abs=2.0)
        await advance(wait_s - 3.0)
        assert (await rates.lease(cap, 1)).calls == 0
        await advance(3.1)
        assert (await rates.lease(cap, 5)).calls == 2

    async def test_caps_of_other_names_are_others(self, rates: Rates) -> None:
        await rates.lease(Cap("shop", 1), 1)
        assert (await rates.lease(Cap("shop flux", 1), 1)).calls == 1
        assert (await rates.lease(Cap("shop", 1), 1)).calls == 0

    async def test_a_cap_that_was_lowered_holds_at_once(self, rates: Rates) -> None:
        """What was leased under the old one counts under the new one."""
        await rates.lease(Cap("shop", 100), 50)
        assert (await rates.lease(Cap("shop", 40), 1)).calls == 0
        assert (await rates.lease(Cap("shop", 60), 20)).calls == 10

    async def test_of_many_that_ask_at_once_nobody_gets_what_another_has(self, rates: Rates) -> None:
        """200 ask for 3 of a hundred: a hundred it is."""
        leases = await asyncio.gather(*(rates.lease(Cap("shop", 100), 3) for _ in range(200)))
        assert sum(lease.calls for lease in leases) == 100
