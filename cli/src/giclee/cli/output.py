"""What a verb prints: a table for people, JSON for pipes, one sentence on stderr when something is wrong.

Exit codes: 0 good, 1 the answer is bad, 2 the command was used wrongly.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

BAD = 1
USAGE = 2

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
"""The option that every verb which prints takes: `json_: AsJson = False`."""


def show(
    rows: Iterable[Mapping[str, Any]], *, as_json: bool, columns: Sequence[str] | None = None, empty: str = "nothing"
) -> None:
    """A list of things: the columns named, or those of the first row. JSON always has every field."""
    listed = [dict(row) for row in rows]
    if as_json:
        show_json(listed)
    elif not listed:
        typer.echo(empty)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        chosen = list(columns or listed[0])
        for column in chosen:
            is_number = all(isinstance(row.get(column), (int, float, type(None))) for row in listed)
            table.add_column(column, justify="right" if is_number else "left", overflow="fold")
        for row in listed:
            table.add_row(*(_cell(row.get(column)) for column in chosen))
        # in a pipe there is no width to respect: a row stays a line
        Console(width=None if sys.stdout.isatty() else 10_000, markup=False, highlight=False).print(table)


def show_json(value: Any) -> None:
    """Any value as indented JSON; what JSON does not know becomes its text."""
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def tell(sentence: str) -> None:
    """Progress, on stderr: it never mixes with what is printed."""
    typer.echo(sentence, err=True)


def fail(sentence: str, code: int = BAD) -> NoReturn:
    """One clear sentence on stderr, and out."""
    typer.echo(sentence, err=True)
    raise typer.Exit(code)


def _cell(value: Any) -> str:
    return "–" if value is None else str(value)
