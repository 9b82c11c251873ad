"""The gate fails closed: only finite, certain values on the right side pass, and only all of them together."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from giclee.schemas.events import GateSet, ImageScored
from giclee.schemas.gates import GateRow as Row
from giclee.schemas.gates import place_of
from giclee.scorer import configured, dimensions
from giclee.scorer.dimension import Evaluator, Measured
from giclee.scorer.gate import TABLE, Gate, Gates, overall, overlaid, version_of

GATE = Gate((Row(dimension="a", pass_at=0.5, doubt_at=0.2), Row(dimension="b", pass_at=0.9, doubt_at=0.1)))
WHO = {name: Evaluator(f"model of {name}", "1") for name in "abc"}


def judged(**measured: Measured | None) -> tuple[str, dict[str, Any]]:
    scores = GATE.scores(measured, WHO, asset_type="generic", long_side_px=64)
    return overall(scores, GATE.required("generic", 64)), scores


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


@pytest.mark.parametrize(
    ("value", "highest", "verdict"),
    [
        (0.9, 0.95, "pass"),
        (0.4, 0.45, "fail"),
        (0.4, 0.9, "unsure"),
        (0.4, 0.6, "unsure"),
        (0.6, 0.9, "unsure"),
        (0.9, math.nan, "unsure"),
        (0.4, math.nan, "unsure"),
        (math.nan, 0.9, "unsure"),
    ],
)
def test_judges_who_disagree_pass_by_the_lowest_and_fail_by_the_highest(
    value: float, highest: float, verdict: str
) -> None:
    """A verdict that was kept is judged again in the same way."""
    gate = Gate((Row(dimension="safety", pass_at=0.75, doubt_at=0.5),))
    measured: dict[str, Measured | None] = {"safety": Measured(value, highest=highest)}
    found = gate.scores(measured, {}, asset_type="generic", long_side_px=512)["safety"]
    assert found.verdict == verdict
    if math.isfinite(highest) and math.isfinite(value):
        again = Measured(found.value, highest=found.highest)
        assert gate.scores({"safety": again}, {}, asset_type="generic", long_side_px=512)["safety"] == found.model_copy(
            update={"reason": None}
        )


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
    """Safety is never passed at zero; what one asset type's row names has a row for every size; nothing is named that
    nobody measures."""
    for row in TABLE:
        assert row.pass_at > 0
        assert any(one.place() == place_of(row.dimension, row.asset_type, None) for one in TABLE)
    assert {row.dimension for row in TABLE if row.asset_type is None} <= set(dimensions.TABLE)
    for row in TABLE:
        assert row.asset_type is None or row.asset_type in dimensions.BY_ASSET_TYPE[row.dimension]


def test_what_one_asset_type_must_have_others_need_not() -> None:
    """A row of one asset type decides there, missing or measured, and elsewhere it is as if it were not."""
    gate = Gate((Row(dimension="a", pass_at=0.5, doubt_at=0.2),
                 Row(dimension="tile", asset_type="product-tile", pass_at=0.5, doubt_at=0.2)))  # fmt: skip

    def whole(asset_type: str, **values: float) -> str:
        measured = {name: Measured(value) for name, value in values.items()}
        scores = gate.scores(measured, {}, asset_type=asset_type, long_side_px=64)
        return overall(scores, gate.required(asset_type, 64))

    assert [whole("product-tile", a=1, tile=tile) for tile in (1, 0.3, 0)] == ["pass", "unsure", "fail"]
    assert whole("product-tile", a=1) == "unsure"
    assert whole("generic", a=1) == "pass"
    assert whole("generic", a=1, tile=0) == "pass"
    assert "tile" not in gate.scores({"a": Measured(1.0)}, {}, asset_type="generic", long_side_px=64)


def test_what_only_small_pictures_must_have_large_ones_need_not() -> None:
    """What is required follows the rows that fit the picture's size as well."""
    gate = Gate((*GATE.table, Row(dimension="c", long_side_max_px=128, pass_at=0.5, doubt_at=None)))
    assert gate.required("generic", 64) == {"a", "b", "c"}
    assert gate.required("generic", 512) == {"a", "b"}


AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def told(row: Row | None, place: str = "") -> GateSet:
    return GateSet(place=place or (row.place() if row else ""), row=row, reason="r", actor="ada", set_at=AT)


def test_what_was_set_lies_over_the_file_and_that_over_the_table() -> None:
    """Per place; narrower rows stand before wider ones; taken back, the layer below counts again."""
    file = [Row(dimension="alignment", pass_at=0.8, doubt_at=0.6), Row(dimension="brand", pass_at=0.9, doubt_at=0.1)]
    hero = Row(dimension="alignment", asset_type="email-hero", pass_at=0.95, doubt_at=0.6)
    live: dict[str, GateSet] = {}
    gates = Gates(live, file)

    def thresholds(asset_type: str) -> tuple[float | None, str]:
        scores = gates.now().scores({"alignment": Measured(0.9)}, {}, asset_type=asset_type, long_side_px=64)
        return scores["alignment"].threshold, scores["alignment"].verdict

    assert thresholds("generic") == (0.8, "pass")
    assert "brand" in gates.now().required("generic", 64)
    before = gates.now().version
    live[hero.place()] = told(hero)
    assert (thresholds("email-hero"), thresholds("generic")) == ((0.95, "unsure"), (0.8, "pass"))
    assert gates.now().version != before
    live[hero.place()] = told(None, hero.place())
    assert thresholds("email-hero") == (0.8, "pass")
    assert gates.now().version == before


def test_a_gate_that_does_not_change_is_made_once() -> None:
    """The table is looked at for every image."""
    gates = Gates({})
    assert gates.now() is gates.now()
    assert gates.now().table == overlaid(TABLE)


@pytest.mark.parametrize(
    "values",
    [
        {"pass_at": math.nan, "doubt_at": 0.1}, {"pass_at": math.inf, "doubt_at": 0.1},
        {"pass_at": 0.5, "doubt_at": 0.6}, {"pass_at": 0.5, "doubt_at": math.nan},
        {"pass_at": 0.5, "doubt_at": 0.1, "dimension": "No Such"}, {"pass_at": 0.5},
        {"pass_at": 0.5, "doubt_at": 0.1, "long_side_max_px": 0}, {"pass_at": 0.5, "doubt_at": 0.1, "colour": "red"},
    ],
)  # fmt: skip
def test_a_threshold_that_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    """Not a number, out of order, about nothing, or with a word too many."""
    with pytest.raises(ValidationError):
        Row.model_validate({"dimension": "alignment", **values})


@pytest.mark.parametrize(("pass_at", "doubt_at"), [(75, 50), (-0.1, -0.2), (0.5, -1), (1.01, 0.5)])
def test_a_threshold_that_a_built_in_dimension_cannot_measure_is_refused(pass_at: float, doubt_at: float) -> None:
    """They measure 0 to 1: in percent nothing would pass, under 0 everything. The operator's own may be larger."""
    for name in configured.BUILT_IN:
        with pytest.raises(ValidationError, match=f"is no value of {name}, which measures from 0 to 1"):
            Row(dimension=name, pass_at=pass_at, doubt_at=doubt_at)
    assert Row(dimension="brand", pass_at=pass_at, doubt_at=doubt_at).pass_at == pass_at


def test_of_a_size_nobody_said_the_strictest_row_counts() -> None:
    """Whichever size it is of; and of another asset type's rows none."""
    small = Row(dimension="a", pass_at=0.9, doubt_at=0.1, long_side_max_px=128)
    others = [Row(dimension="a", pass_at=at, doubt_at=0, asset_type=kind) for at, kind in ((0.5, None), (0.95, "hero"))]
    gate = Gate(overlaid([small, *others]))
    assert [row.pass_at for kind in ("tile", "hero") if (row := gate.strictest("a", kind))] == [0.9, 0.95]
    assert gate.strictest("b", "tile") is None
