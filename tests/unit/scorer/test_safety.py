"""Safety over a stub detector: what is not an answer is not a pass."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from giclee.scorer.dimension import Evaluator, Picture
from giclee.scorer.dimensions.safety import CLASSES, WEIGHTS, NudeNet, Safety, _bundled
from giclee.scorer.gate import Gate


class Says:
    """A detector that says what it is told."""

    def __init__(self, **found: float) -> None:
        self.found = {**dict.fromkeys(CLASSES, 0.01), **found}

    def detect(self, pixels: np.ndarray) -> Mapping[str, float]:
        return self.found

    def describe(self) -> Evaluator:
        return Evaluator("stub", "1")


def verdict(detector: Says, side_px: int = 512, pixels: np.ndarray | None = None) -> str:
    shown = np.zeros((side_px, side_px, 3), np.uint8) if pixels is None else pixels
    (found,) = Safety(detector).measure([Picture(pixels=shown, prompt="")])
    return Gate().scores({"safety": found}, {}, asset_type="generic", long_side_px=side_px)["safety"].verdict


@pytest.mark.parametrize(
    ("name", "score", "comes_to"),
    [
        ("FEMALE_BREAST_EXPOSED", 0.24, "pass"),
        ("FEMALE_BREAST_EXPOSED", 0.26, "unsure"),
        ("MALE_GENITALIA_EXPOSED", 0.6, "fail"),
        ("BUTTOCKS_EXPOSED", 0.34, "pass"),
        ("BUTTOCKS_EXPOSED", 0.4, "unsure"),
        ("MALE_BREAST_EXPOSED", 0.6, "pass"),
        ("MALE_BREAST_EXPOSED", 0.9, "unsure"),
        ("FACE_FEMALE", 0.99, "pass"),
        ("FEMALE_BREAST_COVERED", 0.99, "pass"),
        ("ANUS_EXPOSED", math.nan, "unsure"),
    ],
)
def test_each_class_has_its_own_policy(name: str, score: float, comes_to: str) -> None:
    """Exposed classes count by their weight; faces and covered ones do not."""
    assert verdict(Says(**{name: score})) == comes_to


def test_a_score_that_is_not_a_number_is_not_hidden_by_a_lower_one() -> None:
    """One NaN among the classes that count makes the whole measurement unsure."""
    for name in WEIGHTS:
        assert verdict(Says(**{name: math.nan})) == "unsure"


def test_a_detector_that_leaves_a_class_out_does_not_pass() -> None:
    """Missing is not zero."""
    detector = Says()
    del detector.found["ANUS_EXPOSED"]
    assert verdict(detector) == "unsure"


@pytest.mark.parametrize(
    "pixels", [np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8)]
)
def test_only_rgb_bytes_are_shown_to_a_detector(pixels: np.ndarray) -> None:
    """A float array would silently come back empty."""
    assert verdict(Says(), 64, pixels) == "unsure"


def test_every_class_with_a_policy_exists() -> None:
    """A misspelt class would never count."""
    assert WEIGHTS.keys() <= set(CLASSES)
    assert {name for name in CLASSES if name.endswith("_EXPOSED")} - WEIGHTS.keys() == {
        "FEET_EXPOSED",
        "ARMPITS_EXPOSED",
        "BELLY_EXPOSED",
    }


@pytest.mark.gpu
def test_the_real_detector_agrees_with_its_package_and_hides_nothing() -> None:
    """Wherever the package reports a class, our score of it is the same: circles of the world, where it sees bodies."""
    import nudenet

    from giclee.models import world

    ours, theirs, met = NudeNet(), nudenet.NudeDetector(), 0
    for seed, scene in enumerate(one for one in world.all_scenes() if one.shape == "circle" and one.size != "small"):
        if seed % 4:
            continue
        pixels = world.render(scene, seed)
        mine = ours.detect(pixels)
        for found in theirs.detect(pixels):
            met += 1
            assert mine[found["class"]] >= found["score"] - 1e-3
    assert met > 3, "nothing was compared"


@pytest.mark.gpu
def test_no_clean_render_is_doubted() -> None:
    """With the gate row for small pictures. Every 29th scene; the worst of all 1,008 was 0.46."""
    from giclee.models import world

    safety = Safety(NudeNet())
    shown = [Picture(pixels=world.render(scene, 7), prompt="") for scene in world.all_scenes()[::29]]
    for found in safety.measure(shown):
        assert found.value is not None and found.value > 0.5


@pytest.mark.gpu
def test_missing_or_other_weights_are_said(tmp_path: object) -> None:
    """The process exits instead of passing everything."""
    from pathlib import Path

    from giclee.scorer.dimension import NotUsable

    other = Path(str(tmp_path)) / "320n.onnx"
    with pytest.raises(NotUsable, match="is missing"):
        NudeNet(weights=other)
    other.write_bytes(_bundled().read_bytes()[:-1] + b"x")
    with pytest.raises(NotUsable, match="is pinned"):
        NudeNet(weights=other)
