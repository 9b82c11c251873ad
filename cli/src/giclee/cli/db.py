"""`giclee db`: the tables of every service against its migrations."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from giclee.cli.output import BAD, AsJson, show
from giclee.infra import migrate as migrations
from giclee.infra.local.folder import checkout

app = typer.Typer(no_args_is_help=True, help="Migrations of the services' tables.")

Root = Annotated[Path | None, typer.Option("--from", help="Where the services lie. [default: services/ here]")]


@app.command()
def plan(json_: AsJson = False, root: Root = None) -> None:
    """Show migrations that are not applied; exit code 1 if there are any."""
    found = asyncio.run(migrations.plan(migrations.database_url_from_env(), _read(root)))
    _show(found, as_json=json_)
    if found:
        raise typer.Exit(BAD)


@app.command()
def migrate(json_: AsJson = False, root: Root = None) -> None:
    """Apply migrations that are not applied and show which they were."""
    _show(asyncio.run(migrations.migrate(migrations.database_url_from_env(), _read(root))), as_json=json_)


app.command("apply", help="The same as migrate.")(migrate)


def _read(root: Path | None) -> list[migrations.Migration]:
    return migrations.read(root or checkout() / "services")


def _show(found: list[migrations.Migration], *, as_json: bool) -> None:
    rows = [{"service": one.service, "number": one.number, "name": one.name, "sha256": one.sha256} for one in found]
    show(rows, as_json=as_json, columns=("service", "number", "name"), empty="Every migration is applied.")
