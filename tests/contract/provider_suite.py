"""What every provider must do, on a device of ours or hosted; the stub, diffusers and each adapter run these tests."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from PIL import Image

from giclee.gpu_worker import providers
from giclee.gpu_worker.provider import Ask, Call, Closed, Made, NotMade, Provider, Shape
from giclee.schemas.models import Model
from giclee.schemas.reproduction import Grade

PROMPTS = (
    "a small red circle on a blue background",
    "a large white ring on a black background",
    "a large green square on a yellow background",
)


def ask(row: Model, prompt: str = PROMPTS[0], *, seed: int = 7, **fields: Any) -> Ask:
    """One image of the row's own size, steps and guidance, unless told otherwise."""
    own = {"width": row.width, "height": row.height, "steps": row.steps, "guidance_scale": row.guidance_scale}
    said: dict[str, Any] = {name: fields.pop(name, value) for name, value in own.items()}
    negative = fields.get("negative_prompt") is not None and row.takes_negative_prompt
    return Ask(shape=Shape(model=row.name, negative=negative, **said), prompt=prompt, seed=seed, **fields)


def call(
    key: str = "candidate-0",
    job: str | None = None,
    note: Callable[[str], Awaitable[None]] | None = None,
    why_not_again: NotMade | None = None,
) -> Call:
    """A paid call whose job id is noted nowhere and that may be paid again, unless told otherwise."""

    async def nowhere(_: str) -> None:
        return None

    return Call(key=key, job=job, note=note or nowhere, why_not_again=lambda: why_not_again)


def made(answer: object) -> Made:
    """The answer as an image; fails with the reason where it is none."""
    assert isinstance(answer, Made), answer
    return answer


def not_made(answer: object) -> NotMade:
    """The answer as the reason for there being no image."""
    assert isinstance(answer, NotMade), answer
    return answer


def capabilities_of(provider: Provider) -> dict[str, bool]:
    """Whether a provider takes a field, as its capabilities say."""
    can = provider.capabilities
    return {
        "seed": can.seed,
        "negative_prompt": can.negative_prompt,
        "steps": can.steps,
        "guidance_scale": can.guidance,
    }


def wish_for(row: Model, field: str) -> Ask:
    """An ask for nothing but a prompt and that field."""
    wishes: dict[str, dict[str, Any]] = {
        "negative_prompt": {"negative_prompt": "red"},
        "steps": {"steps": row.steps + 1},
        "guidance_scale": {"guidance_scale": row.guidance_scale + 1},
    }
    return ask(row, asked=frozenset({"prompt", field}), **wishes.get(field, {}))


class ProviderSuite:
    """Subclasses give the fixtures `provider`, which one test closes, and `row`, a row of models that it makes;
    and say the `grade` of its images."""

    grade: ClassVar[Grade] = "exact"

    async def test_answers_come_in_the_order_of_the_asks(self, provider: Provider, row: Model) -> None:
        """Each is the picture that its ask gets alone, in a batch of the same padded size."""
        asks = [ask(row, prompt, seed=seed) for seed, prompt in enumerate(PROMPTS, 1)]
        together = [made(answer) for answer in await provider.make(row, asks, 4)]
        assert len(together) == len(asks)
        assert len({answer.body for answer in together}) == len(asks)
        if provider.capabilities.seed:
            backwards = [made(answer) for answer in await provider.make(row, asks[::-1], 4)]
            assert [answer.body for answer in backwards[::-1]] == [answer.body for answer in together]

    async def test_an_image_is_what_it_says_it_is(self, provider: Provider, row: Model) -> None:
        """Format and size of the bytes are those of the answer."""
        answer = made((await provider.make(row, [ask(row)], 1))[0])
        with Image.open(io.BytesIO(answer.body)) as image:
            image.load()
            assert f"image/{image.format}".lower() == answer.content_type
            assert image.size == (answer.width, answer.height)
        assert answer.seconds >= 0

    async def test_a_seed_makes_the_difference_or_is_told_to_be_left_out(self, provider: Provider, row: Model) -> None:
        """The same seed gives the same bytes, another one others."""
        first, again, other = [made((await provider.make(row, [ask(row, seed=s)], 1))[0]) for s in (3, 3, 4)]
        if provider.capabilities.seed:
            assert first.body == again.body != other.body
        else:
            assert "seed" in {one.field for one in first.adjustments}

    async def test_a_lacking_capability_is_exactly_that_adjustment(self, provider: Provider, row: Model) -> None:
        """And nothing for a strict ask, at no cost; what it has, and what nobody asked for, is no adjustment."""
        for field, has in capabilities_of(provider).items():
            wish = wish_for(row, field)
            (answer,) = await provider.make(row, [wish], 1)
            assert [one.field for one in made(answer).adjustments] == ([] if has else [field])
            assert all(one.used == "left out" and one.asked and one.reason for one in made(answer).adjustments)
            (strictly,) = await provider.make(row, [replace(wish, strict=True)], 1)
            if has:
                assert made(strictly).adjustments == ()
                continue
            no = not_made(strictly)
            assert (no.outcome, no.code, no.paid_usd) == ("invalid", "param_unsupported", Decimal(0))
            assert field in no.message
            (unasked,) = await provider.make(row, [replace(wish, asked=frozenset({"prompt"}), strict=True)], 1)
            assert made(unasked).adjustments == ()

    async def test_an_image_has_a_grade(self, provider: Provider, row: Model) -> None:
        """Without a seed it is none; and the seed that was used is recorded."""
        answer = made((await provider.make(row, [ask(row, seed=21)], 1))[0])
        assert answer.reproducibility == self.grade
        assert answer.reproduction is not None
        assert answer.reproduction.seed == (21 if provider.capabilities.seed else None)

    async def test_a_provider_says_where_its_models_are(self, provider: Provider, row: Model) -> None:
        """And under which terms it gets what we send."""
        assert (await provider.describe(row)).where
        assert provider.capabilities.data_terms.endswith(".")

    async def test_a_caller_that_leaves_is_no_bug(self, provider: Provider, row: Model) -> None:
        """What was begun can be cancelled, and the provider goes on working."""
        leaving = asyncio.ensure_future(provider.make(row, [ask(row, seed=11)], 1))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        made((await provider.make(row, [ask(row, seed=12)], 1))[0])

    async def test_after_its_end_a_provider_says_so(self, provider: Provider, row: Model) -> None:
        """It is closed with the worker's block, once more is fine, and whoever asks then is told that it is closed."""
        async with providers.closing({"it": provider}):
            made((await provider.make(row, [ask(row, seed=13)], 1))[0])
        await provider.close()
        with pytest.raises(Closed, match=r"closed|ended"):
            await provider.make(row, [ask(row, seed=14)], 1)
        with pytest.raises(Closed, match=r"closed|ended"):
            await provider.describe(row)
