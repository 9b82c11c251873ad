"""The operator's asset types: rows over the table, held to the bounds of requests, every error at once."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from giclee.policy import asset_types
from giclee.policy.__main__ import judge_of
from giclee.policy.verdict import Judge, policy_version
from giclee.schemas.strict import InvalidInput
from tests.unit.policy.builders import requested

OWN = """
[[asset-type]]
name = "catalogue-square"
wanted_max = 20
candidates_max = 60
ratio_min = 1.0
ratio_max = 1.0

[[asset-type]]
name = "email-hero"
limit_usd = 0.004
first_wave = 3
review = { rule = "all", share = 0.05 }
"""


def written(folder: Path, text: str) -> str:
    path = folder / "giclee.toml"
    path.write_text(text)
    return str(path)


def test_a_row_adds_a_type_or_changes_what_it_says_of_a_known_one(tmp_path: Path) -> None:
    """The rest is as built in; a new type is as generic where it says nothing."""
    table = asset_types.load(written(tmp_path, OWN))
    new, hero = table["catalogue-square"], table["email-hero"]
    assert (new.wanted_max, new.candidates_max, new.ratio_max) == (20, 60, 1.0)
    assert (new.side_max_px, new.copies) == (asset_types.TABLE["generic"].side_max_px, "order")
    assert (hero.limit_usd, hero.first_wave) == (Decimal("0.004"), 3)
    assert (hero.review.rule, hero.review.share) == ("all", 0.05)
    assert hero.ratio_max == asset_types.TABLE["email-hero"].ratio_max
    assert {name: table[name] for name in asset_types.TABLE if name != "email-hero"} == {
        name: row for name, row in asset_types.TABLE.items() if name != "email-hero"
    }
    assert asset_types.load(None) == asset_types.TABLE


def test_requests_are_judged_by_the_operator_s_rows_and_verdicts_carry_another_version(tmp_path: Path) -> None:
    """A type that was unknown is cleared, its caps hold, and its name is told where none fits."""
    judge = judge_of(written(tmp_path, OWN), Path("models"))
    assert Judge().rule(requested(asset_type="catalogue-square")).cause == "asset_type_unknown"
    assert judge.rule(requested(asset_type="catalogue-square")).cleared
    assert judge.rule(requested(asset_type="catalogue-square", wanted=21)).cause == "wanted-cap"
    assert judge.rule(requested(asset_type="email-hero")).first_wave == 3
    assert "catalogue-square" in judge.rule(requested(asset_type="poster")).reasons[0].message
    table = asset_types.load(written(tmp_path, OWN))
    assert policy_version(table) != policy_version() == policy_version(asset_types.load(None))
    assert judge.version.startswith(policy_version(table))


@pytest.mark.parametrize(
    ("row", "place", "says"),
    [
        ('name = "Big One"', "/asset-type/0/name", "pattern"),
        ("wanted_max = 3", "/asset-type/0/name", "required"),
        ('name = "a"\nwanted_max = 0', "/asset-type/0/wanted_max", "greater than or equal to 1"),
        ('name = "a"\nwanted_max = "many"', "/asset-type/0/wanted_max", "integer"),
        ('name = "a"\nwanted_max = true', "/asset-type/0/wanted_max", "integer"),
        ('name = "a"\ncandidates_max = 401', "/asset-type/0/candidates_max", "400"),
        ('name = "a"\nratio_min = nan', "/asset-type/0/ratio_min", "finite"),
        ('name = "a"\nratio_min = 3.0\nratio_max = 2.0', "/asset-type/0", "ratio_min is at most ratio_max"),
        ('name = "a"\ncandidates_max = 5\nwanted_max = 6', "/asset-type/0", "at most candidates_max"),
        ('name = "a"\nlimit_usd = 0', "/asset-type/0/limit_usd", "greater than 0"),
        ('name = "a"\nlimit_usd = 0.0000001', "/asset-type/0/limit_usd", "decimal places"),
        ('name = "a"\nside_max_px = 9000', "/asset-type/0/side_max_px", "4096"),
        ('name = "a"\ncopies = "all"', "/asset-type/0/copies", "order"),
        ('name = "a"\nreview = { shares = 0.1 }', "/asset-type/0/review", "unknown: shares"),
        ('name = "a"\nreview = { rule = "some" }', "/asset-type/0/review/rule", "doubts"),
        ('name = "a"\nreview = { share = 2 }', "/asset-type/0/review/share", "less than or equal to 1"),
        ('name = "a"\nwanted = 3', "/asset-type/0/wanted", "nexpected"),
        ('name = "a"\n[[asset-type]]\nname = "a"', "/asset-type/1/name", "a row before it"),
    ],
)
def test_a_row_that_makes_no_sense_stops_the_start_by_its_place(
    row: str, place: str, says: str, tmp_path: Path
) -> None:
    """Bounds of requests, types, unknown fields, a name twice."""
    with pytest.raises(InvalidInput) as caught:
        judge_of(written(tmp_path, f"[[asset-type]]\n{row}\n"), Path("models"))
    found = {error.pointer: error.detail for error in caught.value.errors}
    assert says in found[place], found


def test_every_bad_row_is_said_at_once(tmp_path: Path) -> None:
    """Two rows, three fields."""
    text = '[[asset-type]]\nname = "a"\nwanted_max = 0\nside_max_px = 1\n[[asset-type]]\nname = "b"\nratio_max = -1.0\n'
    with pytest.raises(InvalidInput) as caught:
        asset_types.load(written(tmp_path, text))
    assert [error.pointer for error in caught.value.errors] == [
        "/asset-type/0/wanted_max", "/asset-type/0/side_max_px", "/asset-type/1/ratio_max",
    ]  # fmt: skip
