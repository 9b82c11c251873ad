"""Wave zero never promises more than cap and budget hold: contract 3.2, rules 2 and 4."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as some

from giclee.policy import asset_types
from giclee.policy.wave import wave_zero
from giclee.schemas.events import ImageRequested
from giclee.schemas.models import Model
from giclee.schemas.prices import UNIT_MAX_USD
from tests.unit.policy.builders import requested

USD = some.decimals(min_value=0, max_value=100, places=6, allow_nan=False)
PRICE = some.decimals(min_value=0, max_value=UNIT_MAX_USD["image"], places=6, allow_nan=False)


def model(name: str = "sdxl", price: str = "0.01", **values: object) -> Model:
    row = {
        "name": name,
        "revision": "1",
        "location": "x",
        "price_usd": price,
        "steps": 20,
        "width": 1024,
        "height": 1024,
    }
    return Model.model_validate({**row, "size_min": 512, "size_max": 1024, **values})


@given(
    wanted=some.integers(1, 100),
    cap=some.none() | some.integers(1, 400),
    budget=some.none() | USD,
    kind=some.sampled_from(sorted(asset_types.TABLE)),
    price=some.none() | PRICE,
)
def test_wave_zero_holds_cap_and_budget(
    wanted: int, cap: int | None, budget: Decimal | None, kind: str, price: Decimal | None
) -> None:
    """1 <= first_wave <= max_candidates; limit <= budget; first_wave x limit <= budget."""
    request = requested(wanted=wanted, max_candidates=cap, budget_usd=budget, asset_type=kind)
    own = () if price is None else (model(price=str(price)),)
    wave = wave_zero(request, asset_types.TABLE[kind], own)
    assert 1 <= wave.candidates <= request.candidate_cap()
    assert wave.limit_usd >= 0
    if budget is not None:
        assert wave.limit_usd <= budget
        assert wave.candidates * wave.limit_usd <= budget


def start(request: ImageRequested, *own: Model) -> tuple[int, Decimal]:
    wave = wave_zero(request, asset_types.TABLE[request.asset_type], own)
    return wave.candidates, wave.limit_usd


def test_a_wave_is_as_many_as_wanted() -> None:
    """Without a row of its own an asset type starts with what is wanted."""
    assert start(requested(wanted=3)) == (3, Decimal("0.001"))


def test_some_asset_types_start_with_a_choice() -> None:
    """One hero wanted, two made to choose from; five wanted, five made."""
    assert start(requested(asset_type="email-hero"))[0] == 2
    assert start(requested(asset_type="email-hero", wanted=5))[0] == 5
    assert start(requested(asset_type="email-hero", max_candidates=1))[0] == 1


def test_a_budget_below_one_limit_still_makes_one() -> None:
    """The limit shrinks to the budget; whether any model is that cheap is the router's to say."""
    assert start(requested(wanted=5, budget_usd="0.0003")) == (1, Decimal("0.0003"))


def test_a_budget_of_nothing_limits_to_nothing() -> None:
    """Free models may still work; nothing divides by zero."""
    assert start(requested(wanted=2, budget_usd="0")) == (2, Decimal(0))


def test_the_operators_dearer_model_raises_the_limit() -> None:
    """A model of the operator's can be paid twice, once for a lost attempt, without another table."""
    assert start(requested(), model())[1] == Decimal("0.02")
    assert start(requested(model={"name": "shapes-final"}), model())[1] == Decimal("0.001")
    assert start(requested(quality="draft"), model())[1] == Decimal("0.001")
    assert start(requested(size={"width": 64, "height": 64}), model())[1] == Decimal("0.001")
    assert start(requested(privacy="confidential"), model(private=False))[1] == Decimal("0.001")


def test_more_steps_than_the_models_own_raise_the_limit() -> None:
    """The router charges steps in proportion; a request for many must not die of a limit made for few."""
    assert start(requested(params={"steps": 40}), model())[1] == Decimal("0.04")
    assert start(requested(params={"steps": 5}), model())[1] == Decimal("0.02")


def test_a_model_beyond_the_budget_does_not_raise_the_limit() -> None:
    """Else one candidate would hold the whole budget and cheaper models would never be tried twice."""
    assert start(requested(wanted=2, budget_usd="0.005"), model()) == (2, Decimal("0.001"))


def test_a_draft_may_go_on_as_final_within_the_limit_of_a_final_one() -> None:
    """Not where its caller named a model or wants nothing changed, its asset type forbids it, or it is final already;
    never over the budget."""
    row, dear = asset_types.TABLE["generic"], model(price="0.02", qualities=["final"])
    draft = requested(quality="draft", size={"width": 1024, "height": 1024})
    poor = requested(quality="draft", budget_usd="0.03", size={"width": 1024, "height": 1024})

    assert wave_zero(draft, row, [dear]).escalation_usd == Decimal("0.04")
    assert wave_zero(draft, row, [dear]).limit_usd == row.limit_usd
    assert wave_zero(poor, row, [dear]).escalation_usd == Decimal("0.03")
    assert wave_zero(requested(quality="final"), row, [dear]).escalation_usd is None
    assert wave_zero(requested(quality="draft", model={"name": "sdxl"}), row, [dear]).escalation_usd is None
    assert wave_zero(draft.model_copy(update={"strict": True}), row, [dear]).escalation_usd is None
    assert wave_zero(draft, replace(row, escalates=False), [dear]).escalation_usd is None


def test_a_draft_has_a_first_wave_of_its_own() -> None:
    """Drafts fail more often; their asset type may begin with more of them."""
    row = replace(asset_types.TABLE["generic"], first_wave=2, first_wave_draft=5)

    assert wave_zero(requested(), row).candidates == 2
    assert wave_zero(requested(quality="draft"), row).candidates == 5
    assert wave_zero(requested(quality="draft", max_candidates=3), row).candidates == 3
