"""A threshold: what a measured value means for one dimension, of an asset type, up to a size."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from giclee.schemas.parts import AssetTypeName, StrictPart

DimensionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Bound = Annotated[float, Field(allow_inf_nan=False, strict=False)]

SHARES = frozenset(
    {"format", "content", "sharpness", "exposure", "compression", "alignment", "safety"}
    | {"subject", "background", "safe-zone", "faces"}
)
"""Built-in dimensions, which measure from 0 to 1; the operator's own may measure anything."""


class GateRow(StrictPart):
    """A value at or over `pass_at` passes, one at or over `doubt_at` is unsure, one below fails.

    `asset_type` and `long_side_max_px` limit where the row counts; without `doubt_at` the row never fails anything.
    """

    dimension: DimensionName
    pass_at: Bound
    doubt_at: Bound | None
    asset_type: AssetTypeName | None = None
    long_side_max_px: Annotated[int, Field(ge=1, le=4096)] | None = None

    @model_validator(mode="after")
    def _thresholds_make_sense(self) -> GateRow:
        if self.doubt_at is not None and self.doubt_at > self.pass_at:
            raise ValueError("doubt_at is at most pass_at")
        wrong = [one for one in (self.pass_at, self.doubt_at) if one is not None and not 0 <= one <= 1]
        if wrong and self.dimension in SHARES:
            raise ValueError(f"{wrong[0]:g} is no value of {self.dimension}, which measures from 0 to 1")
        return self

    def fits(self, dimension: str, asset_type: str, long_side_px: int) -> bool:
        """Whether the row says anything of such a picture."""
        return (
            self.dimension == dimension
            and self.asset_type in (None, asset_type)
            and (self.long_side_max_px is None or long_side_px <= self.long_side_max_px)
        )

    def place(self) -> str:
        """What the row is about; of two rows about the same the later one counts."""
        return place_of(self.dimension, self.asset_type, self.long_side_max_px)


def place_of(dimension: str, asset_type: str | None, long_side_max_px: int | None) -> str:
    """The name of what a row is about."""
    return f"{asset_type or 'any'}/{dimension}/{long_side_max_px or 'any'}"
