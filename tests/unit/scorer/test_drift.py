"""Drift of scores: false alarms are bounded over all looks, changes are found soon, the nearest rows are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from giclee.scorer import drift
from giclee.scorer.drift import Spread
from giclee.scorer.labels import Label
from giclee.scorer.reference import LABELS_MIN, ReferenceRow, References, row_of, rows_of_labels

DIMENSIONS = 7
Draw = Callable[[np.random.Generator, int], np.ndarray]


def logistic(mean: float, spread: float = 2.0) -> Draw:
    """Values as alignment's lie: most near 1, some near 0. One standard deviation is `spread`."""

    def draw(dice: np.random.Generator, count: int) -> np.ndarray:
        values: np.ndarray = 1 / (1 + np.exp(-dice.normal(mean, spread, count)))
        return values

    return draw


def stepped(dice: np.random.Generator, count: int) -> np.ndarray:
    """Values as sharpness' lie: nine in ten are exactly 1."""
    values: np.ndarray = np.where(dice.random(count) < 0.9, 1.0, dice.random(count))
    return values


def first_alarm(row: ReferenceRow, values: np.ndarray) -> float:
    """After how many values it is raised when every one is looked at; infinity for never."""
    bets = drift.bets_of(row, DIMENSIONS)
    for block, start in enumerate(range(0, len(values), drift.BLOCK), 1):
        bins = np.searchsorted(row.edges, values[start : start + drift.BLOCK], side="right")
        counts = np.eye(len(row.counts), dtype=int)[bins].cumsum(axis=0)
        over = np.flatnonzero(bets.evidence(counts) >= drift.needed(block, DIMENSIONS))
        if len(over):
            return float(start + over[0] + 1)
    return math.inf


@pytest.mark.parametrize("draw", [logistic(2), stepped], ids=["continuous", "nearly all 1"])
@pytest.mark.parametrize("labels", [LABELS_MIN, 4000])
def test_a_model_that_does_not_change_raises_no_alarm(draw: Draw, labels: int) -> None:
    """Five times 50,000 images, each looked at; the bound is one alarm in 700 such runs of one dimension."""
    for seed in range(5):
        dice = np.random.default_rng(seed)
        assert first_alarm(row_of("a", draw(dice, labels).tolist()), draw(dice, 50_000)) == math.inf


@pytest.mark.parametrize(
    ("changed", "within"), [(logistic(-6), 12), (logistic(-2), 20), (logistic(0), 80), (logistic(4), 80), (stepped, 20)]
)
def test_a_changed_model_is_found_within_few_images(changed: Draw, within: int) -> None:
    """The slowest of 20 runs, 4,000 labels; one standard deviation, up or down, is the smallest change here."""
    found = []
    for seed in range(20):
        dice = np.random.default_rng(seed)
        found.append(first_alarm(row_of("a", logistic(2)(dice, 4000).tolist()), changed(dice, 2000)))
    assert max(found) <= within


def test_a_change_after_a_long_time_is_found_as_well() -> None:
    """The past is forgotten block by block: 20,250 images as calibrated, then one standard deviation less."""
    before = 20_250
    for seed in range(5):
        dice = np.random.default_rng(seed)
        row = row_of("a", logistic(2)(dice, 4000).tolist())
        values = np.concatenate([logistic(2)(dice, before), logistic(0)(dice, 2000)])
        assert before < first_alarm(row, values) <= before + 300


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.97])
def test_the_bets_cannot_gain_while_nothing_changed(share: float) -> None:
    """In the mean over all that can be counted they come to 1 on the bound and to less within it: what all rests on."""
    on_it = drift.betting(np.array([share, 1 - share]))
    within = drift.betting(np.array([share * 1.05, 1 - share * 0.95]).clip(0, 0.999))
    for total in (1, 2, 7, 40):
        under = np.arange(total + 1)
        chances = np.array([math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in under])
        counts = np.stack([under, total - under], axis=1)
        assert (chances * np.exp(on_it.evidence(counts))).sum() == pytest.approx(1)
        assert (chances * np.exp(within.evidence(counts))).sum() < 1


def test_the_true_share_lies_under_its_bound_as_often_as_promised() -> None:
    """Edges are themselves values of the sample, and the bound holds all the same."""
    dice, error, missed = np.random.default_rng(4), 0.05, 0
    for _ in range(400):
        row = row_of("a", dice.random(300).tolist())
        under = np.cumsum(row.counts)[:-1]
        missed += any(edge > drift.at_most(n / 300, 300, error / 10) for edge, n in zip(row.edges, under, strict=True))
    assert missed / 400 <= error


def test_counting_one_at_a_time_is_what_the_simulation_does() -> None:
    """`after` raises at the very image, whatever the batches, and says what changed."""
    dice = np.random.default_rng(5)
    row = row_of("alignment", logistic(2)(dice, 2000).tolist())
    yardstick = References([row]).of("generic", "final@2")
    assert yardstick is not None
    values = np.concatenate([logistic(2)(dice, 700), logistic(-2)(dice, 300)])
    spread, at = Spread(), 0
    raised: dict[str, str] = {}
    while not raised:
        spread, raised = drift.after(spread, yardstick, [{"alignment": value} for value in values[at : at + 7]])
        at += 7
    bets, alarm = drift.bets_of(row, 1), None
    for end in range(1, at + 1):
        start = (end - 1) // drift.BLOCK * drift.BLOCK
        bins = np.searchsorted(row.edges, values[start:end], side="right")
        counts = np.bincount(bins, minlength=len(row.counts))
        if bets.evidence(counts) >= drift.needed(start // drift.BLOCK + 1, 1):
            alarm = end
            break

    assert alarm is not None and at - 7 < alarm <= at
    assert (spread.seen, spread.block) == (at, 2)
    assert "images measure under" in raised["alignment"] and "of the calibration" in raised["alignment"]


def test_what_was_not_measured_counts_for_nothing() -> None:
    """An image without a value is seen, and its dimension's bins stay."""
    yardstick = References([row_of("a", [0.5] * 200), row_of("b", [0.5] * 200)]).of("generic", "m@1")
    assert yardstick is not None
    spread, raised = drift.after(Spread(), yardstick, [{"a": 0.5}, {}])
    assert (spread.seen, sum(spread.counts["a"]), sum(spread.counts["b"]), raised) == (2, 1, 0, {})


def rows(*about: tuple[str | None, str | None]) -> list[ReferenceRow]:
    """Rows that differ in their values, one for each (asset type, model)."""
    return [row_of("a", [at + 0.5] * 100, kind, model) for at, (kind, model) in enumerate(about)]


@pytest.mark.parametrize(
    ("model", "asset_type", "nearest", "seen"),
    [
        ("final@1", "hero", 3.5, True),
        ("final@1", "tile", 1.5, True),
        ("final@2", "hero", 3.5, False),
        ("final@2", "tile", 1.5, False),
        ("other@1", "hero", 2.5, False),
        ("other@1", "tile", 0.5, False),
    ],
)
def test_the_nearest_rows_count(model: str, asset_type: str, nearest: float, seen: bool) -> None:
    """The same revision, then another one of its name, then everything; the asset type's own before all's."""
    known = References(rows((None, None), (None, "final@1"), ("hero", None), ("hero", "final@1")))
    found = known.of(asset_type, model)
    assert found is not None
    assert (found.rows["a"].edges[0], found.seen) == (nearest, seen)


def test_what_was_never_calibrated_is_not_watched() -> None:
    """No row fits: the demo's built-in table alone, another asset type, another model."""
    assert References([]).of("hero", "final@1") is None and not References([])
    assert References(rows(("hero", "final@1"))).of("tile", "final@1") is None
    assert References(rows(("hero", "final@1"))).of("hero", "draft@1") is None


def test_few_labels_of_a_model_make_no_row() -> None:
    """Of its own; they are in everybody's."""
    labels = [Label(str(at), True, {"a": at / 130}, model="m@1" if at < 120 else "rare@1") for at in range(130)]
    made = rows_of_labels(labels, ["a", "never-measured"], "generic")
    told = [(row.model, row.asset_type, sum(row.counts)) for row in made]
    assert told == [
        (None, "generic", 130),
        ("m@1", "generic", 120),
    ]


@pytest.mark.parametrize(
    ("edges", "counts"), [([1, 2], [100, 1]), ([2, 1], [50, 50, 1]), ([1], [50, 49]), ([], [100]), ([1], [200, -1])]
)
def test_a_row_that_makes_no_sense_is_refused(edges: Sequence[float], counts: Sequence[int]) -> None:
    """Edges that fall, a count too few, too few labels."""
    with pytest.raises(ValidationError):
        ReferenceRow.model_validate({"dimension": "a", "edges": edges, "counts": counts})
