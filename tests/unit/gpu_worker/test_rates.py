"""Calls a minute of one process."""

from __future__ import annotations

import pytest

from giclee.gpu_worker.rates import OwnRates
from tests.contract.rates_suite import Advance, RatesSuite


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    async def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestOwnRates(RatesSuite):
    @pytest.fixture
    def rates(self, clock: Clock) -> OwnRates:
        return OwnRates(lambda: clock.now)

    @pytest.fixture
    def advance(self, clock: Clock) -> Advance:
        return clock.advance
