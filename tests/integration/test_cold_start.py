"""Every part is dead and comes back in an order that nobody chose: the line goes on unattended."""

from __future__ import annotations

import pytest

from tests.chaos.cold_start import rounds

pytestmark = pytest.mark.real
PATIENCE_S = 180.0
"""The figure of 60 s is for a machine of its own; here it counts that the line comes back by itself."""


async def test_any_order_of_starts_ends_in_a_working_line() -> None:
    """Broker, Postgres, S3 and six services, one order; ten orders are run by hand (`tests.chaos.cold_start 10 1`)."""
    assert len(await rounds(1, seed=2, within_s=PATIENCE_S)) == 1
