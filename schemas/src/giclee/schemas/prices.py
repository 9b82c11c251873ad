"""A price: what a provider charges for what, from when to when. Rows of the operator's file and of PriceSet."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from giclee.schemas.parts import AskedInstant, AskedUsd, Quality, StrictPart

Unit = Literal["image", "megapixel", "step", "second"]
"""What is charged for: an image, a million of its pixels, a denoising step, a second of the device."""

UNIT_MAX_USD: dict[str, Decimal] = {
    "image": Decimal(10),
    "megapixel": Decimal(10),
    "step": Decimal(1),
    "second": Decimal(1),
}
"""Over ten dollars an image is no price but a slip of the comma: the dearest hosted models ask well under one."""

PROVIDER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def _not_nothing(amount: Decimal) -> Decimal:
    if amount.is_zero():
        raise ValueError("a price of nothing is no price; a device of your own costs its power and its wear")
    return amount


class PriceRow(StrictPart):
    """`usd` for one `unit` at `provider`; the other fields limit where the row counts.

    `megapixels_max`: for images of up to so many million pixels. `until`: from then on the row is stale, and what
    nothing else prices is not bought.
    """

    provider: Annotated[str, Field(pattern=PROVIDER)]
    model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] | None = None
    unit: Unit
    usd: Annotated[AskedUsd, AfterValidator(_not_nothing)]
    quality: Quality | None = None
    megapixels_max: Annotated[float, Field(gt=0, le=64, allow_inf_nan=False, strict=False)] | None = None
    until: AskedInstant | None = None

    @model_validator(mode="after")
    def _somebody_can_mean_it(self) -> PriceRow:
        if self.usd > UNIT_MAX_USD[self.unit]:
            raise ValueError(f"{self.usd} US dollars for one {self.unit} is absurd; at most {UNIT_MAX_USD[self.unit]}")
        return self

    def place(self) -> str:
        """What the row is about; of two rows about the same the later one counts."""
        size = "any" if self.megapixels_max is None else f"{self.megapixels_max:g}"
        return f"{self.provider}/{self.model or 'any'}/{self.quality or 'any'}/{size}"

    def fits(self, provider: str, model: str, quality: str, megapixels: float) -> bool:
        """Whether the row prices such an image."""
        return (
            self.provider == provider
            and self.model in (None, model)
            and self.quality in (None, quality)
            and (self.megapixels_max is None or megapixels <= self.megapixels_max)
        )
