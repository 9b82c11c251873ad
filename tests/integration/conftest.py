"""The replay service and the publisher, in this process on a real database, and the lab, as several files want them.

Their modules are imported where they are used: tests of models lie beside, and their environment has no services.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

from giclee.bus import database as bus_database
from giclee.bus.memory import MemoryTransport
from giclee.bus.settings import DatabaseSettings

if TYPE_CHECKING:
    import httpx2

    from tests.kit.lab import Lab
    from tests.kit.ops import Ops
    from tests.unit.publisher.desk import Desk


@pytest.fixture
async def ops(database: str) -> AsyncIterator[Ops]:
    """The service on the memory transport; nothing of it runs yet."""
    from tests.kit.ops import Ops

    async with bus_database.connect(DatabaseSettings(url=database, pool_max=12), schema="replay") as pool:
        yield Ops(MemoryTransport(), pool)


@pytest.fixture
async def indexed(ops: Ops) -> AsyncIterator[Ops]:
    """The service with its index and its runs at work."""
    from tests.kit.ops import working

    async with working(ops.index.run, ops.runs.work):
        yield ops


@pytest.fixture
async def http(ops: Ops) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of its API."""
    from tests.kit.ops import client

    async with client(ops.app) as made:
        yield made


@pytest.fixture
async def publisher(database: str) -> AsyncIterator[Desk]:
    """One replica of the publisher."""
    from tests.unit.publisher.desk import desk

    async with desk(database) as one:
        yield one


@pytest.fixture(scope="module")
def _lab() -> Iterator[Lab]:
    from tests.kit import lab as labs

    with labs.running() as running:
        yield running


@pytest.fixture
async def lab(_lab: Lab) -> AsyncIterator[Lab]:
    """The provider lab, as at its start."""
    await _lab.clear()
    yield _lab
