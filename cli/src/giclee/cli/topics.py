"""`giclee topics`: the broker against the table."""

from __future__ import annotations

from dataclasses import asdict

import typer

from giclee.cli.output import BAD, AsJson, show
from giclee.infra import topics

app = typer.Typer(no_args_is_help=True, help="Topics, their configs and first offsets.")


@app.command()
def plan(json_: AsJson = False) -> None:
    """Show what differs from the table; exit code 1 if anything does."""
    changes = topics.plan(topics.target_from_env())
    show(map(asdict, changes), as_json=json_, empty="The broker is as the table says.")
    if changes:
        raise typer.Exit(BAD)


@app.command()
def apply(json_: AsJson = False) -> None:
    """Mend what differs and show what was done."""
    changes = topics.apply(topics.target_from_env())
    show(map(asdict, changes), as_json=json_, empty="The broker is as the table says.")
