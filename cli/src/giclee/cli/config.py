"""`giclee config`: the operator's file, read as every service would read it, before any is started."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from giclee.cli.offline import answer_of
from giclee.cli.output import BAD, USAGE, AsJson, fail, show, show_json, tell
from giclee.schemas import models, spend_caps, tenant_terms
from giclee.schemas.config import TABLES, rows_of, told
from giclee.schemas.models import Model
from giclee.schemas.strict import InvalidInput

app = typer.Typer(no_args_is_help=True, help="The file named by GICLEE_CONFIG.")

READERS = ("giclee.policy.asset_types", "giclee.scorer.configured", "giclee.router.configured")
"""Whose tables only they can read; each prints what is wrong with them and what is in force."""

File = Annotated[Path | None, typer.Argument(help="Absent: the file named by GICLEE_CONFIG.")]
Only = Annotated[str | None, typer.Option("--table", help=f"Only this one of {', '.join(TABLES)}.")]


@app.command()
def check(file: File = None, json_: AsJson = False) -> None:
    """Every error of every table, at once; exit 1 when there is one. Secrets are looked at when the scorer starts."""
    path = _path(file)
    if path is None:
        fail("GICLEE_CONFIG is not set: name a file", USAGE)
    wrong, _ = _read(path)
    if json_:
        show_json(wrong)
    elif wrong:
        _show_wrong(wrong)
    else:
        tell(f"{path}: no errors ({', '.join(TABLES)})")
    raise typer.Exit(BAD if wrong else 0)


@app.command("show")
def show_all(file: File = None, table: Only = None, json_: AsJson = False) -> None:
    """The tables as they are in force at start: built in, with the file over them. What was set since is not in it."""
    if table is not None and table not in TABLES:
        fail(f"there is no table {table}; there are: {', '.join(TABLES)}", USAGE)
    wrong, rows = _read(_path(file))
    if wrong:
        _show_wrong(wrong)
        raise typer.Exit(BAD)
    chosen = {name: rows[name] for name in TABLES if table in (None, name)}
    if json_:
        show_json(chosen)
        return
    for name, listed in chosen.items():
        typer.echo(f"[[{name}]]")
        columns = list(dict.fromkeys(field for row in listed for field in row))
        show([_short(row) for row in listed], as_json=False, columns=columns, empty="none")
        typer.echo("")


def _path(file: Path | None) -> str | None:
    return str(file) if file is not None else os.environ.get("GICLEE_CONFIG")


def _read(path: str | None) -> tuple[list[dict[str, str]], dict[str, list[dict[str, Any]]]]:
    """What is wrong, each once, and the rows of every table."""
    wrong: list[dict[str, str]] = []
    rows: dict[str, list[dict[str, Any]]] = {}
    for ask in (_models(path), _caps(path), _terms(path), *(_of(reader, path) for reader in READERS)):
        answer = ask()
        wrong += [one for one in answer["wrong"] if one not in wrong]
        rows |= answer["rows"]
    return wrong, rows


def _models(path: str | None) -> Callable[[], dict[str, Any]]:
    def rows() -> dict[str, list[dict[str, Any]]]:
        found, _ = models.load(path, models.builtin(Path(os.environ.get("GICLEE_MODELS_DIR", "models"))))
        models.check_providers(path)
        return {"models": [row.model_dump(mode="json") for row in found.values()]}

    return lambda: told(rows)


def _caps(path: str | None) -> Callable[[], dict[str, Any]]:
    def rows() -> dict[str, list[dict[str, Any]]]:
        return {spend_caps.TABLE: [cap._asdict() for cap in spend_caps.load(path, _providers(path))]}

    return lambda: told(rows)


def _terms(path: str | None) -> Callable[[], dict[str, Any]]:
    def rows() -> dict[str, list[dict[str, Any]]]:
        tenant_terms.load(path)  # what is wrong of rows together
        found = rows_of(path, tenant_terms.TABLE, tenant_terms.TenantTerms)
        return {tenant_terms.TABLE: [row.model_dump(mode="json", exclude_none=True) for row in found]}

    return lambda: told(rows)


def _providers(path: str | None) -> set[str] | None:
    """Those that rows of models name; None where the rows are wrong."""
    try:
        return {row.provider for row in rows_of(path, "models", Model)}
    except InvalidInput:
        return None


def _of(reader: str, path: str | None) -> Callable[[], dict[str, Any]]:
    return lambda: answer_of(reader, "", {}, GICLEE_CONFIG=path or "")


def _show_wrong(wrong: list[dict[str, str]]) -> None:
    show(wrong, as_json=False, columns=("pointer", "detail"))


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a line: lists as their items, long ones as their number."""
    return {name: _item(value) for name, value in row.items()}


def _item(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value)) if len(value) <= 4 else f"{len(value)} values"
    return " ".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, dict) else value
