"""A price is found where somebody wrote it, in its unit, as long as it is good; else there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from giclee.router.choose import choose
from giclee.router.costs import terms_of
from giclee.router.prices import Prices, Quantity, rows_of
from giclee.schemas.events import PriceSet
from giclee.schemas.prices import PriceRow
from giclee.schemas.strict import InvalidInput
from tests.unit.router.builders import AT, AT_S, FINAL, SDXL, knowing, request

ONE = Quantity(1024, 1024, 20, "final")


def row(**values: Any) -> PriceRow:
    return PriceRow.model_validate({"provider": "own-gpu", "unit": "image", "usd": "0.03", **values})


def price(
    rows: list[PriceRow], quantity: Quantity = ONE, live: dict[str, PriceSet] | None = None, at_s: float = AT_S
) -> Any:
    prices = Prices(rows, live)
    prices.look(at_s)
    return prices.of(SDXL.model, quantity, at_s)


def told(at: PriceRow, set_at: datetime = AT) -> PriceSet:
    return PriceSet(place=at.place(), row=at, reason="a sale", actor="ada", set_at=set_at)


@pytest.mark.parametrize(
    ("unit", "usd", "quantity", "each"),
    [
        ("image", "0.03", ONE, "0.03"),
        ("megapixel", "0.012", ONE, "0.012583"),  # 1.048576 megapixels, rounded up
        ("megapixel", "0.012", Quantity(512, 512, 20, "final"), "0.003146"),
        ("step", "0.0008", Quantity(1024, 1024, 25, "final"), "0.02"),
        ("second", "0.002", ONE, "0.002"),  # the model's row: 1 s an image
        ("second", "0.002", Quantity(512, 1024, 40, "final"), "0.002"),  # half the pixels, twice the steps
    ],
)
def test_units(unit: str, usd: str, quantity: Quantity, each: str) -> None:
    """By the image, its pixels, its steps or the seconds it takes; never rounded down."""
    assert price([row(unit=unit, usd=usd)], quantity).usd == Decimal(each)


def test_the_most_particular_row_counts() -> None:
    """Over any row: one for the model, one for the quality, the smallest tier of sizes that holds the image."""
    rows = [
        row(usd="0.1"), row(usd="0.09", model="sdxl"), row(usd="0.08", model="sdxl", quality="final"),
        row(usd="0.05", model="sdxl", quality="final", megapixels_max=1.1),
        row(usd="0.02", model="sdxl", quality="final", megapixels_max=0.3),
    ]  # fmt: skip
    assert price(rows).usd == Decimal("0.05")
    assert price(rows, Quantity(512, 512, 20, "final")).usd == Decimal("0.02")
    assert price(rows, Quantity(2048, 2048, 20, "final")).usd == Decimal("0.08")
    assert price(rows, Quantity(2048, 2048, 20, "draft")).usd == Decimal("0.09")


def test_what_somebody_set_is_over_the_file_until_it_ends() -> None:
    """Then the file counts again; taken back, at once."""
    sale = row(usd="0.01", until=(AT + timedelta(hours=1)).isoformat())
    live = {sale.place(): told(sale)}
    prices = Prices([row()], live)

    def now(after_s: float) -> Decimal | None:
        prices.look(AT_S + after_s)
        return prices.of(SDXL.model, ONE, AT_S + after_s).usd

    assert [now(after_s) for after_s in (0, 3599, 3600)] == [Decimal("0.01"), Decimal("0.01"), Decimal("0.03")]
    dearer = row(usd="0.05")
    live[dearer.place()] = told(dearer)
    assert now(10) == Decimal("0.05")
    live[dearer.place()] = PriceSet(place=dearer.place(), reason="over", actor="ada", set_at=AT)
    assert now(20) == Decimal("0.03")


def test_unknown_and_stale_prices_are_not_bought() -> None:
    """A model that is priced by rows has no other price: too large, another quality, or past its time is a no."""
    for rows, why in (
        ([row(megapixels_max=0.5)], "has no known price"),
        ([row(quality="draft")], "has no known price"),
        ([row(until=(AT - timedelta(days=1)).isoformat())], "stale"),
    ):
        choice = choose(request(), Decimal(1), [SDXL], knowing(prices=Prices(rows)), now_s=AT_S)
        assert (choice.chain, [loser.code for loser in choice.losers]) == ((), ["price_unknown"])
        assert why in choice.losers[0].message
    assert price([]).usd == SDXL.model.price_usd  # nobody wrote rows for it: its own row's price


def test_bills_that_differ_from_the_price_are_believed_until_a_new_price() -> None:
    """Three calls at twice the price: it counts twice, and may cost twice; a newer price starts anew."""
    from tests.unit.router.builders import told as health

    doubled = health(SDXL, paid_ratio=2.0, paid_since=AT)
    before = choose(request(), Decimal(1), [SDXL], knowing(doubled, prices=Prices([row()])), now_s=AT_S)
    assert before.chain[0].price_usd == Decimal("0.06")
    newer = {"x": told(row(usd="0.06"), AT + timedelta(seconds=1))}
    after = choose(request(), Decimal(1), [SDXL], knowing(doubled, prices=Prices([row()], newer)), now_s=AT_S + 2)
    assert after.chain[0].price_usd == Decimal("0.06")
    cheaper = health(SDXL, paid_ratio=0.5, paid_since=AT)
    less = choose(request(), Decimal(1), [SDXL], knowing(cheaper, prices=Prices([row()])), now_s=AT_S)
    assert less.chain[0].price_usd == Decimal("0.03")  # what it may cost; expected is half
    assert less.weighed[0].per_approved_usd < before.weighed[0].per_approved_usd / 3


@pytest.mark.parametrize(
    ("values", "where", "says"),
    [
        ({"usd": "-0.01"}, "usd", "greater than or equal to 0"),
        ({"usd": "11"}, "", "11 US dollars for one image is absurd"),
        ({"usd": "2", "unit": "step"}, "", "absurd"),
        ({"usd": "0"}, "usd", "a price of nothing"),
        ({"usd": "NaN"}, "usd", "finite"),
        ({"unit": "token"}, "unit", "'image', 'megapixel', 'step' or 'second'"),
        ({"megapixels_max": 0}, "megapixels_max", "greater than 0"),
        ({"until": "tomorrow"}, "until", "isoformat"),
        ({"price": "1"}, "price", "Extra inputs"),
    ],
)
def test_nonsense_is_refused_by_name(values: dict[str, Any], where: str, says: str) -> None:
    """Negative, absurd, of no unit: the field and what is wrong with it."""
    with pytest.raises(ValidationError) as caught:
        row(**values)
    (error,) = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == where
    assert says in error["msg"]


def test_the_operators_file_is_refused_with_every_error(tmp_path: Path) -> None:
    """Unknown providers and models, prices that are over, bad costs: each by its pointer."""
    path = tmp_path / "giclee.toml"
    over = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    path.write_text(
        '[[prices]]\nprovider = "nobody"\nunit = "image"\nusd = "0.01"\n'
        '[[prices]]\nprovider = "own-gpu"\nmodel = "sdxx"\nunit = "image"\nusd = 0.01\n'
        f'[[prices]]\nprovider = "own-gpu"\nunit = "image"\nusd = "0.01"\nuntil = "{over}"\n'
    )
    with pytest.raises(InvalidInput) as caught:
        rows_of(str(path), [FINAL.model, SDXL.model])
    assert [error.pointer for error in caught.value.errors] == [
        "/prices/0/provider", "/prices/1/model", "/prices/2/until",
    ]  # fmt: skip
    path.write_text("[[costs]]\nreview_share = 0.5\nreview_usd = 0.1\n")
    assert terms_of(str(path)).each_usd == pytest.approx(0.0505)
    path.write_text("[[costs]]\nscoring_usd = -1\n")
    with pytest.raises(InvalidInput):
        terms_of(str(path))
