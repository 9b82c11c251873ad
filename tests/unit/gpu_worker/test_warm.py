"""What a worker does before it is ready: hosted models cost nothing and need no device; what is missing is named."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from giclee.bus.errors import Transient
from giclee.gpu_worker import providers
from giclee.gpu_worker.provider import Description, ModelUnusable
from giclee.gpu_worker.providers.stub import Stub
from giclee.gpu_worker.warm import WarmUp, check_providers, rows_of
from giclee.schemas.models import Model
from tests.kit.candidates import model
from tests.kit.shop import NAME, Paid, Shop
from tests.kit.wait import until

HOSTED = [model(f"flux-{at}", provider=NAME, pool="hosted") for at in range(3)]


async def is_ready(warm: WarmUp) -> bool:
    try:
        await warm.check()
    except Transient:
        return False
    return True


async def test_no_image_is_paid_for_to_warm_up() -> None:
    """Trap T5: our own model makes its first image, the hosted ones are only described; then the worker is ready."""
    shop, stub = Shop(), Stub()
    warm = WarmUp([*HOSTED, model()], {NAME: Paid(shop), "stub": stub}, resident_max=1)
    await warm.load()
    assert not await is_ready(warm)
    running = asyncio.create_task(warm.run())
    await until(lambda: is_ready(warm))
    running.cancel()
    assert len(stub.batches) == 1 and not shop.bill


async def test_every_hosted_model_that_cannot_be_used_is_named_at_once() -> None:
    """A key that is missing concerns all of its models."""

    class Keyless(Paid):
        async def describe(self, model: Model) -> Description:
            raise ModelUnusable(f"model {model.name}: provider {NAME} has no key")

    warm = WarmUp(HOSTED, {NAME: Keyless(Shop())}, resident_max=2)
    with pytest.raises(ModelUnusable) as said:
        await warm.load()
    assert all(row.name in str(said.value) for row in HOSTED)


def test_a_model_of_an_unknown_provider_is_named_with_those_there_are() -> None:
    """Before anything is claimed."""
    rows = {row.name: row for row in (model(), model("flux", provider="fall"), model("sd", provider="falx"))}
    with pytest.raises(ModelUnusable) as said:
        check_providers(rows, providers.TABLE)
    assert all(word in str(said.value) for word in ("model flux", "fall", "model sd", "falx", "diffusion, "))


async def test_what_two_pools_offer_is_loaded_and_warmed_once() -> None:
    """Rows of one folder, revision and type are one model, and leave the other place for another."""
    stub = Stub()
    rows = [model("now", pool="now", location="m"), model("bulk", location="m"), model("other")]
    warm = WarmUp(rows, {"stub": stub}, resident_max=2)
    await warm.load()
    running = asyncio.create_task(warm.run())
    await until(lambda: is_ready(warm))
    running.cancel()
    assert [name for name, *_ in stub.batches] == ["now", "other"]


def test_every_pool_without_a_model_is_named(tmp_path: Path) -> None:
    """A pool that nothing can be made for would claim candidates in vain."""
    row = '[[models]]\nname = "{0}"\npool = "{0}"\nrevision = "r"\nlocation = "l"\nprovider = "stub"\n'
    row += 'price_usd = "0"\nsteps = 1\nwidth = 64\nheight = 64\n'
    (tmp_path / "giclee.toml").write_text(row.format("a") + row.format("b"))
    where = (str(tmp_path / "giclee.toml"), tmp_path / "models")
    assert set(rows_of({"a": 4, "b": 1}, *where)) == {"a", "b"}
    with pytest.raises(ModelUnusable, match="the pool c and of the pool d"):
        rows_of({"a": 4, "c": 1, "d": 1}, *where)
