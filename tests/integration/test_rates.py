"""Calls a minute that workers share, on a real Postgres: never more than allowed, whoever races and whoever dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest

from giclee.bus import database as databases
from giclee.bus.errors import Transient
from giclee.bus.settings import DatabaseSettings
from giclee.gpu_worker.calls import Calls
from giclee.gpu_worker.claims import SCHEMA
from giclee.gpu_worker.provider import Answer, Ask, Call, NotMade, Shape
from giclee.gpu_worker.rates import LEASE_S, MINUTE_S, Cap, Lease, SharedRates
from giclee.schemas.models import Model
from tests.contract.rates_suite import Advance, RatesSuite
from tests.kit.candidates import model
from tests.kit.shop import NAME, Paid, Shop
from tests.kit.wait import until

pytestmark = pytest.mark.real
PASSES = """
UPDATE gpu_worker.rates
SET until = (SELECT coalesce(array_agg(u - make_interval(secs => $1) ORDER BY u), '{}') FROM unnest(until) AS u)
"""
ROW = model("flux", provider=NAME, pool="hosted", price_usd="0.04", per_minute=30)


@pytest.fixture
async def pools(database: str) -> AsyncIterator[list[databases.Pool]]:
    """The connections of four workers."""
    async with AsyncExitStack() as opened:
        settings = DatabaseSettings(url=database, pool_max=3)
        yield [await opened.enter_async_context(databases.connect(settings, SCHEMA)) for _ in range(4)]


class TestSharedRates(RatesSuite):
    @pytest.fixture
    def rates(self, pools: list[databases.Pool]) -> SharedRates:
        return SharedRates(pools[0])

    @pytest.fixture
    def advance(self, pools: list[databases.Pool]) -> Advance:
        async def pass_by(seconds: float) -> None:
            await pools[0].execute(PASSES, seconds)

        return pass_by


class World:
    """A clock that four workers and their database share: it runs, and jumps when told, between two leases."""

    def __init__(self, pool: databases.Pool) -> None:
        self._pool, self._jumped_s = pool, 0.0
        self._asking, self._may_ask, self._jumped = 0, asyncio.Event(), asyncio.Event()
        self._may_ask.set()

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self._jumped_s

    async def sleep(self, seconds: float) -> None:
        until_s = self.now() + seconds
        while (left_s := until_s - self.now()) > 0:
            jumped = self._jumped
            try:
                async with asyncio.timeout(left_s):
                    await jumped.wait()
            except TimeoutError:
                return

    async def jump(self, seconds: float) -> None:
        self._may_ask.clear()
        await until(lambda: self._asking == 0)
        await self._pool.execute(PASSES, seconds)
        self._jumped_s += seconds
        self._jumped.set()
        self._jumped = asyncio.Event()
        self._may_ask.set()

    async def lease(self, rates: SharedRates, cap: Cap, wanted: int) -> Lease:
        await self._may_ask.wait()
        self._asking += 1
        try:
            return await rates.lease(cap, wanted)
        finally:
            self._asking -= 1


class OfWorld:
    """One worker's way to the shared rates, which does not ask while the clock jumps."""

    def __init__(self, world: World, rates: SharedRates) -> None:
        self._world, self._rates, self.asked = world, rates, 0

    async def lease(self, cap: Cap, wanted: int) -> Lease:
        self.asked += 1
        return await self._world.lease(self._rates, cap, wanted)


class Counting(Paid):
    """A provider that notes when it is called."""

    def __init__(self, world: World, heard: list[float]) -> None:
        super().__init__(Shop(), concurrency=8)
        self._world, self._heard = world, heard

    async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        self._heard.append(self._world.now())
        return [NotMade(outcome="unusable", message="counted")]


async def _kept(job: str) -> None:
    return None


def ask(number: int) -> Ask:
    shape = Shape(model=ROW.name, width=64, height=64, steps=8, guidance_scale=2.0)
    return Ask(shape=shape, prompt="a small red circle", seed=number, call=Call(key=f"key-{number}", note=_kept))


async def test_four_workers_that_race_stay_within_one_cap_and_use_it(pools: list[databases.Pool]) -> None:
    """160 calls under a cap of 30, time in leaps of up to 8 s: no minute has 31, and it is over in under 7 minutes."""
    world, heard, chance = World(pools[0]), list[float](), random.Random(11)
    places = [OfWorld(world, SharedRates(pool)) for pool in pools]
    workers = [
        Calls({NAME: Counting(world, heard)}, patience_s=1e6, rates=place, now=world.now, sleep=world.sleep)
        for place in places
    ]
    began = world.now()
    calls = [asyncio.create_task(workers[number % 4].make(ROW, ask(number))) for number in range(160)]
    while not all(one.done() for one in calls):
        before = len(heard)
        await world.jump(chance.choice((0.5, 2.0, 8.0)))
        for _ in range(3):  # whoever could call now has
            await asyncio.wait(calls, timeout=0.01)
        assert world.now() - began < 7 * MINUTE_S, f"{before} calls were heard of so far"
    heard.sort()
    assert len(heard) == 160
    assert all(later - first >= MINUTE_S - 0.05 for first, later in zip(heard, heard[30:], strict=False))


async def test_the_database_is_not_asked_for_every_call(pools: list[databases.Pool]) -> None:
    """600 a minute: 120 calls one after the other take leases of up to ten."""
    world, heard = World(pools[0]), list[float]()
    place = OfWorld(world, SharedRates(pools[0]))
    calls = Calls({NAME: Counting(world, heard)}, rates=place, now=world.now, sleep=world.sleep)
    fast = ROW.model_copy(update={"per_minute": 600})
    for number in range(120):
        await calls.make(fast, ask(number))
    assert len(heard) == 120 and place.asked <= 40


async def test_a_worker_that_dies_loses_its_lease_and_no_more(pools: list[databases.Pool]) -> None:
    """Ten calls leased and never made: 590 are left for the others, and a minute after the lease's end all 600."""
    cap = Cap("shop", 600)
    assert (await SharedRates(pools[0]).lease(cap, cap.lease_max)).calls == 10
    other = SharedRates(pools[1])
    assert (await other.lease(cap, 600)).calls == 590
    await pools[0].execute(PASSES, MINUTE_S + LEASE_S)
    assert (await other.lease(cap, 600)).calls == 600


async def test_without_the_database_nobody_is_called(pools: list[databases.Pool]) -> None:
    """An outage is for whoever asked to wait out; it is not an answer that a chain goes on after."""
    heard = list[float]()
    world = World(pools[1])
    calls = Calls({NAME: Counting(world, heard)}, rates=SharedRates(pools[0]), now=world.now, sleep=world.sleep)
    pools[0].terminate()
    found = await asyncio.gather(*(calls.make(ROW, ask(number)) for number in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [Transient] * 3 and not heard
