"""The stub paints what is asked: it stands in for a model where none is wanted."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from giclee.gpu_worker import picture
from giclee.gpu_worker.provider import Ask, Made, NotMade, Shape
from giclee.gpu_worker.providers.stub import Stub, paint
from giclee.models import oracle, world
from giclee.schemas.models import Model
from tests.contract.provider_suite import ProviderSuite
from tests.kit.candidates import model


def ask(prompt: str, seed: int = 1, width: int = 64, height: int = 64) -> Ask:
    return Ask(
        shape=Shape(model="m", width=width, height=height, steps=8, guidance_scale=2.0), prompt=prompt, seed=seed
    )


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_what_is_asked_is_painted(seed: int) -> None:
    """The oracle finds every asked attribute in the picture."""
    seen = oracle.look(paint(ask(world.prompt_of(seed), seed)))
    assert seen.scene == world.scene_of(seed)


def test_same_seed_same_bytes_other_seed_other_bytes() -> None:
    """Also for prompts that are not of the shapes world, which get a picture that is not blank."""
    for prompt in ("a large white ring on a black background", "a cat reading the news"):
        first, again, other = (picture.encode(paint(ask(prompt, seed))) for seed in (5, 5, 6))
        assert first == again != other
        assert not picture.is_blank(paint(ask(prompt, 5)))


def test_the_size_is_the_one_asked_for() -> None:
    """Not square ones too."""
    assert paint(ask("a red circle on blue", width=128, height=64)).shape == (64, 128, 3)


def test_mistakes_are_made_as_often_as_told_and_are_wrong_shapes() -> None:
    """Funnels are tested with them."""
    wrong = sum(
        oracle.look(paint(ask(world.prompt_of(seed), seed), 0.5)).scene != world.scene_of(seed) for seed in range(80)
    )
    assert 20 < wrong < 60


async def test_tests_can_answer_instead() -> None:
    """Failures come through the constructor."""
    no = NotMade(outcome="rate", message="slow down")
    stub = Stub(instead=lambda _, one: no if one.seed == 1 else None)
    first, second = await stub.make(model(), [ask("x", 1), ask("x", 2)], 2)
    assert first is no and isinstance(second, Made)
    with Image.open(io.BytesIO(second.body)) as image:
        assert (image.format, image.size) == ("WEBP", (64, 64))


def test_encoding_loses_nothing() -> None:
    """The bytes decode to the very pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (33, 65, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(picture.encode(pixels))) as image:
        assert (np.asarray(image.convert("RGB")) == pixels).all()


def test_values_that_are_not_finite_are_no_picture() -> None:
    """Half precision overflows into NaN, which PIL would turn into black."""
    image = np.full((4, 4, 3), 0.5)
    assert picture.quantized(image) is not None
    image[0, 0, 0] = np.nan
    assert picture.quantized(image) is None


class TestStub(ProviderSuite):
    """The stub is a provider like any other."""

    @pytest.fixture
    def provider(self) -> Stub:
        return Stub()

    @pytest.fixture
    def row(self) -> Model:
        return model()
