"""What the operator's file says to the scorer, evaluators, gate and reference rows, checked together: whatever a gate
row requires is measured, of that asset type.

`python -m giclee.scorer.configured` prints what is wrong and what is in force; `giclee config` starts it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from giclee.schemas.config import rows_of, told
from giclee.schemas.gates import GateRow
from giclee.schemas.strict import FieldError, InvalidInput
from giclee.scorer import dimensions, evaluators
from giclee.scorer.gate import TABLE, overlaid
from giclee.scorer.reference import ReferenceRow

Measured = Mapping[str, frozenset[str] | None]
"""Dimension -> the asset types whose pictures it measures; None is all."""

BUILT_IN: Measured = {
    **dict.fromkeys(dimensions.TABLE),
    **{name: frozenset(by_type) for name, by_type in dimensions.BY_ASSET_TYPE.items()},
}


@dataclass(frozen=True, slots=True)
class Configured:
    """The rows of the file, in its order."""

    evaluators: tuple[evaluators.Row, ...] = ()
    gate: tuple[GateRow, ...] = ()
    reference: tuple[ReferenceRow, ...] = ()

    def measured(self) -> Measured:
        """Every dimension there is."""
        return {**BUILT_IN, **{row.name: row.is_of() for row in self.evaluators}}


def read(path: str | None) -> Configured:
    """The file's rows; none without a file. Errors: InvalidInput with everything that is wrong with the tables."""
    errors: list[FieldError] = []
    own = _rows(errors, lambda: evaluators.rows_of(path))
    gate = _rows(errors, lambda: rows_of(path, "gate", GateRow))
    reference = _rows(errors, lambda: rows_of(path, "reference", ReferenceRow))
    found = Configured(tuple(own), tuple(gate), tuple(reference))
    if not errors:
        errors = [*_names(found.evaluators), *_unmeasured(found)]
    if errors:
        raise InvalidInput(list(dict.fromkeys(errors)))
    return found


def _rows(errors: list[FieldError], load: Any) -> list[Any]:
    try:
        rows: list[Any] = load()
    except InvalidInput as error:
        errors += error.errors
        return []
    return rows


def _names(rows: Iterable[evaluators.Row]) -> Iterable[FieldError]:
    taken: set[str] = set()
    for at, row in enumerate(rows):
        where = f"/evaluator/{at}/name"
        if row.name in BUILT_IN:
            yield FieldError(where, f"{row.name} is a built-in dimension; choose another name")
        elif row.name in taken:
            yield FieldError(where, f"{row.name} is the name of an evaluator before it; choose another")
        taken.add(row.name)


def _unmeasured(found: Configured) -> Iterable[FieldError]:
    measured = found.measured()
    for at, row in enumerate(found.gate):
        why = trouble(row, measured)
        if why is not None:
            yield FieldError(f"/gate/{at}/dimension", why)


def trouble(row: GateRow, measured: Measured) -> str | None:
    """Why a gate row would make pictures unsure for ever: nobody measures what it requires. None when all is well."""
    if row.dimension not in measured:
        return f"nobody measures {row.dimension}; there are: {', '.join(sorted(measured))}"
    types = measured[row.dimension]
    if types is None or row.asset_type in types:
        return None
    names = ", ".join(sorted(types))
    asked = f"not of {row.asset_type}" if row.asset_type else "and this row is about all"
    return f"{row.dimension} is measured of {names} only, {asked}; set asset_type to one of them"


def _told() -> dict[str, list[dict[str, Any]]]:
    own = read(os.environ.get("GICLEE_CONFIG"))
    tables = {"evaluator": own.evaluators, "gate": overlaid(TABLE, own.gate), "reference": own.reference}
    return {name: [row.model_dump(mode="json", exclude_none=True) for row in rows] for name, rows in tables.items()}


if __name__ == "__main__":
    json.dump(told(_told), sys.stdout)
