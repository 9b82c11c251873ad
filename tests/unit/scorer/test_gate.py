"""The gate fails closed: only finite, certain values on the right side pass, and only all of them together."""

from __future__ import annotations

import math
from typing import Any

import pytest

from giclee.schemas.events import ImageScored
from giclee.scorer.dimension import Evaluator, Measured
from giclee.scorer.gate import TABLE, Gate, Row, overall, version_of

GATE = Gate((Row(dimension="a", pass_at=0.5, doubt_at=0.2), Row(dimension="b", pass_at=0.9, doubt_at=0.1)))
WHO = {name: Evaluator(f"model of {name}", "1") for name in "abc"}


def judged(**measured: Measured | None) -> tuple[str, dict[str, Any]]:
    scores = GATE.scores(measured, WHO, asset_type="generic", long_side_px=64)
    return overall(scores, GATE.required()), scores


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Measured(0.5), "pass"),
        (Measured(1.0), "pass"),
        (Measured(0.4999), "unsure"),
        (Measured(0.2), "unsure"),
        (Measured(0.19), "fail"),
        (Measured(-1.0), "fail"),
        (Measured(None), "unsure"),
        (Measured(math.nan), "unsure"),
        (Measured(math.inf), "unsure"),
        (Measured(-math.inf), "unsure"),
        (Measured(0.99, certain=False), "unsure"),
        (Measured(0.0, certain=False), "unsure"),
        (None, "unsure"),
    ],
)
def test_only_a_finite_certain_value_over_the_threshold_passes(found: Measured | None, verdict: str) -> None:
    """And the image passes only if this one does."""
    whole, scores = judged(a=found, b=Measured(0.95))
    assert scores["a"].verdict == verdict
    assert whole == verdict
    assert scores["a"].passes() == (verdict == "pass")


def test_a_required_dimension_that_is_missing_is_unsure() -> None:
    """Not measured is not passed; the score says so."""
    whole, scores = judged(a=Measured(1.0))
    assert (whole, scores["b"].verdict, scores["b"].reason) == ("unsure", "unsure", "not measured")
    assert judged()[0] == "unsure"
    assert overall({}, frozenset()) == "unsure", "no dimension at all is no pass"


def test_one_failure_fails_the_image_whatever_the_others_say() -> None:
    """Also beside doubts."""
    assert judged(a=Measured(0.0), b=Measured(0.5))[0] == "fail"


def test_a_dimension_without_a_row_is_shown_and_decides_nothing() -> None:
    """Measure first, decide later; where it could not measure it is left out."""
    whole, scores = judged(a=Measured(1.0), b=Measured(1.0), c=Measured(0.0))
    assert (whole, scores["c"].verdict, scores["c"].threshold) == ("pass", "pass", None)
    whole, scores = judged(a=Measured(1.0), b=Measured(1.0), c=Measured(math.nan))
    assert whole == "pass" and "c" not in scores


def test_what_the_publisher_checks_agrees_with_the_verdict() -> None:
    """ImageScored.passes() asks every score again."""
    for found in (Measured(1.0), Measured(math.nan), None, Measured(1.0, certain=False), Measured(0.3)):
        whole, scores = judged(a=found, b=Measured(1.0))
        said: dict[str, Any] = {"scores": scores, "verdict": whole, "gate_version": GATE.version}
        assert ImageScored.model_construct(**said).passes() == (whole == "pass")


def test_the_version_is_the_tables_hash() -> None:
    """Any changed threshold changes it; it is the same on every machine."""
    other = (Row(dimension="a", pass_at=0.51, doubt_at=0.2), *GATE.table[1:])
    assert version_of(other) != GATE.version == version_of(tuple(GATE.table))


@pytest.mark.parametrize(
    ("long_side_px", "value", "verdict"),
    [(64, 0.31, "pass"), (128, 0.31, "pass"), (128, 0.1, "unsure"), (64, 0.0, "unsure"),
     (129, 0.74, "unsure"), (1024, 0.76, "pass"), (1024, 0.4, "fail")],
)  # fmt: skip
def test_bodies_in_small_pictures_raise_a_doubt_and_never_fail(long_side_px: int, value: float, verdict: str) -> None:
    """The detector sees bodies in 12 % of clean circles of 64 px; it is strict from 129 px on."""
    found = {"safety": Measured(value), "alignment": Measured(1.0)}
    scores = Gate().scores(found, {}, asset_type="generic", long_side_px=long_side_px)
    assert scores["safety"].verdict == verdict


def test_the_first_row_that_fits_counts_and_rows_can_be_of_one_asset_type() -> None:
    """Stricter for one type, by a row before the general one."""
    gate = Gate((Row(dimension="a", asset_type="email-hero", pass_at=0.9, doubt_at=0.0), *GATE.table))
    strict = gate.scores({"a": Measured(0.6)}, {}, asset_type="email-hero", long_side_px=64)
    loose = gate.scores({"a": Measured(0.6)}, {}, asset_type="generic", long_side_px=64)
    assert (strict["a"].verdict, loose["a"].verdict) == ("unsure", "pass")


def test_every_row_of_the_table_makes_sense() -> None:
    """Doubt lies under pass, every dimension has a row without limits, safety is never passed at zero."""
    for row in TABLE:
        assert row.doubt_at <= row.pass_at and row.pass_at > 0
    for name in Gate().required():
        assert any(row.dimension == name and row.asset_type is None and row.long_side_max_px is None for row in TABLE)
