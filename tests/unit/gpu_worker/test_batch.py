"""Batches: one shape, fixed padded sizes, nobody waits longer than said, a failure reaches everyone who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from giclee.bus.errors import Transient
from giclee.gpu_worker.batch import Batcher, padded_size
from giclee.gpu_worker.provider import Answer, Ask, Description, DeviceLost, Made, Shape
from giclee.gpu_worker.providers.stub import CAPABILITIES, Stub
from giclee.schemas.models import Model
from tests.kit.candidates import model
from tests.kit.wait import until

ROW = model(batch_max=4)


def ask(seed: int, width: int = 64, steps: int = 8) -> Ask:
    shape = Shape(model=ROW.name, width=width, height=64, steps=steps, guidance_scale=2.0)
    return Ask(shape=shape, prompt="a small red circle on a blue background", seed=seed)


@pytest.mark.parametrize(
    ("asks", "batch_max", "padded"), [(1, 4, 1), (2, 4, 2), (3, 4, 4), (4, 4, 4), (3, 3, 3), (5, 8, 8), (5, 6, 6)]
)
def test_a_batch_is_padded_to_the_next_power_of_two_and_never_over_the_maximum(
    asks: int, batch_max: int, padded: int
) -> None:
    assert padded_size(asks, batch_max) == padded


async def made_by(stub: Stub, asks: Sequence[Ask], wait_ms: float = 20) -> list[object]:
    batcher = Batcher({"stub": stub}, wait_ms=wait_ms)
    running = asyncio.create_task(batcher.run())
    try:
        return list(await asyncio.gather(*(batcher.make(ROW, one) for one in asks)))
    finally:
        running.cancel()


async def test_asks_that_come_together_go_together_in_full_batches() -> None:
    """Ten asks of one shape and a maximum of four make batches of 4, 4 and 2."""
    stub = Stub()
    answers = await made_by(stub, [ask(seed) for seed in range(10)])
    assert [size for _, size, _ in stub.batches] == [4, 4, 2]
    assert all(isinstance(one, Made) for one in answers)


async def test_every_ask_gets_the_answer_to_its_own_seed_whatever_the_batch() -> None:
    """Pictures equal those made alone."""
    together = await made_by(Stub(), [ask(seed) for seed in range(6)])
    alone = [(await made_by(Stub(), [ask(seed)]))[0] for seed in range(6)]
    assert [one.body for one in together] == [one.body for one in alone]  # type: ignore[attr-defined]


async def test_shapes_never_mix() -> None:
    """Sizes and steps differ: one batch each."""
    stub = Stub()
    await made_by(stub, [ask(0), ask(1, width=128), ask(2, steps=4), ask(3)])
    assert sorted(size for _, size, _ in stub.batches) == [1, 1, 2]


async def test_what_arrives_while_the_device_works_goes_into_the_next_batch_at_once() -> None:
    """Nobody waits for a full batch when the device comes free."""
    free = asyncio.Event()

    async def before(_: Sequence[Ask]) -> None:
        await free.wait()

    stub = Stub(before=before)
    batcher = Batcher({"stub": stub}, wait_ms=0)
    running = asyncio.create_task(batcher.run())
    first = asyncio.create_task(batcher.make(ROW, ask(0)))
    await until(lambda: stub.batches)
    rest = [asyncio.create_task(batcher.make(ROW, ask(seed))) for seed in (1, 2, 3)]
    await asyncio.sleep(0)
    free.set()
    await asyncio.gather(first, *rest)
    running.cancel()
    assert stub.batches == [(ROW.name, 1, 1), (ROW.name, 3, 4)]


async def test_who_stopped_waiting_is_not_made() -> None:
    """An ask whose handler was cancelled before its batch began costs nothing."""
    stub = Stub()
    batcher = Batcher({"stub": stub}, wait_ms=50)
    gone = asyncio.create_task(batcher.make(ROW, ask(0)))
    kept = asyncio.create_task(batcher.make(ROW, ask(1)))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    running = asyncio.create_task(batcher.run())
    await kept
    running.cancel()
    assert stub.batches == [(ROW.name, 1, 1)]


async def test_a_bug_of_a_provider_reaches_its_batch_and_the_next_batch_is_made() -> None:
    """One bad batch must not stop the queue."""
    bad = True

    async def before(_: Sequence[Ask]) -> None:
        if bad:
            raise ZeroDivisionError("a bug")

    batcher = Batcher({"stub": Stub(before=before)}, wait_ms=0)
    running = asyncio.create_task(batcher.run())
    with pytest.raises(ZeroDivisionError):
        await batcher.make(ROW, ask(0))
    bad = False
    assert isinstance(await batcher.make(ROW, ask(1)), Made)
    running.cancel()


async def test_a_lost_device_is_an_outage_for_candidates_and_the_end_of_the_process() -> None:
    """Nothing becomes a dead letter because a GPU died; background work that raises ends the process."""

    async def before(_: Sequence[Ask]) -> None:
        raise DeviceLost("CUDA error: an illegal memory access was encountered")

    batcher = Batcher({"stub": Stub(before=before)}, wait_ms=0)
    running = asyncio.create_task(batcher.run())
    with pytest.raises(Transient) as said:
        await batcher.make(ROW, ask(0))
    assert said.value.scope == "dependency"
    with pytest.raises(DeviceLost):
        await running


# ---- pools that share a device ------------------------------------------------------------------

NOW, BULK = (model(pool, pool=pool, batch_max=4) for pool in ("now", "bulk"))


async def _nothing() -> None:
    return None


class Press:
    """A device whose batches take `seconds` of its own clock; `before` is awaited in each, `after` called then."""

    capabilities = CAPABILITIES

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds, self.now = seconds, 0.0
        self.batches: list[str] = []
        self.before: Callable[[], Awaitable[None]] = _nothing
        self.after: Callable[[], None] = lambda: None

    async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        self.batches.append(model.pool)
        await self.before()
        self.now += self.seconds
        self.after()
        return [Made(body=b"", content_type="image/webp", width=64, height=64, seconds=self.seconds)] * len(asks)

    async def describe(self, model: Model) -> Description:
        return Description(weights_sha256=None, where="a press", resident=True)

    async def close(self) -> None:
        return None

    def shared(self, wait_ms: float = 0, **weights: int) -> Batcher:
        """A queue before it."""
        return Batcher({"stub": self}, wait_ms=wait_ms, weights=weights, now=lambda: self.now)


def asked(batcher: Batcher, row: Model, count: int) -> list[asyncio.Task[Answer]]:
    shape = Shape(model=row.name, width=64, height=64, steps=8, guidance_scale=2.0)
    return [
        asyncio.create_task(batcher.make(row, Ask(shape=shape, prompt="a small red circle", seed=seed)))
        for seed in range(count)
    ]


@pytest.mark.parametrize("weights", [{"now": 4}, {}, {"now": 1, "bulk": 9}])
async def test_behind_a_thousand_of_bulk_what_somebody_waits_for_is_in_the_very_next_batch(
    weights: dict[str, int],
) -> None:
    """Whatever the weights, and a second one that comes later too: only the batch in progress is before it."""
    press, waited = Press(), list[asyncio.Task[Answer]]()
    batcher = press.shared(**weights)
    bulk = asked(batcher, BULK, 1000)
    await asyncio.sleep(0)

    async def comes() -> None:
        if len(press.batches) in (7, 20):
            waited.extend(asked(batcher, NOW, 1))
            await asyncio.sleep(0)

    press.before = comes
    running = asyncio.create_task(batcher.run())
    await asyncio.gather(*bulk)
    running.cancel()
    assert all(one.done() for one in waited)
    assert [at for at, pool in enumerate(press.batches) if pool == "now"] == [7, 20]
    assert len(press.batches) == 252


@pytest.mark.parametrize(("weight", "share"), [(1, 1 / 2), (4, 1 / 5), (9, 1 / 10), (100, 1 / 61)])
async def test_under_endless_load_of_what_somebody_waits_for_bulk_has_its_share(weight: int, share: float) -> None:
    """600 batches of a second, weights to within one batch; at 100 to 1 the minute counts, not the hundredth part."""
    press, done = Press(), asyncio.Event()
    batcher = press.shared(now=weight)
    waiting = [*asked(batcher, BULK, 2400), *asked(batcher, NOW, 2400)]
    await asyncio.sleep(0)
    press.after = lambda: done.set() if len(press.batches) == 600 else None
    running = asyncio.create_task(batcher.run())
    await done.wait()
    running.cancel()
    for one in waiting:
        one.cancel()
    assert abs(press.batches[:600].count("bulk") - 600 * share) <= 1


async def test_an_idle_device_that_waits_for_company_makes_a_full_batch_of_another_pool_first() -> None:
    """One of bulk lies there for its second, four of the other pool come: they do not wait for bulk's company."""
    press = Press()
    batcher = press.shared(wait_ms=1000, now=4)
    bulk = asked(batcher, BULK, 1)
    running = asyncio.create_task(batcher.run())
    await asyncio.sleep(0)
    await asyncio.gather(*asked(batcher, NOW, 4))
    await asyncio.gather(*bulk)  # the press took its second, so it waits no longer
    running.cancel()
    assert press.batches == ["now", "bulk"]


async def test_who_stopped_waiting_takes_no_place_in_a_batch() -> None:
    """Of six four went away: the two that wait are one batch."""
    press = Press()
    batcher = press.shared()
    bulk = asked(batcher, BULK, 6)
    await asyncio.sleep(0)
    for one in bulk[:4]:
        one.cancel()
    await asyncio.sleep(0)
    running = asyncio.create_task(batcher.run())
    await asyncio.gather(*bulk[4:])
    running.cancel()
    assert press.batches == ["bulk"]
