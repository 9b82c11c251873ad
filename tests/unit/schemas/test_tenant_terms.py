"""What tenants demand: rows that mean something, and only what is known meets them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from giclee.schemas import tenant_terms
from giclee.schemas.models import Model
from giclee.schemas.strict import InvalidInput
from giclee.schemas.tenant_terms import Demand, Demands
from tests.unit.router.builders import model


def loaded(folder: Path, text: str) -> Demands:
    path = folder / "giclee.toml"
    path.write_text(text)
    return Demands(tenant_terms.load(str(path)))


def test_a_demand_of_all_tenants_adds_to_a_tenants_own(tmp_path: Path) -> None:
    """The stricter terms and the regions that both name; who has no row has that of all."""
    demands = loaded(tmp_path, """
    [[tenant-terms]]
    data_terms = "kept"
    regions = ["eu", "us"]
    [[tenant-terms]]
    tenant = "acme"
    data_terms = "nothing-kept"
    regions = ["eu", "ch"]
    """)  # fmt: skip
    assert demands.of("acme") == Demand(frozenset({"nothing-kept"}), frozenset({"eu"}))
    assert demands.of("other") == Demand(frozenset({"nothing-kept", "kept"}), frozenset({"eu", "us"}))


def test_without_a_row_nothing_is_demanded(tmp_path: Path) -> None:
    own = loaded(tmp_path, '[[tenant-terms]]\ntenant = "acme"\ndata_terms = "kept"\n')
    assert Demands().of("acme") is None and own.of("other") is None


@pytest.mark.parametrize(
    ("row", "where"),
    [
        ('tenant = "acme"', "/tenant-terms/0"),
        ('data_terms = "trained-on"', "/tenant-terms/0/data_terms"),
        ('data_terms = "no-training"', "/tenant-terms/0/data_terms"),
        ("regions = []", "/tenant-terms/0/regions"),
        ('tenants = ["acme"]\ndata_terms = "kept"', "/tenant-terms/0/tenants"),
        ('data_terms = "kept"\n[[tenant-terms]]\nregions = ["eu"]', "/tenant-terms/1/tenant"),
    ],
)
def test_a_row_that_cannot_be_meant_is_named(tmp_path: Path, row: str, where: str) -> None:
    """Nobody's prompts go abroad because a word was misspelt."""
    with pytest.raises(InvalidInput) as said:
        loaded(tmp_path, f"[[tenant-terms]]\n{row}\n")
    assert where in [error.pointer for error in said.value.errors]


def row(provider: str, terms: str | None, region: str | None) -> Model:
    said = {"data_terms": terms, "region": region, "private": False}
    return model("one", provider=provider, **{name: value for name, value in said.items() if value is not None})


@given(
    provider=some.sampled_from(["diffusion", "fal"]),
    terms=some.sampled_from([None, "nothing-kept", "kept", "trained-on"]),
    region=some.sampled_from([None, "eu", "us"]),
    most=some.sampled_from([None, "nothing-kept", "kept"]),
    regions=some.none() | some.sets(some.sampled_from(["eu", "us"]), min_size=1),
)
def test_only_what_is_known_to_keep_a_demand_meets_it(
    provider: str, terms: str | None, region: str | None, most: str | None, regions: set[str] | None
) -> None:
    """Own devices keep nothing unless their row says other; whatever a hosted row leaves out is not kept."""
    allowed = {"nothing-kept": {"nothing-kept"}, "kept": {"nothing-kept", "kept"}}
    demand = Demand(None if most is None else frozenset(allowed[most]), None if regions is None else frozenset(regions))
    known = terms or ("nothing-kept" if provider == "diffusion" else None)
    keeps = (most is None or known in allowed[most]) and (regions is None or region in regions)
    assert (demand.broken_by(row(provider, terms, region)) is None) == keeps


def test_a_hosted_row_is_private_only_where_it_says_so() -> None:
    """One that forgets the word never sees a confidential prompt."""
    assert not model("cloud", provider="fal").private
    assert model("cloud", provider="fal", private=True).private
    assert model("own").private
