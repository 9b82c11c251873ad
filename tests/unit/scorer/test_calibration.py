"""The promise of a threshold holds on fresh pictures, and is refused where labels cannot carry it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from giclee.scorer.calibration import TooFew, choose, needed, upper_bound


def pictures(count: int, seed: int, good: float = 0.6, apart: float = 2.5) -> tuple[Any, Any]:
    """Scores and whether they are right: two bells, `apart` deviations from each other."""
    dice = np.random.default_rng(seed)
    right = dice.random(count) < good
    return dice.normal(0, 1, count) + apart * right, right


@pytest.mark.parametrize(("bad", "count", "bound"), [(0, 149, 0.0199), (0, 10, 0.2589), (3, 100, 0.0757), (5, 5, 1.0)])
def test_the_bound_is_clopper_pearsons(bad: int, count: int, bound: float) -> None:
    """Values of the published tables, one-sided 95 %."""
    assert upper_bound(bad, count, 0.05) == pytest.approx(bound, abs=5e-4)


def test_the_promise_holds_on_fresh_pictures_as_often_as_it_says() -> None:
    """200 calibrations at 2 % with 90 %: the true share of bad ones among the accepted is over 2 % in at most a few."""
    broken = 0
    for seed in range(200):
        scores, right = pictures(3000, seed)
        threshold = choose(scores, right, bad_rate=0.02, confidence=0.9).threshold
        fresh, truth = pictures(40_000, 10_000 + seed)
        accepted = fresh >= threshold
        broken += (~truth[accepted]).mean() > 0.02
    assert broken <= 20


def test_what_is_accepted_is_near_what_an_oracle_would() -> None:
    """With 4,000 labels at least three quarters of its acceptance at an AUC of 0.96, and nine tenths at 0.98."""
    for apart, share in ((2.5, 0.75), (3.0, 0.9)):
        scores, right = pictures(4000, 1, apart=apart)
        fresh, truth = pictures(40_000, 2, apart=apart)
        mine = (fresh >= choose(scores, right, bad_rate=0.02).threshold).mean()
        order = np.argsort(-fresh)
        bad = np.cumsum(~truth[order]) / np.arange(1, len(fresh) + 1)
        oracle = (np.flatnonzero(bad <= 0.02).max() + 1) / len(fresh)
        assert mine >= share * oracle


def test_too_few_labels_are_refused_with_how_many_it_takes() -> None:
    """Too few at all, and too few for how good the measurement is."""
    scores, right = pictures(100, 1)
    with pytest.raises(TooFew, match=f"at least {needed(0.02, 0.01)} accepted ones are needed"):
        choose(scores, right, bad_rate=0.02)
    scores, right = pictures(600, 3, apart=1.5)
    with pytest.raises(TooFew, match=r"about \d+ accepted ones are needed, \d+ in all|no number of labels helps"):
        choose(scores, right, bad_rate=0.01)
    blind = np.random.default_rng(1).random(4000)
    with pytest.raises(TooFew, match="no number of labels helps"):
        choose(blind, blind < 0.6, bad_rate=0.02)


def test_ties_are_accepted_together() -> None:
    """A threshold in the middle of equal scores would accept more than was counted."""
    scores = [0.9] * 300 + [0.5] * 300
    right = [True] * 300 + [True] * 150 + [False] * 150
    found = choose(scores, right, bad_rate=0.02)

    assert (found.threshold, found.accepted, found.bad) == (0.9, 300, 0)


@pytest.mark.parametrize(
    ("scores", "right", "rate"),
    [([1.0], [True, False], 0.02), ([float("nan")], [True], 0.02), ([1.0], [True], 0.0), ([1.0], [True], 1.5)],
)
def test_nonsense_is_refused(scores: list[float], right: list[bool], rate: float) -> None:
    """Missing labels, scores that are no numbers, rates that are no shares."""
    with pytest.raises(ValueError, match=r"bad_rate|score"):
        choose(scores, right, bad_rate=rate)
