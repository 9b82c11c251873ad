"""The replay service as several files of tests want it: in this process, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from giclee.bus import database as bus_database
from giclee.bus.memory import MemoryTransport
from giclee.bus.settings import DatabaseSettings
from tests.kit.ops import Ops, client, working


@pytest.fixture
async def ops(database: str) -> AsyncIterator[Ops]:
    """The service on the memory transport; nothing of it runs yet."""
    async with bus_database.connect(DatabaseSettings(url=database, pool_max=12), schema="replay") as pool:
        yield Ops(MemoryTransport(), pool)


@pytest.fixture
async def indexed(ops: Ops) -> AsyncIterator[Ops]:
    """The service with its index and its runs at work."""
    async with working(ops.index.run, ops.runs.work):
        yield ops


@pytest.fixture
async def http(ops: Ops) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of its API."""
    async with client(ops.app) as made:
        yield made
