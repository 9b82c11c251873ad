"""Content, sharpness, exposure, compression, format: flat pictures of a shape are fine, what is no picture is not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from giclee.models import world
from giclee.scorer import phash
from giclee.scorer.dimension import Dimension, Measured, NotUsable, Picture
from giclee.scorer.dimensions.compression import Compression
from giclee.scorer.dimensions.content import Content, stock_of
from giclee.scorer.dimensions.exposure import Exposure
from giclee.scorer.dimensions.format import Format
from giclee.scorer.dimensions.sharpness import Sharpness
from giclee.scorer.gate import Gate, overall
from tests.kit.pictures import SCENE


def picture(pixels: np.ndarray, format: str = "WEBP", **claims: int) -> Picture:
    height, width = pixels.shape[:2]
    said = ("image/webp", claims.get("width", width), claims.get("height", height))
    return Picture(pixels=pixels, prompt="", format=format, claims=said)


DIMENSIONS: dict[str, Dimension] = {
    "format": Format(), "content": Content(), "sharpness": Sharpness(), "exposure": Exposure(),
    "compression": Compression(),
}  # fmt: skip


def measured(one: Picture) -> dict[str, Measured | None]:
    return {name: dimension.measure([one])[0] for name, dimension in DIMENSIONS.items()}


def verdicts(pixels: np.ndarray) -> dict[str, Any]:
    scores = Gate().scores(measured(picture(pixels)), {}, asset_type="generic", long_side_px=64)
    return {name: scores[name] for name in DIMENSIONS}


def verdict(pixels: np.ndarray) -> str:
    return overall(verdicts(pixels), frozenset(DIMENSIONS))


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
    assert verdict(BAD[name]) != "pass", measured(picture(BAD[name]))


def test_sharpness_falls_with_blur_and_is_named() -> None:
    """1 px is fine, 4 px is doubtful or worse."""
    values = [Sharpness().measure([picture(blurred(radius))])[0].value for radius in (0.1, 1, 2, 4, 8)]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert verdict(blurred(1)) == "pass" and verdict(blurred(4)) != "pass"
    assert [name for name, score in verdicts(blurred(8)).items() if score.verdict != "pass"] == ["sharpness"]


def test_sharpness_is_fair_across_sizes() -> None:
    """The same scene drawn at 64 and at 512 px is as sharp; the small one scaled up is not."""
    small, large = world.render(SCENE, 1, 64), world.render(SCENE, 1, 512)
    scaled = np.asarray(Image.fromarray(small).resize((512, 512), Image.Resampling.BICUBIC))
    found = [Sharpness().measure([picture(pixels)])[0].value for pixels in (small, large, scaled)]
    assert found[:2] == [1.0, 1.0]
    assert (found[2] or 0) < 0.6


def test_a_file_that_is_not_what_its_reference_says_fails() -> None:
    """Another format, another size."""
    good = world.render(SCENE, 1)
    for odd in (picture(good, format="PNG"), picture(good, width=65), picture(good, height=32)):
        (found,) = Format().measure([odd])
        assert found.value == 0.0 and "its reference says" in (found.reason or "")


def test_tiny_pictures_are_measured_without_an_error() -> None:
    """Down to one pixel: no value that is not finite."""
    for side in (1, 2, 3, 16):
        for found in measured(picture(np.zeros((side, side, 3), np.uint8))).values():
            assert found is not None and found.value is not None and np.isfinite(found.value)


def scene() -> np.ndarray:
    """256 px of soft light with a little grain, as a camera gives it."""
    across = np.linspace(0, 1, 256)[None, :, None]
    down = np.linspace(0, 1, 256)[:, None, None]
    light: np.ndarray = 90 + 70 * across + 40 * np.sin(3 * down) + np.array([0, 10, 20])
    return grainy(light)


def reencoded(pixels: np.ndarray, kind: str, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=quality)
    found: np.ndarray = np.asarray(Image.open(file).convert("RGB"))
    return found


def compression(pixels: np.ndarray) -> Measured:
    return Compression().measure([picture(pixels)])[0]


def test_blocks_of_a_strong_compression_are_seen() -> None:
    """JPEG at 90 is clean, at 5 it is a mosaic, and it is worse the stronger it was."""
    values = [compression(reencoded(scene(), "JPEG", quality)).value or 0 for quality in (98, 90, 60, 20)]
    assert values[0] > 0.9 and values[-1] < 0.25
    assert values == sorted(values, reverse=True)
    assert [name for name, score in verdicts(reencoded(scene(), "JPEG", 10)).items() if score.verdict == "fail"]


def test_a_staircase_of_levels_is_seen_and_a_gradient_is_not() -> None:
    """Twelve levels over a soft light, without grain; flat art with few colours is no staircase."""
    smooth = np.repeat(np.linspace(40, 200, 256)[None, :, None], 256, 0).repeat(3, 2)
    stairs = (smooth // 14 * 14).astype(np.uint8)
    found = compression(stairs)
    assert (found.value or 0) < 0.5 and "banding" in (found.reason or "")
    assert compression(smooth.astype(np.uint8)).value == 1.0
    for seed, scene in enumerate(world.all_scenes()[::29]):
        assert (compression(world.render(scene, seed, 256)).value or 0) > 0.9, scene


def test_a_stock_frame_is_no_picture() -> None:
    """A frame that a provider sends for a blocked picture, known by its fingerprint, scaled and encoded again."""
    frame = scene()
    frame[80:176, 80:176] = (20, 20, 20)
    content = Content([phash.fingerprint(frame)])
    again = reencoded(np.asarray(Image.fromarray(frame).resize((128, 128))), "JPEG", 80)
    assert content.measure([picture(again)])[0].value == 0.0
    assert content.measure([picture(scene())])[0].value == 1.0


@pytest.mark.parametrize("scene", world.all_scenes()[::151], ids="-".join)
def test_copies_have_nearly_the_same_fingerprint_and_other_pictures_have_not(scene: world.Scene) -> None:
    """Encoded, scaled, brightened: at most 10 of 768 bits. Another place or colour: more."""
    one = grainy(world.render(scene, 1, 256))
    mine = phash.fingerprint(one)
    brighter = np.clip(one.astype(int) + 12, 0, 255).astype(np.uint8)
    scaled = [np.asarray(Image.fromarray(one).resize((side, side))) for side in (64, 100, 400)]
    copies = [reencoded(one, "JPEG", 80), reencoded(one, "WEBP", 85), brighter, *scaled]
    others = [np.roll(one, 8, axis=1), world.render(SCENE, 1, 256), np.roll(one, 1, axis=2)]

    assert max(phash.distance(mine, phash.fingerprint(copy)) for copy in copies) <= 10
    assert min(phash.distance(mine, phash.fingerprint(other)) for other in others) > 20


def grainy(pixels: np.ndarray) -> np.ndarray:
    """As cameras and models give it."""
    grain = np.random.default_rng(3).normal(0, 2, pixels.shape)
    found: np.ndarray = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    return found


def test_stock_frames_come_from_a_folder(tmp_path: Path) -> None:
    """As files of the frames themselves: scaled and encoded again they are known; a file that is none is said."""
    rng = np.random.default_rng(3)
    frame = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
    frame.save(tmp_path / "censored.png")
    (tmp_path / "notes.txt").write_text("what a provider sends when it blocks a picture")
    content = Content(stock_of(tmp_path))
    again = np.asarray(frame.resize((512, 512)))
    assert [one.value for one in content.measure([Picture(pixels=again, prompt="")])] == [0.0]
    other = Picture(pixels=np.ascontiguousarray(again[::-1]), prompt="")
    assert content.measure([other])[0].value == 1.0
    (tmp_path / "broken.webp").write_bytes(b"not a picture")
    with pytest.raises(NotUsable, match=r"broken\.webp is no picture"):
        stock_of(tmp_path)
    with pytest.raises(NotUsable, match="GICLEE_SCORER_STOCK_DIR"):
        stock_of(tmp_path / "nowhere")
