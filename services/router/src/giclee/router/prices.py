"""Prices: what one image costs at a model, in US dollars, by size, steps and quality, and as of when. Pure.

Three sources, the later over the earlier: `price_usd` of the model's row (one image at the model's own steps), the
rows of `[[prices]]` in the operator's file, the rows that somebody set by event. A model that the operator prices by
rows is priced by rows alone: where none fits, or the one that fits is stale, its price is unknown and it is not
bought. Nothing has a default price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_UP, Decimal
from operator import is_
from typing import NamedTuple

from giclee.schemas import config
from giclee.schemas.events import Cleared, PriceSet
from giclee.schemas.models import Model
from giclee.schemas.parts import USD_PLACES
from giclee.schemas.prices import PriceRow
from giclee.schemas.strict import FieldError, InvalidInput

_SMALLEST = Decimal(1).scaleb(-USD_PLACES)
KNOWN_MAX = 4096
"""Prices worked out and kept; a change of prices forgets them."""


@dataclass(frozen=True, slots=True)
class Pricing:
    """How a provider charges where only its model's row says a price: by the image, or by time, as steps take it."""

    by_steps: bool


TABLE: dict[str, Pricing] = {
    "diffusion": Pricing(by_steps=True),  # our own device: twice the steps take twice the time
    "stub": Pricing(by_steps=False),
}
DEFAULT = Pricing(by_steps=False)
"""Hosted providers name a price an image."""


class Quantity(NamedTuple):
    """What is bought: one image of so many pixels at so many steps, sold as this quality."""

    width: int
    height: int
    steps: int
    quality: str

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6


def quantity_of(request: Cleared, model: Model) -> Quantity:
    """What a request would buy of a model."""
    size = request.size
    width, height = (size.width, size.height) if size else (model.width, model.height)
    return Quantity(width, height, request.params.steps or model.steps, request.quality)


class Price(NamedTuple):
    """`usd` for one image (rounded up to a millionth) since `set_at_s`, or, where it is None, why nobody knows."""

    usd: Decimal | None
    value: float
    why: str = ""
    set_at_s: float = 0.0
    row: PriceRow | None = None


class Prices:
    """The rows of the operator's file and what was set since, by event; `live` is a table that others follow."""

    def __init__(self, rows: Sequence[PriceRow] = (), live: Mapping[str, PriceSet] | None = None) -> None:
        self._rows = tuple(rows)
        self._live: Mapping[str, PriceSet] = {} if live is None else live
        self._told: tuple[PriceSet, ...] = ()
        self._seen: tuple[PriceSet, ...] = ()
        self._until_s = float("inf")
        self._known: dict[tuple[str, Quantity], Price] = {}

    def of(self, model: Model, quantity: Quantity, now_s: float) -> Price:
        """The price of one image at `model`; `now_s`, in seconds since 1970, is the time of the last `look`."""
        key = (model.name, quantity)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            found = self._known[key] = self._find(model, quantity, now_s)
        return found

    def look(self, now_s: float) -> None:
        """Once before a choice: forget what was worked out when a row changed or went stale."""
        live = tuple(self._live.values())
        if now_s < self._until_s and len(live) == len(self._told) and all(map(is_, live, self._told)):
            return
        self._told = live
        # the most particular row counts; of two that say as much the newer one
        self._seen, self._known = tuple(sorted(live, key=_set_order, reverse=True)), {}
        ends = [row.until.timestamp() for row in (*self._rows, *(one.row for one in live)) if row and row.until]
        self._until_s = min((end for end in ends if end > now_s), default=float("inf"))

    def _find(self, model: Model, quantity: Quantity, now_s: float) -> Price:
        asked = (model.provider, model.name, quantity.quality, quantity.megapixels)
        for one in self._seen:
            if one.row is not None and one.row.fits(*asked) and not _stale(one.row, now_s):
                return _priced(one.row, model, quantity, one.set_at.timestamp())
        stale: PriceRow | None = None
        about_it = False
        for row in self._rows:  # the most particular row counts, of two the later one
            about_it |= row.provider == model.provider and row.model in (None, model.name)
        for row in sorted(self._rows, key=_particular, reverse=True):
            if not row.fits(*asked):
                continue
            if not _stale(row, now_s):
                return _priced(row, model, quantity, 0.0)
            stale = stale or row
        if stale is not None and stale.until is not None:
            return Price(None, 0.0, f"has a stale price: {stale.place()} was good until {stale.until.isoformat()}")
        if about_it:
            return Price(None, 0.0, f"has no known price for {quantity.quality} at {quantity.megapixels:g} megapixels")
        return Price(price_of(model, quantity.steps), float(price_of(model, quantity.steps)))


def _set_order(event: PriceSet) -> tuple[tuple[bool, bool, float], datetime]:
    return _particular(event.row) if event.row else (False, False, 0.0), event.set_at


def _stale(row: PriceRow, now_s: float) -> bool:
    return row.until is not None and row.until.timestamp() <= now_s


def _particular(row: PriceRow) -> tuple[bool, bool, float]:
    """How much a row says about where it counts; the smaller tier of sizes is the more particular."""
    return row.model is not None, row.quality is not None, -(row.megapixels_max or float("inf"))


def _priced(row: PriceRow, model: Model, quantity: Quantity, set_at_s: float) -> Price:
    match row.unit:
        case "image":
            times = Decimal(1)
        case "megapixel":
            times = Decimal(quantity.width * quantity.height) / 1_000_000
        case "step":
            times = Decimal(quantity.steps)
        case "second":
            times = Decimal(str(model.seconds)) * quantity.steps / model.steps
            times *= Decimal(quantity.width * quantity.height) / (model.width * model.height)
    usd = (row.usd * times).quantize(_SMALLEST, ROUND_UP)
    return Price(usd, float(usd), set_at_s=set_at_s, row=row)


def price_of(model: Model, steps: int) -> Decimal:
    """One image of `model` at `steps` by its own row, rounded up to a millionth of a dollar."""
    if steps == model.steps or not TABLE.get(model.provider, DEFAULT).by_steps:
        return model.price_usd
    return (model.price_usd * steps / model.steps).quantize(_SMALLEST, ROUND_UP)


def rows_of(path: str | None, models: Iterable[Model]) -> tuple[PriceRow, ...]:
    """The rows of `[[prices]]`. Errors: InvalidInput naming every bad row, and every row about nobody we know."""
    rows, known = config.rows_of(path, "prices", PriceRow), list(models)
    errors: list[FieldError] = []
    for at, row in enumerate(rows):
        if why := unknown(row, known):
            errors.append(FieldError(f"/prices/{at}/{'provider' if why.startswith('no ') else 'model'}", why))
        if row.until is not None and row.until <= datetime.now(UTC):
            errors.append(FieldError(f"/prices/{at}/until", f"was good until {row.until.isoformat()}, which is over"))
    if errors:
        raise InvalidInput(errors)
    return tuple(rows)


def unknown(row: PriceRow, models: Sequence[Model]) -> str:
    """Why a row prices nobody that we know; empty when it does."""
    providers = {model.provider for model in models}
    if row.provider not in providers:
        return f"no model is of provider {row.provider}; there are: {', '.join(sorted(providers))}"
    names = {model.name for model in models if model.provider == row.provider}
    if row.model is not None and row.model not in names:
        return f"{row.provider} has no model {row.model}; it has: {', '.join(sorted(names))}"
    return ""
