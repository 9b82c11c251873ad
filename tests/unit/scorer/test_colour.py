"""Colour: Lab and CIEDE2000 as published; the palette and the light of a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from giclee.scorer.colour import ciede2000, lab, luminance
from giclee.scorer.dimension import Dimension, Picture
from giclee.scorer.dimensions.luminance import Light, Luminance
from giclee.scorer.dimensions.palette import Palette, PaletteShare

# fmt: off
SHARMA = (
    (50, 2.6772, -79.7751, 50, 0, -82.7485, 2.0425), (50, 3.1571, -77.2803, 50, 0, -82.7485, 2.8615),
    (50, 2.8361, -74.02, 50, 0, -82.7485, 3.4412), (50, -1.3802, -84.2814, 50, 0, -82.7485, 1.0),
    (50, -1.1848, -84.8006, 50, 0, -82.7485, 1.0), (50, -0.9009, -85.5211, 50, 0, -82.7485, 1.0),
    (50, 0, 0, 50, -1, 2, 2.3669), (50, -1, 2, 50, 0, 0, 2.3669),
    (50, 2.49, -0.001, 50, -2.49, 0.0009, 7.1792), (50, 2.49, -0.001, 50, -2.49, 0.001, 7.1792),
    (50, 2.49, -0.001, 50, -2.49, 0.0011, 7.2195), (50, 2.49, -0.001, 50, -2.49, 0.0012, 7.2195),
    (50, -0.001, 2.49, 50, 0.0009, -2.49, 4.8045), (50, -0.001, 2.49, 50, 0.001, -2.49, 4.8045),
    (50, -0.001, 2.49, 50, 0.0011, -2.49, 4.7461), (50, 2.5, 0, 50, 0, -2.5, 4.3065),
    (50, 2.5, 0, 73, 25, -18, 27.1492), (50, 2.5, 0, 61, -5, 29, 22.8977),
    (50, 2.5, 0, 56, -27, -3, 31.9030), (50, 2.5, 0, 58, 24, 15, 19.4535),
    (50, 2.5, 0, 50, 3.1736, 0.5854, 1.0), (50, 2.5, 0, 50, 3.2972, 0, 1.0),
    (50, 2.5, 0, 50, 1.8634, 0.5757, 1.0), (50, 2.5, 0, 50, 3.2592, 0.335, 1.0),
    (60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644),
    (63.0109, -31.0961, -5.8663, 62.8187, -29.7946, -4.0864, 1.2630),
    (61.2901, 3.7196, -5.3901, 61.4292, 2.2480, -4.9620, 1.8731),
    (35.0831, -44.1164, 3.7933, 35.0232, -40.0716, 1.5901, 1.8645),
    (22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373),
    (36.4612, 47.8580, 18.3852, 36.2715, 50.5065, 21.2231, 1.4146),
    (90.8027, -2.0831, 1.4410, 91.1528, -1.6435, 0.0447, 1.4441),
    (90.9257, -0.5406, -0.9208, 88.6381, -0.8985, -0.7239, 1.5381),
    (6.7747, -0.2908, -2.4247, 5.8714, -0.0985, -2.2286, 0.6377),
    (2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082),
)
"""Table 1 of Sharma, Wu and Dalal (2005): two Lab colours and their difference."""
# fmt: on


def test_differences_are_those_that_were_published() -> None:
    """All 34 pairs, to the four places that are printed, in both directions and all at once."""
    pairs = np.array(SHARMA)
    for one, other in ((pairs[:, :3], pairs[:, 3:6]), (pairs[:, 3:6], pairs[:, :3])):
        assert np.abs(ciede2000(one, other) - pairs[:, 6]).max() < 5e-5


@pytest.mark.parametrize(
    ("rgb", "known"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_lab_of_known_colours(rgb: tuple[int, int, int], known: tuple[float, float, float]) -> None:
    """White, black, primaries and a mid grey, within a hundredth or two."""
    assert np.abs(lab(np.array(rgb, np.uint8)) - np.array(known)).max() < 0.03


def test_luminance_is_linear_light() -> None:
    """White is 1, a grey of 188 about half, sRGB's own curve."""
    found = luminance(np.array([[255] * 3, [0] * 3, [188] * 3], np.uint8))
    assert found == pytest.approx([1.0, 0.0, 0.503], abs=0.002)


def measured(dimension: Dimension, pixels: np.ndarray) -> Any:
    return dimension.measure([Picture(pixels=pixels, prompt="")])[0]


def halves(one: tuple[int, int, int], other: tuple[int, int, int], part: float, side: int = 100) -> np.ndarray:
    pixels: np.ndarray = np.full((side, side, 3), other, np.uint8)
    pixels[:, : round(side * part)] = one
    return pixels


def test_the_share_of_a_palette_is_counted_and_the_distance_decides() -> None:
    """A tenth, a half, all; a colour 3 away counts at 5 and not at 2."""
    red, near, grey = (214, 40, 40), (208, 46, 44), (128, 128, 128)
    loose = PaletteShare(Palette(colours=("#d62828", "#0b3d91"), distance=5))
    strict = PaletteShare(Palette(colours=("#d62828",), distance=0.5))
    for part in (0.0, 0.1, 0.5, 1.0):
        assert measured(loose, halves(red, grey, part)).value == pytest.approx(part)
        assert measured(loose, halves(near, grey, part)).value == pytest.approx(part)
        assert measured(strict, halves(near, grey, part)).value == 0.0


def test_a_palette_does_not_depend_on_size_or_side() -> None:
    """64 to 2,048 px, mirrored and turned: the same share within a hundredth."""
    palette = PaletteShare(Palette(colours=("#0b3d91",), distance=3))
    for side in (64, 300, 2048):
        pixels = halves((11, 61, 145), (240, 240, 240), 0.3, side)
        for one in (pixels, pixels[:, ::-1], pixels.transpose(1, 0, 2)):
            assert measured(palette, one).value == pytest.approx(0.3, abs=0.01)


def test_light_is_told_in_stops_and_falls_with_the_distance_from_the_reference() -> None:
    """1 at the reference, 0.5 at the bound, less beyond, to both sides."""
    light = Luminance(Light(reference=0.18, stops=1.0))

    def value(level: float) -> float:
        grey = round(255 * (1.055 * level ** (1 / 2.4) - 0.055))
        return float(measured(light, np.full((32, 32, 3), grey, np.uint8)).value)

    assert value(0.18) == pytest.approx(1, abs=0.02)
    assert value(0.36) == pytest.approx(0.5, abs=0.02) == pytest.approx(value(0.09), abs=0.04)
    values = [value(0.18 * 2**stops) for stops in (0, 0.5, 1, 1.5, 2.2)]
    assert values == sorted(values, reverse=True) and values[-1] == 0
    assert measured(light, np.zeros((8, 8, 3), np.uint8)).value == 0.0


@pytest.mark.parametrize(
    "values",
    [
        {"colours": (), "distance": 5}, {"colours": ("red",), "distance": 5}, {"colours": ("#12345",), "distance": 5},
        {"colours": ("#112233",), "distance": 0}, {"colours": ("#112233",), "distance": float("nan")},
        {"colours": ("#112233",)}, {"colours": ("#112233",), "distance": 5, "more": 1},
    ],
)  # fmt: skip
def test_a_palette_that_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    """No colour, no hex, no distance, a word too many."""
    with pytest.raises(ValidationError):
        Palette.model_validate(values)
