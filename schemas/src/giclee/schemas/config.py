"""The operator's file: one TOML named by `GICLEE_CONFIG` over the built-in tables. Each table has its own reader."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from giclee.schemas.strict import FieldError, InvalidInput, pointer

TABLES = ("models", "gate")
"""What can be overlaid in this release; a table of another name is refused, so that nothing is ignored."""

Row = TypeVar("Row", bound=BaseModel)


def rows_of(path: str | Path | None, table: str, row: type[Row]) -> list[Row]:
    """The rows of one table of the file; none without a file.

    Errors: InvalidInput naming every bad row of this table by JSON pointer, and every table that nobody reads.
    """
    if not path:
        return []
    try:
        tables: dict[str, Any] = tomllib.loads(Path(path).read_text(), parse_float=Decimal)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput([FieldError("", f"GICLEE_CONFIG={path}: {error}", "invalid_field")]) from error
    errors = [
        FieldError(f"/{name}", f"the table {name} cannot be overlaid in this release; there are: {', '.join(TABLES)}",
                   "unknown_field")
        for name in tables
        if name not in TABLES
    ]  # fmt: skip
    found: list[Row] = []
    for at, values in enumerate(tables.get(table, [])):
        try:
            found.append(row.model_validate(values))
        except ValidationError as error:
            errors += [
                FieldError(pointer((table, at, *one["loc"])), one["msg"], "invalid_field") for one in error.errors()
            ]
    if errors:
        raise InvalidInput(errors)
    return found
