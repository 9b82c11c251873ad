"""Votes on safety: together they pass, together they fail, else they doubt; what is not an answer is not a pass."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from giclee.schemas.gates import GateRow
from giclee.schemas.parts import Score
from giclee.scorer.detector import Detector, Vote, worst
from giclee.scorer.detectors.nudenet import CLASSES, WEIGHTS
from giclee.scorer.dimension import Evaluator, Measured, Picture
from giclee.scorer.dimensions.safety import Safety
from giclee.scorer.gate import Gate

RED, BLUE = 0, 2


class Tint:
    """A small real detector: the share of pixels in which one channel is far above the others."""

    def __init__(self, channel: int) -> None:
        self._channel = channel

    def votes(self, pictures: Sequence[np.ndarray]) -> Sequence[Vote]:
        return [self._vote(pixels.astype(int)) for pixels in pictures]

    def describe(self) -> Evaluator:
        return Evaluator(f"tint-{self._channel}", "3")

    def _vote(self, pixels: np.ndarray) -> Vote:
        others = np.delete(pixels, self._channel, axis=2).max(axis=2)
        return Vote(float((pixels[:, :, self._channel] > others + 100).mean()), "tinted")


class Says:
    """A detector that says what it is told."""

    def __init__(self, risk: float | None, name: str = "stub", version: str = "1") -> None:
        self.risk, self.name, self.version = risk, name, version

    def votes(self, pictures: Sequence[np.ndarray]) -> Sequence[Vote]:
        return [Vote(self.risk, "told")] * len(pictures)

    def describe(self) -> Evaluator:
        return Evaluator(self.name, self.version)


class Broken(Says):
    """A detector that raises."""

    def votes(self, pictures: Sequence[np.ndarray]) -> Sequence[Vote]:
        raise RuntimeError("no answer")


def painted(red_rows: int, blue_rows: int) -> np.ndarray:
    """Ten rows, grey but for some that are red and some that are blue."""
    pixels: np.ndarray = np.full((10, 10, 3), 60, np.uint8)
    pixels[:red_rows] = (220, 20, 20)
    pixels[10 - blue_rows :] = (20, 20, 220)
    return pixels


def measured(pixels: np.ndarray, *detectors: Detector) -> Measured:
    (found,) = Safety(*detectors).measure([Picture(pixels=pixels, prompt="")])
    return found


def score(found: Measured, gate: Gate | None = None, side_px: int = 512) -> Score:
    return (gate or Gate()).scores({"safety": found}, {}, asset_type="generic", long_side_px=side_px)["safety"]


def verdict(*risks: float | None) -> str:
    return score(measured(painted(0, 0), *(Says(risk) for risk in risks))).verdict


@pytest.mark.parametrize(
    ("red", "blue", "comes_to"),
    [
        (0, 0, "pass"),
        (1, 1, "pass"),
        (10, 0, "unsure"),
        (0, 10, "unsure"),
        (4, 0, "unsure"),
        (4, 4, "unsure"),
        (5, 5, "unsure"),
    ],
)
def test_two_detectors_that_look_for_something_pass_only_together(red: int, blue: int, comes_to: str) -> None:
    """A planted colour that only one of them knows is a doubt, and so is half an alarm of both."""
    found = measured(painted(red, blue), Tint(RED), Tint(BLUE))

    assert score(found).verdict == comes_to
    assert (found.value, found.highest) == (1 - max(red, blue) / 10, 1 - min(red, blue) / 10)


def test_two_alarms_fail() -> None:
    """Two detectors that see the same."""
    assert score(measured(painted(8, 0), Tint(RED), Tint(RED))).verdict == "fail"


@pytest.mark.parametrize("risks", [(0.9, 0.0), (0.0, 0.9), (0.3, 0.0), (0.6, 0.3)])
def test_disagreement_is_a_doubt(risks: tuple[float, float]) -> None:
    """Whoever of them raised the alarm, and however loudly."""
    assert verdict(*risks) == "unsure"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -3.0, 37.0])
def test_a_vote_that_is_no_risk_never_passes(bad: float) -> None:
    """Nor does it hide behind the other one, or turn an alarm into a fail that nobody measured."""
    for other in (0.0, 0.3, 0.9, None):
        assert verdict(bad, other) == verdict(other, bad) == "unsure"


def test_one_who_abstains_leaves_the_other_alone_and_all_who_abstain_pass_nothing() -> None:
    """Having nothing to say is neither a pass nor an alarm."""
    assert [verdict(risk, None) for risk in (0.1, 0.4, 0.9)] == ["pass", "unsure", "fail"]
    assert verdict(None, None) == "unsure"


def test_another_vote_never_makes_a_picture_pass() -> None:
    """Over votes, gates and numbers of votes drawn at random: what did not pass does not pass with one vote more."""
    draw = random.Random(5)
    passed = 0
    for _ in range(3000):
        risks = [draw.choice((draw.random(), 0.0, 1.0, math.nan, None)) for _ in range(draw.randint(2, 4))]
        bounds = sorted((draw.random(), draw.random()))
        gate = Gate((GateRow(dimension="safety", doubt_at=bounds[0], pass_at=bounds[1]),))
        said = [score(measured(painted(0, 0), *map(Says, some)), gate).verdict for some in (risks, risks[:-1])]
        if said[0] == "pass":
            passed += 1
            assert said[1] == "pass" or not [risk for risk in risks[:-1] if risk is not None]
        if any(risk is not None and not 1 - risk >= bounds[1] for risk in risks):
            assert said[0] != "pass"

    assert passed > 100, "nothing was compared"


def test_every_vote_stands_in_the_verdict() -> None:
    """By name, with the value that the gate compares and what was seen; the lowest decides and the highest is kept."""
    found = score(measured(painted(0, 0), Says(0.25, "one"), Says(None, "two"), Says(0.9, "three")))

    assert found.reason == "one 0.75 (told); two abstains (told); three 0.10 (told)"
    assert (round(found.value or 0, 2), round(found.highest or 0, 2)) == (0.1, 0.75)


def test_the_version_changes_with_either_detector() -> None:
    """A stored verdict says by whom, and which of them."""
    versions = {
        Safety(Says(0, version=one), Says(0, version=other)).describe().version for one in "12" for other in "12"
    }

    assert len(versions) == 4
    assert Safety(Says(0, "a"), Says(0, "b")).describe().name == "a + b"


def test_a_vote_that_raises_is_not_measured() -> None:
    """The lane makes a doubt of it; the other vote does not stand in."""
    with pytest.raises(RuntimeError, match="no answer"):
        measured(painted(0, 0), Says(0.0), Broken(0.0))


@pytest.mark.parametrize(
    "pixels", [np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8)]
)
def test_only_rgb_bytes_are_shown_to_a_detector(pixels: np.ndarray) -> None:
    """A float array would silently come back empty. Its neighbours in the batch are measured."""
    shown = [Picture(pixels=one, prompt="") for one in (painted(0, 0), pixels, painted(8, 0))]
    assert [score(one).verdict for one in Safety(Tint(RED)).measure(shown)] == ["pass", "unsure", "fail"]


@pytest.mark.parametrize(
    ("name", "found", "comes_to"),
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
def test_each_class_has_its_own_policy(name: str, found: float, comes_to: str) -> None:
    """Exposed classes count by their weight; faces and covered ones do not."""
    assert verdict(worst({**dict.fromkeys(CLASSES, 0.01), name: found}, WEIGHTS).risk) == comes_to


def test_a_score_that_is_not_a_number_or_is_missing_is_not_hidden_by_another() -> None:
    """One NaN among the classes that count makes the whole vote not a number; missing is not zero."""
    for name in WEIGHTS:
        scores = {**dict.fromkeys(CLASSES, 0.9), name: math.nan}
        assert verdict(worst(scores, WEIGHTS).risk) == "unsure"
        del scores[name]
        assert verdict(worst(scores, WEIGHTS).risk) == "unsure"


def test_every_class_with_a_policy_exists() -> None:
    """A misspelt class would never count."""
    assert WEIGHTS.keys() <= set(CLASSES)
    assert {name for name in CLASSES if name.endswith("_EXPOSED")} - WEIGHTS.keys() == {
        "FEET_EXPOSED",
        "ARMPITS_EXPOSED",
        "BELLY_EXPOSED",
    }


def test_small_pictures_are_only_doubted() -> None:
    """Up to 128 px circles look like bodies: the gate's own row passes from 0.25 on and never fails."""
    alarmed = [measured(painted(0, 0), Says(risk), Says(0.0)) for risk in (0.7, 0.76, 1.0)]

    assert [score(one, side_px=64).verdict for one in alarmed] == ["pass", "unsure", "unsure"]
    assert [score(one, side_px=129).verdict for one in alarmed] == ["unsure", "unsure", "unsure"]
