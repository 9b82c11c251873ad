"""TABLE of how providers charge, and the price of one image in US dollars.

The amount itself is `price_usd` of the model's row, for one image at the model's own steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_UP, Decimal

from giclee.schemas.models import Model
from giclee.schemas.parts import USD_PLACES

_SMALLEST = Decimal(1).scaleb(-USD_PLACES)


@dataclass(frozen=True, slots=True)
class Pricing:
    """How a provider charges: for each image, or for the time of a device, which grows with the steps."""

    by_steps: bool


TABLE: dict[str, Pricing] = {
    "diffusion": Pricing(by_steps=True),  # our own device: twice the steps take twice the time
    "stub": Pricing(by_steps=False),
}
DEFAULT = Pricing(by_steps=False)
"""Hosted providers name a price an image."""


def price_of(model: Model, steps: int) -> Decimal:
    """One image of `model` at `steps`, rounded up to a millionth of a dollar."""
    if steps == model.steps or not TABLE.get(model.provider, DEFAULT).by_steps:
        return model.price_usd
    return (model.price_usd * steps / model.steps).quantize(_SMALLEST, ROUND_UP)
