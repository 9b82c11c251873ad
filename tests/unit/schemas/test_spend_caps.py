"""Caps on spending: every bad row is named at once, and a cap that would never cap is one."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from giclee.schemas import spend_caps
from giclee.schemas.spend_caps import Cap
from giclee.schemas.strict import InvalidInput

PROVIDERS = {"fal", "openai-images", "diffusion"}


def loaded(folder: Path, text: str) -> tuple[Cap, ...]:
    path = folder / "giclee.toml"
    path.write_text(text)
    return spend_caps.load(str(path), PROVIDERS)


def test_a_cap_may_name_a_provider_a_tenant_both_or_neither(tmp_path: Path) -> None:
    """What is not named is capped together; amounts are exact."""
    text = """
    spend-cap = [
        {provider = "fal", daily_usd = "50"}, {tenant = "acme", daily_usd = 12.5},
        {provider = "fal", tenant = "acme", daily_usd = 0.000001}, {daily_usd = 0},
    ]
    """
    assert loaded(tmp_path, text) == (
        Cap("fal", "", Decimal(50)),
        Cap("", "acme", Decimal("12.5")),
        Cap("fal", "acme", Decimal("0.000001")),
        Cap("", "", Decimal(0)),
    )


def test_without_a_file_or_a_row_nothing_is_capped(tmp_path: Path) -> None:
    assert spend_caps.load(None, PROVIDERS) == () == loaded(tmp_path, "")


@pytest.mark.parametrize(
    ("row", "pointer"),
    [
        ('provider = "fal"', "/spend-cap/0/daily_usd"),
        ('provider = "fal"\ndaily_usd = -1', "/spend-cap/0/daily_usd"),
        ('provider = "fal"\ndaily_usd = "nan"', "/spend-cap/0/daily_usd"),
        ('provider = "fal"\ndaily_usd = "0.0000001"', "/spend-cap/0/daily_usd"),
        ('provider = "fal"\ndaily_usd = 1\nmonthly_usd = 9', "/spend-cap/0/monthly_usd"),
        ('tenant = "Not A Tenant"\ndaily_usd = 1', "/spend-cap/0/tenant"),
        ('provider = "fall"\ndaily_usd = 1', "/spend-cap/0/provider"),
        ('provider = "diffusion"\ndaily_usd = 1', "/spend-cap/0/provider"),
    ],
)
def test_a_row_that_cannot_cap_is_refused_by_name(tmp_path: Path, row: str, pointer: str) -> None:
    """An absurd amount, a misspelt field or provider, a provider that bills nothing."""
    with pytest.raises(InvalidInput) as said:
        loaded(tmp_path, f"[[spend-cap]]\n{row}\n")
    assert [one.pointer for one in said.value.errors] == [pointer]


def test_every_wrong_row_is_said_at_once(tmp_path: Path) -> None:
    text = """
    spend-cap = [
        {provider = "fal", daily_usd = 1}, {provider = "fall", daily_usd = 1}, {provider = "fal", daily_usd = 2},
    ]
    """
    with pytest.raises(InvalidInput) as said:
        loaded(tmp_path, text)
    assert [one.pointer for one in said.value.errors] == ["/spend-cap/1/provider", "/spend-cap/2/tenant"]


def test_a_call_must_fit_every_cap_that_names_it_in_one_order() -> None:
    """Two workers lock the same caps in the same order, whatever the file's."""
    caps = [
        Cap("fal", "acme", Decimal(1)),
        Cap("", "", Decimal(9)),
        Cap("fal", "", Decimal(2)),
        Cap("x", "", Decimal(0)),
    ]
    found = spend_caps.fitting(caps, "fal", "acme")
    assert found == spend_caps.fitting(caps[::-1], "fal", "acme")
    assert [(one.provider, one.tenant) for one in found] == [("", ""), ("fal", ""), ("fal", "acme")]
