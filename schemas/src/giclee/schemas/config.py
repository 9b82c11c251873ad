"""The operator's file: one TOML named by `GICLEE_CONFIG` over the built-in tables. Each table has its own reader."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from giclee.schemas.strict import FieldError, InvalidInput, pointer

TABLES = ("models", "prices", "costs", "spend-cap", "tenant-terms", "gate", "reference", "evaluator", "asset-type")
"""What can be overlaid in this release; a table of another name is refused, so that nothing is ignored."""

Row = TypeVar("Row", bound=BaseModel)
Parsed = TypeVar("Parsed")


def told(load: Callable[[], dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """What `giclee config` shows of a reader: `{wrong: [{pointer, detail}], rows: {table: [row]}}`, its tables as they
    are in force when nothing is wrong."""
    try:
        return {"wrong": [], "rows": load()}
    except InvalidInput as error:
        return {"wrong": [{"pointer": one.pointer, "detail": one.detail} for one in error.errors], "rows": {}}


def rows_of(path: str | Path | None, table: str, row: type[Row]) -> list[Row]:
    """The rows of one table of the file; none without a file.

    Errors: InvalidInput naming every bad row of this table by JSON pointer, and every table that nobody reads.
    """
    return parsed_rows(path, table, row.model_validate)


def parsed_rows(path: str | Path | None, table: str, parse: Callable[[Any], Parsed]) -> list[Parsed]:
    """As `rows_of`, for rows that depend on what they say: `parse` raises pydantic's ValidationError."""
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
    rows = tables.get(table, [])
    if not isinstance(rows, list):
        errors.append(FieldError(f"/{table}", f"must be a list of rows: write [[{table}]]", "invalid_field"))
        rows = []
    found: list[Parsed] = []
    for at, values in enumerate(rows):
        try:
            found.append(parse(values))
        except ValidationError as error:
            errors += [
                FieldError(pointer((table, at, *one["loc"])), one["msg"], "invalid_field") for one in error.errors()
            ]
    if errors:
        raise InvalidInput(errors)
    return found
