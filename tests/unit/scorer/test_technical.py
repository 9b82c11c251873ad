"""Technical quality: flat pictures of a shape are fine, what is no picture is not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from giclee.models import world
from giclee.scorer.dimension import Picture
from giclee.scorer.dimensions.technical import Technical, weakest
from giclee.scorer.gate import Gate
from tests.kit.pictures import SCENE


def picture(pixels: np.ndarray, format: str = "WEBP", **claims: int) -> Picture:
    height, width = pixels.shape[:2]
    said = ("image/webp", claims.get("width", width), claims.get("height", height))
    return Picture(pixels=pixels, prompt="", format=format, claims=said)


def verdict(pixels: np.ndarray) -> str:
    found = {"technical": weakest(picture(pixels))}
    return Gate().scores(found, {}, asset_type="generic", long_side_px=64)["technical"].verdict


@pytest.mark.parametrize("width_px", [64, 128, 512])
def test_every_shape_colour_and_size_of_the_world_passes(width_px: int) -> None:
    """A flat background is no fault. Every 13th scene."""
    for seed, scene in enumerate(world.all_scenes()[:: 13 if width_px == 64 else 101]):
        assert verdict(world.render(scene, seed, width_px)) == "pass", scene


def test_a_photograph_like_picture_passes() -> None:
    """Smooth noise with soft light: many edges, no flat area."""
    chance = np.random.default_rng(0)
    noise = Image.fromarray(chance.integers(0, 256, (512, 512, 3), dtype=np.uint8)).filter(
        ImageFilter.GaussianBlur(1.5)
    )
    stretched = np.asarray(noise).astype(float)
    stretched = (stretched - stretched.min()) / np.ptp(stretched) * 220 + 15
    assert verdict(stretched.astype(np.uint8)) == "pass"


def flat(level: int) -> np.ndarray:
    return np.full((64, 64, 3), level, np.uint8)


def blurred(radius_px: float) -> np.ndarray:
    found: np.ndarray = np.asarray(Image.fromarray(world.render(SCENE, 1)).filter(ImageFilter.GaussianBlur(radius_px)))
    return found


BAD = {
    "black": flat(0),
    "white": flat(255),
    "grey": flat(128),
    "nearly grey": flat(128) + (np.arange(64)[:, None, None] % 2).astype(np.uint8),
    "noise": np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8),
    "checkerboard of pixels": np.indices((64, 64)).sum(0)[..., None].repeat(3, 2).astype(np.uint8) % 2 * 255,
    "blurred by 8 px": blurred(8),
    "far too dark": (world.render(SCENE, 1) // 20).astype(np.uint8),
    "one bright pixel": np.where(np.arange(4096).reshape(64, 64, 1) == 7, 255, flat(0)).astype(np.uint8),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_does_not_pass(name: str) -> None:
    """Uniform frames, noise, blur, darkness."""
    assert verdict(BAD[name]) != "pass", weakest(picture(BAD[name]))


def test_sharpness_falls_with_blur_and_is_named() -> None:
    """1 px is fine, 4 px is doubtful or worse."""
    values = [weakest(picture(blurred(radius))).value for radius in (0.1, 1, 2, 4, 8)]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert verdict(blurred(1)) == "pass" and verdict(blurred(4)) != "pass"
    assert (weakest(picture(blurred(8))).reason or "").startswith("sharpness")


def test_a_file_that_is_not_what_its_reference_says_fails() -> None:
    """Another format, another size."""
    good = world.render(SCENE, 1)
    for odd in (picture(good, format="PNG"), picture(good, width=65), picture(good, height=32)):
        found = weakest(odd)
        assert found.value == 0.0 and "format" in (found.reason or "")


def test_tiny_pictures_are_measured_without_an_error() -> None:
    """Down to one pixel: no value that is not finite."""
    for side in (1, 2, 3, 16):
        (found,) = Technical().measure([picture(np.zeros((side, side, 3), np.uint8))])
        assert found.value is not None and np.isfinite(found.value)
