"""The way to providers that bill: so many at once and a minute, one call per ask, nobody asked who must not be."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from giclee.bus.errors import Transient
from giclee.gpu_worker.calls import Calls, caps_of
from giclee.gpu_worker.provider import Answer, Ask, Call, NotMade, Shape
from giclee.gpu_worker.rates import LEASE_S, MINUTE_S, Cap, Lease
from giclee.schemas.models import Model
from tests.kit.candidates import model
from tests.kit.shop import NAME, Paid, Shop
from tests.kit.wait import until

ROW = model("flux", provider=NAME, pool="hosted", price_usd="0.04")


class Clock:
    """Seconds that pass when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, 0.0

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds


async def _kept(job: str) -> None:
    return None


def ask(number: int = 0) -> Ask:
    shape = Shape(model=ROW.name, width=64, height=64, steps=8, guidance_scale=2.0)
    return Ask(shape=shape, prompt="a small red circle", seed=number, call=Call(key=f"key-{number}", note=_kept))


async def test_no_more_calls_are_out_than_the_provider_takes_at_once() -> None:
    """Nine asks, three at once; every ask gets its own image."""
    shop = Shop()
    shop.open.clear()
    paid = Paid(shop, concurrency=3)
    calls = Calls({NAME: paid})
    asked = [asyncio.create_task(calls.make(ROW, ask(number))) for number in range(9)]
    await until(lambda: len(paid.asked) == 3)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(paid.asked) == 3
    shop.open.set()
    answers = await asyncio.gather(*asked)
    assert [getattr(one, "job", None) for one in answers] == [
        next(sold.job for sold in shop.bill if sold.key == f"key-{number}") for number in range(9)
    ]


async def test_calls_a_minute_are_waited_for_on_the_loops_clock() -> None:
    """Two a minute: the third waits for a minute after the first; what was set aside is set aside then, not before."""
    clock, began = Clock(), []
    calls = Calls({NAME: Paid(Shop(), per_minute=2)}, now=lambda: clock.now, sleep=clock.sleep)

    async def begin() -> None:
        began.append(clock.now)

    for number in range(3):
        await calls.make(ROW, ask(number), begin)
    assert began == [0.0, 0.0, MINUTE_S + LEASE_S]


async def test_a_provider_that_asks_to_be_left_alone_is_and_the_chain_goes_on() -> None:
    """A 429 with Retry-After: 300 s is longer than anybody waits, 30 s is not."""
    clock, shop = Clock(), Shop()
    paid = Paid(shop)
    told = NotMade(outcome="rate", message="slow down", retry_after_s=300.0)
    make = paid.make

    async def busy(*_: object) -> list[Answer]:
        return [told]

    paid.make = busy  # type: ignore[method-assign, assignment]
    calls = Calls({NAME: paid}, patience_s=120, now=lambda: clock.now, sleep=clock.sleep)
    assert await calls.make(ROW, ask()) == told
    paid.make = make  # type: ignore[method-assign]
    refused = await calls.make(ROW, ask(), _never)
    assert isinstance(refused, NotMade) and (refused.outcome, refused.code) == ("rate", "call_rate")
    clock.now = 270.0
    assert not isinstance(await calls.make(ROW, ask()), NotMade)
    assert (clock.slept, len(shop.bill)) == (30.0, 1)


async def _never() -> NotMade | None:
    raise AssertionError("nobody is asked, so nothing is set aside")


async def test_who_must_not_call_does_not_and_frees_its_place() -> None:
    """What `begin` says is the answer; one place is enough for the next."""
    paid = Paid(Shop(usd=Decimal(1)), concurrency=1)
    calls = Calls({NAME: paid})
    cap = NotMade(outcome="budget", message="no", code="spend_cap")

    async def refuse() -> NotMade:
        return cap

    assert await calls.make(ROW, ask(), refuse) is cap
    assert not paid.asked
    assert not isinstance(await calls.make(ROW, ask()), NotMade)


# ---- pools that share a provider ----------------------------------------------------------------

NOW, BULK = (model(name, provider=NAME, pool=name, location="flux", price_usd="0.04") for name in ("now", "bulk"))


def asking(calls: Calls, row: Model, count: int) -> list[asyncio.Task[Answer]]:
    shape = Shape(model=row.name, width=64, height=64, steps=8, guidance_scale=2.0)
    return [
        asyncio.create_task(
            calls.make(
                row,
                Ask(shape=shape, prompt="a ring", seed=at, call=Call(key=f"{row.pool}-{at}", note=_kept)),
            )
        )
        for at in range(count)
    ]


async def test_the_next_place_at_a_provider_is_that_of_what_somebody_waits_for() -> None:
    """Two places, both held by bulk, 40 more of bulk in line: the two that come then are the next two."""
    shop = Shop()
    shop.open.clear()
    paid = Paid(shop, concurrency=2)
    calls = Calls({NAME: paid}, weights={"now": 4})
    bulk = asking(calls, BULK, 42)
    await until(lambda: len(paid.asked) == 2)
    now = asking(calls, NOW, 2)
    await asyncio.sleep(0)
    shop.open.set()
    await asyncio.gather(*bulk, *now)
    assert [one.key.partition("-")[0] for one in paid.asked[:4]] == ["bulk", "bulk", "now", "now"]


async def test_places_at_a_provider_are_shared_by_weight() -> None:
    """100 calls while both pools always wait: 80 and 20, to within one."""
    paid = Paid(Shop(), concurrency=1)
    calls = Calls({NAME: paid}, weights={"now": 4})
    waiting = [*asking(calls, BULK, 100), *asking(calls, NOW, 100)]
    await until(lambda: len(paid.asked) >= 100)
    for one in waiting:
        one.cancel()
    whose = [one.key.partition("-")[0] for one in paid.asked[:100]]
    assert abs(whose.count("bulk") - 20) <= 1


async def test_what_somebody_waits_for_does_not_stand_behind_bulk_that_waits_for_the_next_minute() -> None:
    """Two calls a minute, places enough: of the second minute's two the one that came last is the first."""
    clock, paid, waits = Clock(), Paid(Shop(), per_minute=2), asyncio.Event()

    async def sleep(seconds: float) -> None:
        await waits.wait()
        clock.now += seconds

    calls = Calls({NAME: paid}, patience_s=1e6, weights={"now": 4}, now=lambda: clock.now, sleep=sleep)
    bulk = asking(calls, BULK, 5)
    await until(lambda: len(paid.asked) == 2)
    now = asking(calls, NOW, 1)
    await asyncio.sleep(0)
    waits.set()
    await asyncio.gather(*bulk, *now)
    assert [one.key.partition("-")[0] for one in paid.asked] == ["bulk", "bulk", "now", "bulk", "bulk", "bulk"]
    assert clock.now == 2 * (MINUTE_S + LEASE_S)


async def test_rows_of_one_location_share_the_cap_of_their_rows_and_others_go_on() -> None:
    """Three calls a minute of one model, whichever row names it; another model of the provider waits for nobody."""
    clock, paid = Clock(), Paid(Shop())
    calls = Calls({NAME: paid}, patience_s=10, now=lambda: clock.now, sleep=clock.sleep)
    capped = [row.model_copy(update={"per_minute": 3}) for row in (NOW, BULK)]
    answers = await asyncio.gather(*(one for row in capped for one in asking(calls, row, 2)))
    assert [getattr(one, "code", "made") for one in answers].count("call_rate") == 1
    other = model("sdxl", provider=NAME, pool="bulk", location="sdxl", per_minute=1)
    assert not isinstance((await asyncio.gather(*asking(calls, other, 1)))[0], NotMade)


def test_a_call_counts_under_its_rows_cap_and_its_providers() -> None:
    """Under the name of the location that every worker gives it, wherever its file lies there."""
    paid = Paid(Shop(), per_minute=600)
    here = BULK.model_copy(update={"per_minute": 60, "location": "/srv/giclee/schnell.json"})
    there = NOW.model_copy(update={"per_minute": 60, "location": "/opt/schnell.json"})
    assert caps_of(here, paid.capabilities) == caps_of(there, paid.capabilities)
    assert caps_of(here, paid.capabilities) == (Cap("shop schnell.json", 60), Cap("shop", 600))
    assert caps_of(BULK, Paid(Shop()).capabilities) == ()


async def test_an_outage_of_what_counts_calls_reaches_all_who_wait_and_ends_with_it() -> None:
    """Nobody calls uncounted, nobody hangs."""
    away = True

    class Rates:
        async def lease(self, cap: Cap, wanted: int) -> Lease:
            if away:
                raise Transient("the database is away")
            return Lease(wanted, 0.0)

    paid = Paid(Shop(), per_minute=60)
    calls = Calls({NAME: paid}, rates=Rates())
    found = await asyncio.gather(*asking(calls, BULK, 5), return_exceptions=True)
    assert [type(one) for one in found] == [Transient] * 5 and not paid.asked
    away = False
    assert not any(isinstance(one, NotMade) for one in await asyncio.gather(*asking(calls, BULK, 5)))


async def test_who_is_cut_off_when_let_in_frees_its_place() -> None:
    """One place: cancelled in the very moment, in line, and at work; the next one is served each time."""
    shop = Shop()
    paid = Paid(shop, concurrency=1)
    calls = Calls({NAME: paid})
    for steps in range(8):
        shop.open.clear()
        cut, waiting = asking(calls, BULK, 2)
        for _ in range(steps):
            await asyncio.sleep(0)
        cut.cancel()
        waiting.cancel()
        await asyncio.wait([cut, waiting])
        shop.open.set()
        (answer,) = await asyncio.gather(*asking(calls, BULK, 1))
        assert not isinstance(answer, NotMade)


async def test_who_gave_up_in_line_saved_nothing_up() -> None:
    """Bulk waited and went away, the other pool made 40 calls; when both come, four fifths are the other's."""
    shop = Shop()
    shop.open.clear()
    paid = Paid(shop, concurrency=1)
    calls = Calls({NAME: paid}, weights={"now": 4})
    first, *gone = *asking(calls, NOW, 1), *asking(calls, BULK, 3)
    await until(lambda: len(paid.asked) == 1)
    for one in gone:
        one.cancel()
    await asyncio.wait(gone)
    shop.open.set()
    await asyncio.gather(first, *asking(calls, NOW, 39))
    paid.asked.clear()
    waiting = [*asking(calls, BULK, 50), *asking(calls, NOW, 50)]
    await until(lambda: len(paid.asked) >= 50)
    for one in waiting:
        one.cancel()
    whose = [one.key.partition("-")[0] for one in paid.asked[:50]]
    assert abs(whose.count("bulk") - 10) <= 1


async def test_calls_that_were_leased_and_not_made_in_time_are_asked_for_again() -> None:
    """Three calls lease four; the fourth comes when the lease is over."""
    clock, asked = Clock(), list[float]()

    class Rates:
        async def lease(self, cap: Cap, wanted: int) -> Lease:
            asked.append(clock.now)
            return Lease(wanted, 0.0)

    calls = Calls({NAME: Paid(Shop(), per_minute=600)}, rates=Rates(), now=lambda: clock.now, sleep=clock.sleep)
    for number in range(3):
        await calls.make(ROW, ask(number))
    assert asked == [0.0] * 3
    clock.now = LEASE_S
    await calls.make(ROW, ask(3))
    assert asked[3:] == [LEASE_S]
