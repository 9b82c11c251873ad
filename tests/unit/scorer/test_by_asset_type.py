"""Subject, background, safe zone and faces on pictures with a known truth; and who is measured by which of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydantic import ValidationError

from giclee.models import world
from giclee.scorer import dimensions
from giclee.scorer.boxes import Face, distinct
from giclee.scorer.dimension import Dimension, Evaluator, Measured, Picture
from giclee.scorer.dimensions.background import Background, Evenness
from giclee.scorer.dimensions.faces import Casting, Faces
from giclee.scorer.dimensions.luminance import Light, Luminance
from giclee.scorer.dimensions.palette import Palette, PaletteShare
from giclee.scorer.dimensions.safe_zone import SafeZone, Zone, Zones
from giclee.scorer.dimensions.subject import Framing, Subject
from giclee.scorer.gate import Gate, overall

SUBJECT, BACKGROUND = Subject(Framing()), Background(Evenness())
LEFT = SafeZone(Zones(zones=(Zone(name="left", right=0.4),)))


def measured(dimension: Dimension, pixels: np.ndarray) -> Measured:
    return dimension.measure([Picture(pixels=pixels, prompt="", asset_type="product-tile")])[0]


def value(dimension: Dimension, pixels: np.ndarray) -> float:
    found = measured(dimension, pixels).value
    assert found is not None and 0 <= found <= 1
    return found


def tile(
    x: float = 0.5,
    y: float = 0.5,
    wide: float = 0.5,
    side: int = 400,
    ground: tuple[int, ...] = (235, 235, 230),
    height: int | None = None,
) -> np.ndarray:
    """A dark rounded box of `wide` shares of the width, its middle at x, y, on an even ground."""
    image = Image.new("RGB", (side, height or side), ground)
    half = wide * side / 2
    middle = x * side, y * (height or side)
    box = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
    ImageDraw.Draw(image).rounded_rectangle(box, half / 4, fill=(60, 70, 120))
    found: np.ndarray = np.asarray(image)
    return found


def grainy(pixels: np.ndarray, levels: float) -> np.ndarray:
    grain = np.random.default_rng(5).normal(0, levels, pixels.shape)
    found: np.ndarray = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    return found


def falling(values: Sequence[float]) -> bool:
    return all(a >= b for a, b in pairwise(values)) and values[0] > values[-1]


# ---- subject ------------------------------------------------------------------------------------


def test_the_further_from_the_middle_the_lower_to_every_side_alike() -> None:
    """A gate's 0.5 is crossed at the framing's offset of 0.12."""
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        values = [value(SUBJECT, tile(0.5 + dx * by, 0.5 + dy * by)) for by in (0, 0.05, 0.1, 0.14, 0.2)]
        assert falling(values)
        assert values[2] > 0.5 > values[3]


def test_a_subject_that_is_too_small_or_too_large_is_lower_and_says_so() -> None:
    """Bounds are shares of the picture that the subject's box covers: 0.08 and 0.85."""
    small = [value(SUBJECT, tile(wide=wide)) for wide in (0.4, 0.3, 0.27, 0.2, 0.1)]
    large = [value(SUBJECT, tile(wide=wide)) for wide in (0.88, 0.91, 0.95)]
    assert falling(small) and small[1] > 0.5 > small[3]
    assert falling(large) and large[0] > 0.5 > large[2]
    assert "too small" in (measured(SUBJECT, tile(wide=0.2)).reason or "")
    assert "too large" in (measured(SUBJECT, tile(wide=0.95)).reason or "")


def test_a_subject_that_is_cut_off_fails_though_it_covers_enough() -> None:
    """Half of it lies outside."""
    found = measured(SUBJECT, tile(0.5, 0.95, 0.5))
    assert (found.value or 0) < 0.25


@pytest.mark.parametrize("side", [64, 200, 1024, 1500])
def test_place_and_size_do_not_depend_on_pixels_mirrors_or_grain(side: int) -> None:
    """The same tile drawn small and large, mirrored, turned, with a camera's grain, on a soft gradient."""
    pixels = tile(0.55, 0.52, 0.5, side)
    light = (np.linspace(0, 25, side)[None, :, None] + np.zeros((side, 1, 1))).astype(np.uint8)
    variants = [pixels, pixels[:, ::-1], pixels[::-1], pixels.transpose(1, 0, 2), grainy(pixels, 4), pixels - light]
    values = [value(SUBJECT, one) for one in variants]
    assert max(values) - min(values) < 0.08
    assert values[0] == pytest.approx(value(SUBJECT, tile(0.55, 0.52, 0.5, 400)), abs=0.08)


def test_without_a_plain_ground_or_a_subject_it_is_not_certain() -> None:
    """Noise, a picture that is all texture, an empty one: unsure by the gate, never a pass."""
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    checks = (np.indices((200, 200)).sum(0) // 25 % 2 * 200).astype(np.uint8)[..., None].repeat(3, 2)
    for pixels in (checks, np.asarray(Image.fromarray(noise[::25, ::25]).resize((200, 200))), tile(wide=0.0)):
        scores = Gate().scores({"subject": measured(SUBJECT, pixels)}, {}, asset_type="product-tile", long_side_px=200)
        assert scores["subject"].verdict == "unsure", scores["subject"]


# ---- background ---------------------------------------------------------------------------------


def test_the_less_even_the_ground_the_lower() -> None:
    """A gradient of more and more levels; one colour is 1; a gate's 0.5 is crossed."""
    values = []
    for levels in (0, 20, 60, 120, 200):
        ramp = np.linspace(0, levels, 300)[None, :, None] + np.full((300, 1, 3), 40.0)
        values.append(value(BACKGROUND, ramp.astype(np.uint8)))
    assert falling(values) and values[0] == 1.0
    assert values[1] > 0.5 > values[3]


def test_a_subject_in_the_middle_is_no_ground_and_scale_does_not_matter() -> None:
    """Any tile on one colour is even; mirrored or of another size as well; grain costs little."""
    for side in (64, 400, 1200):
        pixels = tile(0.5, 0.5, 0.6, side)
        assert value(BACKGROUND, pixels) == value(BACKGROUND, pixels[:, ::-1]) == 1.0
        assert value(BACKGROUND, grainy(pixels, 4)) > 0.6


def test_a_shelf_behind_the_product_is_no_even_ground() -> None:
    """Two thirds wall, one third table in another colour."""
    pixels = tile().copy()
    pixels[270:] = (150, 110, 80)
    assert value(BACKGROUND, pixels) < 0.25


# ---- safe zone ----------------------------------------------------------------------------------


def test_the_further_something_reaches_into_the_zone_the_lower() -> None:
    """A box that comes in from the right; outside the zone it does not count."""
    values = [value(LEFT, tile(x, 0.5, 0.5)) for x in (0.7, 0.6, 0.5, 0.42)]
    assert falling(values)
    assert values == pytest.approx([1, 0.94, 0.81, 0.71], abs=0.03), "what is free by the box's corners"


def test_texture_is_not_empty_and_a_soft_gradient_is() -> None:
    """What text cannot be read on: checks, noise, stripes."""
    sky = np.linspace(90, 200, 300)[:, None, None].repeat(300, 1).repeat(3, 2).astype(np.uint8)
    checks = (np.indices((300, 300)).sum(0) % 12 // 6 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    noise = np.random.default_rng(2).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert value(LEFT, sky) > 0.95 and value(LEFT, grainy(sky, 3)) > 0.9
    assert value(LEFT, checks) < 0.3 and value(LEFT, noise) < 0.3


def test_of_several_zones_the_clearest_counts_and_is_named() -> None:
    """An overlay needs one."""
    either = SafeZone(Zones(zones=(Zone(name="left", right=0.4), Zone(name="right", left=0.6))))
    found = measured(either, tile(0.3, 0.5, 0.5))
    assert (found.value or 0) > 0.95 and "right" in (found.reason or "")
    mirrored = measured(either, tile(0.3, 0.5, 0.5)[:, ::-1])
    assert mirrored.value == pytest.approx(found.value, abs=0.02) and "left" in (mirrored.reason or "")


@pytest.mark.parametrize("side", [128, 400, 1600])
def test_a_zone_does_not_depend_on_the_picture_s_size(side: int) -> None:
    """Within a few hundredths."""
    assert value(LEFT, tile(0.5, 0.5, 0.5, side)) == pytest.approx(value(LEFT, tile(0.5, 0.5, 0.5, 800)), abs=0.05)


# ---- faces --------------------------------------------------------------------------------------


class Shows:
    """A detector that sees the faces it is told."""

    def __init__(self, *faces: Face) -> None:
        self._faces = faces

    def faces(self, pixels: np.ndarray, score_min: float) -> Sequence[Face]:
        return [face for face in self._faces if face.score >= score_min]

    def describe(self) -> Evaluator:
        return Evaluator("shows", "7")


def face(x: float = 0.5, y: float = 0.5, high: float = 0.3, score: float = 0.9) -> Face:
    return Face(score, x - high / 2, y - high / 2, x + high / 2, y + high / 2)


def faces(casting: Casting, *seen: Face) -> Measured:
    return measured(Faces(Shows(*seen), casting), np.zeros((64, 64, 3), np.uint8))


def test_faces_are_counted_sized_and_placed_in_the_reason() -> None:
    """Two, the larger first; with nothing demanded any number is fine."""
    found = faces(Casting(), face(0.3, 0.4, 0.4), face(0.8, 0.5, 0.1))
    assert (found.value, found.certain) == (1.0, True)
    assert found.reason == "2 faces, the largest 0.40 of the height at 0.30, 0.40"
    assert faces(Casting()).value == 1.0


def test_every_face_too_many_or_too_few_lowers_the_value_under_a_half() -> None:
    """One to two are asked for."""
    casting = Casting(count_min=1, count_max=2)
    row = [face(0.1 + 0.2 * at, 0.5, 0.1) for at in range(5)]
    values = [faces(casting, *row[:count]).value or 0 for count in range(6)]
    assert values[0] < 0.5 and values[1] == values[2] == 1.0
    assert all(one < 0.5 for one in values[3:]) and falling(values[2:])


def test_a_face_that_is_small_large_or_cut_off_lowers_the_value() -> None:
    """Each bound is 0.5."""
    casting = Casting(height_min=0.2, height_max=0.6)
    assert falling([faces(casting, face(high=high)).value or 0 for high in (0.4, 0.3, 0.15, 0.05)])
    assert falling([faces(casting, face(high=high)).value or 0 for high in (0.4, 0.5, 0.7, 0.9)])
    assert faces(casting, face(high=0.2)).value == pytest.approx(0.5)
    assert falling([faces(Casting(), face(x)).value or 0 for x in (0.5, 0.165, 0.158, 0.15)])


def test_what_may_be_a_face_makes_the_count_uncertain() -> None:
    """A score between the two bounds is neither a face nor none."""
    found = faces(Casting(), face(), face(0.1, 0.1, 0.1, score=0.3))
    assert not found.certain and "perhaps 1 more" in (found.reason or "")
    assert faces(Casting(), face(), face(0.1, 0.1, 0.1, score=0.2)).certain


def test_boxes_about_one_thing_are_one_box() -> None:
    """The best of them; what merely touches stays."""
    found = distinct([face(0.5, 0.5, 0.3, 0.6), face(0.51, 0.5, 0.32, 0.8), face(0.8, 0.5, 0.3, 0.7)])
    assert [round(one.score, 1) for one in found] == [0.8, 0.7]


# ---- all of them --------------------------------------------------------------------------------

EVERY: dict[str, Dimension] = {
    "subject": SUBJECT, "background": BACKGROUND, "safe-zone": LEFT, "faces": Faces(Shows(), Casting()),
    "palette": PaletteShare(Palette(colours=("#d62828",), distance=5)),
    "luminance": Luminance(Light(reference=0.2, stops=1)),
}  # fmt: skip
SIZES = ((1, 1), (1, 64), (2, 2), (7, 7), (8, 4096), (4096, 8), (16, 16))


@pytest.mark.parametrize("name", EVERY)
def test_odd_pictures_are_measured_or_said_to_be_odd(name: str) -> None:
    """Down to one pixel, long strips, floats, greys, four channels: a finite value, or none with the reason."""
    odd: list[np.ndarray] = [np.full((*size, 3), level, np.uint8) for size in SIZES for level in (0, 255)]
    odd += [np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    wrong: list[np.ndarray] = [
        np.zeros((32, 32, 3), np.float32),
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
    ]
    for pixels in [*odd, *wrong]:
        found = measured(EVERY[name], pixels)
        assert found.reason and (found.value is None or 0 <= found.value <= 1)
    assert all(measured(EVERY[name], pixels).value is None for pixels in wrong)


@pytest.mark.parametrize("name", EVERY)
def test_every_evaluator_says_its_unit_what_it_does_not_see_and_a_version(name: str) -> None:
    """The version follows from the parameters."""
    told = EVERY[name].describe()
    assert told.unit and told.blind_to and "-" in told.version
    others = {Subject(Framing(offset_max=0.2)).describe().version, Subject(Framing(offset_max=0.3)).describe().version}
    assert len(others | {SUBJECT.describe().version}) == 3


def built(name: str) -> dimensions.ByAssetType:
    kit = dimensions.Kit(clip_dir=Path())
    return dimensions.ByAssetType(name, {one: build(kit) for one, build in dimensions.BY_ASSET_TYPE[name].items()})


def test_the_demo_s_tiles_pass_both_of_their_rows() -> None:
    """Every shape, colour and size of the world, at 64 and at 512 px: no row of a tile keeps a right one out."""
    subject, ground = built("subject"), built("background")
    for seed, scene in enumerate(world.all_scenes()[::7]):
        pixels = world.render(scene, seed, 512 if seed % 5 == 0 else 64)
        found = {"subject": measured(subject, pixels), "background": measured(ground, pixels)}
        scores = Gate().scores(found, {}, asset_type="product-tile", long_side_px=64)
        assert overall({name: scores[name] for name in found}, frozenset(found)) == "pass", (scene, found)


def test_one_name_is_measured_as_each_asset_type_demands() -> None:
    """A type that has no row for it is told so, and is not measured by another's."""
    pixels = tile(0.5, 0.2, 0.3)
    zones = built("safe-zone")

    def asked(asset_type: str) -> Measured:
        return zones.measure([Picture(pixels=pixels, prompt="", asset_type=asset_type)])[0]

    assert "bottom" in (asked("paid-social").reason or "") or (asked("paid-social").value or 0) > 0.9
    assert asked("email-hero").value is not None
    assert asked("generic").value is None


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (Framing, {"coverage_min": 0.0}), (Framing, {"offset_max": 0.6}), (Framing, {"centre": 1}),
        (Zones, {"zones": ()}), (Zones, {"zones": ({"left": 0.5, "right": 0.5},)}),
        (Zones, {"zones": ({"right": 1.2},)}), (Evenness, {"spread_max": 0}),
        (Casting, {"count_min": 3, "count_max": 2}), (Casting, {"margin": 0}), (Light, {"reference": 0, "stops": 1}),
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(cls: Any, values: dict[str, Any]) -> None:
    """Empty zones, bounds out of order or out of range, unknown words."""
    with pytest.raises(ValidationError):
        cls.model_validate(values)


@pytest.mark.gpu
def test_the_real_detector_finds_a_real_face_where_it_is_however_large_or_turned() -> None:
    """Grace Hopper's portrait, which matplotlib brings: at three sizes, mirrored, twice in one picture; none in a
    scene of the world; and a second question about one picture is not a second run."""
    import matplotlib

    from giclee.scorer.detectors.nudenet import NudeNet

    detector = NudeNet()
    portrait = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")
    for wide in (128, 512, 1024):
        shown = portrait.resize((wide, wide * 600 // 512))
        for pixels, x in ((np.asarray(shown), 0.52), (np.asarray(shown)[:, ::-1].copy(), 0.48)):
            (one,) = (seen for seen in detector.faces(pixels, 0.25))
            assert one.score > 0.6
            assert (one.left + one.right) / 2 == pytest.approx(x, abs=0.03)
            assert (one.top + one.bottom) / 2 == pytest.approx(0.40, abs=0.03)
            assert one.bottom - one.top == pytest.approx(0.34, abs=0.04)
    pair = Image.new("RGB", (1024, 600), (90, 90, 90))
    pair.paste(portrait.resize((410, 480)), (40, 60))
    pair.paste(portrait.resize((410, 480)), (560, 60))
    found = measured(Faces(detector, Casting(count_min=2, count_max=2)), np.asarray(pair))
    assert found.value == 1.0 and found.certain, found
    scene = world.render(world.all_scenes()[0], 1)
    assert not detector.faces(scene, 0.25)
    again = np.asarray(portrait)
    assert detector._seen(again) is detector._seen(again)
    assert detector._seen(again.copy()) is not detector._seen(again)
