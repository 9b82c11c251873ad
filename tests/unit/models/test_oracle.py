"""The pixel oracle: it must be right about renders before it may judge anything, and must not be fooled by blobs."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from giclee.models import oracle, world

SCENES = world.all_scenes()
RED_CIRCLE = world.Scene("medium", "red", "circle", "blue")


def test_it_reads_more_than_99_in_100_fresh_renders() -> None:
    first = world.EVALUATION_SEED_FIRST
    right = [oracle.is_right(world.render(scene, first + n), scene) for n, scene in enumerate(SCENES)]
    assert np.mean(right) > 0.99


def test_fresh_renders_overlap_their_template_by_at_least_084() -> None:
    first = world.EVALUATION_SEED_FIRST
    assert min(oracle.look(world.render(scene, first + n)).overlap for n, scene in enumerate(SCENES)) >= 0.84


@pytest.mark.parametrize("name", world.Scene._fields)
def test_one_wrong_attribute_is_wrong(name: str) -> None:
    picture = world.render(RED_CIRCLE, 3)
    taken = set(RED_CIRCLE)
    for word in world.ALTERNATIVES[name]:
        if word not in taken:
            assert not oracle.is_right(picture, RED_CIRCLE._replace(**{name: word}))


def test_what_was_not_asked_may_be_anything() -> None:
    assert oracle.is_right(world.render(RED_CIRCLE, 4), world.Scene(shape="circle"))
    assert oracle.is_right(world.render(RED_CIRCLE, 4), world.Scene(colour="red", background="blue"))


def test_an_empty_picture_shows_only_a_background() -> None:
    empty: np.ndarray = np.full((64, 64, 3), world.COLOURS["green"], dtype=np.uint8)
    assert oracle.look(empty) == oracle.Seen(world.Scene(background="green"), 0.0)
    assert not oracle.is_right(empty, RED_CIRCLE)


def test_noise_is_wrong_whatever_is_asked() -> None:
    chance = np.random.default_rng(5)
    for scene in SCENES[::100]:
        assert not oracle.is_right(chance.integers(0, 256, (64, 64, 3), dtype=np.uint8), scene)


def test_a_blob_is_no_shape() -> None:
    picture: np.ndarray = np.full((64, 64, 3), world.COLOURS["white"], dtype=np.uint8)
    for corner in (8, 24, 40):
        picture[corner : corner + 10, corner : corner + 14] = world.COLOURS["red"]
    assert oracle.look(picture).overlap < oracle.OVERLAP_MINIMUM


def test_a_little_blur_and_noise_change_no_verdict() -> None:
    chance = np.random.default_rng(6)
    for number, scene in enumerate(SCENES[::20]):
        blurred = Image.fromarray(world.render(scene, number)).filter(ImageFilter.GaussianBlur(0.8))
        noisy = np.clip(np.asarray(blurred) + chance.normal(0, 5, (64, 64, 3)), 0, 255).astype(np.uint8)
        assert oracle.is_right(noisy, scene)
