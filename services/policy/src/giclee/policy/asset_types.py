"""TABLE of the kinds of assets: what a request of each may ask for, and what one candidate may cost.

A request without `size` gets the model's own, so these bounds only judge what was asked. Rows of `[[asset-type]]` in
the operator's file lie over the table; `python -m giclee.policy.asset_types` prints what is wrong with them.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from giclee.schemas import config
from giclee.schemas.parts import AssetTypeName, Copies, ReviewTerms, Size
from giclee.schemas.strict import FieldError, InvalidInput

# bounds as requests have them (contract 3.1); a row of the operator's file is held to them
Count = Annotated[int, Field(ge=0, le=400, strict=True)]
Ratio = Annotated[float, Field(gt=0, le=256, allow_inf_nan=False)]
Limit = Annotated[Decimal, Field(gt=0, le=1000, decimal_places=6, allow_inf_nan=False)]


def _told(terms: Any) -> Any:
    """Errors: ValueError for a field that readers of events would pass over, and an operator did not mean."""
    if isinstance(terms, dict) and (unknown := terms.keys() - ReviewTerms.model_fields.keys()):
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(ReviewTerms.model_fields)}")
    return terms


Terms = Annotated[ReviewTerms, BeforeValidator(_told)]
DOUBTS_AND_ONE_IN_FIFTY = ReviewTerms(share=0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetType:
    """One kind of asset.

    `first_wave`: candidates made at once even if fewer are wanted (0: as many as wanted), `first_wave_draft` those of
    a draft. `escalates`: a draft of which too few would pass goes on as final. `copies`: what a picture may not nearly
    be the same as: others of its `order`, earlier assets of its `tenant` as well, or `allow`. `review`: what people
    look at, by default doubts that an order needs and one in fifty of what passed. `limit_usd`: the
    most one candidate may cost over its whole chain; roughly twice the price of one image of the built-in
    models, so that a take-over, which counts the lost attempt as paid, still fits. `ratio_min`, `ratio_max`:
    width divided by height. `side_max_px`: the longer side.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    wanted_max: Annotated[int, Field(ge=1, le=100, strict=True)]
    candidates_max: Annotated[int, Field(ge=1, le=400, strict=True)]
    first_wave: Count = 0
    first_wave_draft: Count = 0
    escalates: bool = True
    copies: Copies = "tenant"
    review: Terms = DOUBTS_AND_ONE_IN_FIFTY
    limit_usd: Limit = Decimal("0.001")
    ratio_min: Ratio
    ratio_max: Ratio
    side_max_px: Annotated[int, Field(ge=16, le=4096, strict=True)]

    def __post_init__(self) -> None:
        """Errors: ValueError for bounds that no request can meet."""
        if self.ratio_min > self.ratio_max:
            raise ValueError("ratio_min is at most ratio_max")
        if max(self.wanted_max, self.first_wave, self.first_wave_draft) > self.candidates_max:
            raise ValueError("wanted_max, first_wave and first_wave_draft are at most candidates_max")

    def allows(self, size: Size | None) -> bool:
        """Whether an image of `size` can be such an asset."""
        if size is None:
            return True
        ratio = size.width / size.height
        return self.ratio_min <= ratio <= self.ratio_max and max(size.width, size.height) <= self.side_max_px


# fmt: off
TABLE: dict[str, AssetType] = {
    # anything: only what every request is bound by; the same icon may be asked for twice
    "generic": AssetType(wanted_max=100, candidates_max=400, copies="order", ratio_min=0.25, ratio_max=4.0,
                         side_max_px=4096),
    # catalogues crop to a square or nearly so
    "product-tile": AssetType(wanted_max=50, candidates_max=200, ratio_min=0.75, ratio_max=4 / 3, side_max_px=2048),
    # a scene is judged by eye: two to choose from
    "lifestyle-scene": AssetType(wanted_max=40, candidates_max=160, first_wave=2, ratio_min=0.5, ratio_max=2.0,
                                 side_max_px=2048),
    # 9:16 stories to 1.91:1 link ads
    "paid-social": AssetType(wanted_max=100, candidates_max=400, ratio_min=0.56, ratio_max=1.92, side_max_px=2048),
    # one picture that a page is built around
    "landing-visual": AssetType(wanted_max=12, candidates_max=48, first_wave=2, limit_usd=Decimal("0.0015"),
                                ratio_min=0.8, ratio_max=3.0, side_max_px=4096),
    # mail clients show wide pictures and shrink them
    "email-hero": AssetType(wanted_max=12, candidates_max=48, first_wave=2, limit_usd=Decimal("0.0015"),
                            ratio_min=1.0, ratio_max=4.0, side_max_px=2048),
}
# fmt: on

NEW = "generic"
"""What a type of the operator's own does not say is as this one has it."""


class _Named(BaseModel):
    name: AssetTypeName


def load(path: str | None) -> dict[str, AssetType]:
    """The table under the rows of the operator's file: new types, and what they say anew of known ones.

    Errors: InvalidInput naming every bad row by JSON pointer.
    """
    rows = config.parsed_rows(path, "asset-type", _parsed)
    names = [name for name, _ in rows]
    twice = [at for at, name in enumerate(names) if name in names[:at]]
    if twice:
        raise InvalidInput([FieldError(f"/asset-type/{at}/name", f"{names[at]} has a row before it") for at in twice])
    return {**TABLE, **dict(rows)}


_ROW = TypeAdapter(AssetType)


def _parsed(values: Any) -> tuple[str, AssetType]:
    name = _Named.model_validate(values).name
    said = {field: value for field, value in values.items() if field != "name"}
    return name, _ROW.validate_python({**asdict(TABLE.get(name, TABLE[NEW])), **said})


def _rows() -> dict[str, list[dict[str, Any]]]:
    table = load(os.environ.get("GICLEE_CONFIG"))
    return {"asset-type": [{"name": name, **_ROW.dump_python(row, mode="json")} for name, row in table.items()]}


if __name__ == "__main__":
    json.dump(config.told(_rows), sys.stdout)
