"""The way to providers that bill: so many at once and a minute, one call per ask, nobody asked who must not be."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

import pytest

from giclee.gpu_worker.calls import MINUTE_S, Bucket, Calls
from giclee.gpu_worker.provider import Answer, Ask, Call, NotMade, Shape
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


@pytest.mark.parametrize("per_minute", [1, 4, 600])
def test_no_minute_has_more_calls_than_allowed_and_none_is_held_back_longer_than_needed(per_minute: int) -> None:
    """3,000 asks at random times: every window of a minute fits, and each call is as early as that lets it be."""
    chance, bucket = random.Random(per_minute), Bucket(per_minute)
    now = 0.0
    times: list[float] = []
    for _ in range(3000):
        now += chance.expovariate(per_minute / MINUTE_S) * chance.choice((0.0, 0.2, 3.0))
        wait_s = bucket.take(now, patience_s=1e9)
        assert wait_s is not None
        earliest = times[-per_minute] + MINUTE_S if len(times) >= per_minute else 0.0
        assert now + wait_s == pytest.approx(max(now, earliest))
        times.append(now + wait_s)
    assert all(later - first >= MINUTE_S - 1e-6 for first, later in zip(times, times[per_minute:], strict=False))


def test_who_would_wait_too_long_takes_no_token() -> None:
    """And the next one gets it at its time."""
    bucket = Bucket(1)
    assert bucket.take(0.0) == 0.0
    assert bucket.take(1.0, patience_s=10) is None
    assert bucket.take(55.0, patience_s=10) == 5.0


def test_without_a_rate_only_a_provider_that_wants_to_be_left_alone_makes_anybody_wait() -> None:
    bucket = Bucket(None)
    assert [bucket.take(0.0) for _ in range(100)] == [0.0] * 100
    bucket.close(30.0)
    assert (bucket.take(10.0), bucket.take(31.0), bucket.take(0.0, patience_s=29)) == (20.0, 0.0, None)


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
    assert began == [0.0, 0.0, MINUTE_S]


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
