"""The operator's own evaluators: rows of `[[evaluator]]` in the file named by GICLEE_CONFIG; KINDS: what they can be.

A row is a dimension like any: scored in a lane of its own, decided about by a gate row of its name. docs/evaluators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, field_validator

from giclee.schemas import config
from giclee.schemas.gates import DimensionName
from giclee.schemas.parts import AssetTypeName, StrictPart
from giclee.scorer.dimension import Dimension
from giclee.scorer.dimensions.background import Background, Evenness
from giclee.scorer.dimensions.luminance import Light, Luminance
from giclee.scorer.dimensions.palette import Palette, PaletteShare
from giclee.scorer.dimensions.safe_zone import SafeZone, Zones
from giclee.scorer.dimensions.subject import Framing, Subject
from giclee.scorer.remote import Endpoint

HTTP = "http"

# kind -> its parameters, and what measures by them; http has a station of its own (remote.py)
KINDS: dict[str, tuple[type[StrictPart], Callable[[Any], Dimension] | None]] = {
    "palette": (Palette, PaletteShare),
    "luminance": (Light, Luminance),
    "subject": (Framing, Subject),
    "background": (Evenness, Background),
    "safe-zone": (Zones, SafeZone),
    HTTP: (Endpoint, None),
}

Parameters = TypeVar("Parameters")


class EvaluatorRow(StrictPart, Generic[Parameters]):
    """One evaluator: its name is the dimension's. Without `asset_types` every picture is measured."""

    name: DimensionName
    kind: str
    asset_types: Annotated[tuple[AssetTypeName, ...], Field(min_length=1, max_length=64, strict=False)] | None = None
    parameters: Parameters

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"there is no kind {kind}; there are: {', '.join(KINDS)}")
        return kind

    def is_of(self) -> frozenset[str] | None:
        """Whose pictures are measured; None is all."""
        return None if self.asset_types is None else frozenset(self.asset_types)


Row = EvaluatorRow[Any]


def rows_of(path: str | None) -> list[Row]:
    """The rows of the file. Errors: InvalidInput naming every error of every row by JSON pointer."""
    return config.parsed_rows(path, "evaluator", _parsed)


def _parsed(values: Any) -> Row:
    kind = values.get("kind") if isinstance(values, dict) else None
    told: Any = KINDS[kind][0] if isinstance(kind, str) and kind in KINDS else dict
    return EvaluatorRow[told].model_validate(values)


def dimension_of(row: Row) -> Dimension | None:
    """What measures by a row; None where it is asked elsewhere."""
    _, build = KINDS[row.kind]
    return None if build is None else build(row.parameters)
