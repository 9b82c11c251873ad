"""`giclee config`: the operator's file, checked as every service would check it, before any is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from giclee.cli.output import BAD, USAGE, AsJson, fail, show, show_json, tell
from giclee.schemas.config import TABLES, rows_of, wrong_with
from giclee.schemas.models import Model

app = typer.Typer(no_args_is_help=True, help="The file named by GICLEE_CONFIG.")

READERS = ("giclee.policy.asset_types", "giclee.scorer.configured", "giclee.router.configured")
"""Whose tables only they can read; each prints what is wrong with them."""

File = Annotated[Path | None, typer.Argument(help="Absent: the file named by GICLEE_CONFIG.")]


@app.command()
def check(file: File = None, json_: AsJson = False) -> None:
    """Every error of every table, at once; exit 1 when there is one. Secrets are looked at when the scorer starts."""
    path = str(file) if file is not None else os.environ.get("GICLEE_CONFIG")
    if not path:
        fail("GICLEE_CONFIG is not set: name a file", USAGE)
    wrong = wrong_with(lambda: rows_of(path, "models", Model))
    for reader in READERS:
        wrong += [one for one in _asked(reader, path) if one not in wrong]
    if json_:
        show_json(wrong)
    elif wrong:
        show(wrong, as_json=False, columns=("pointer", "detail"))
    else:
        tell(f"{path}: no errors ({', '.join(TABLES)})")
    raise typer.Exit(BAD if wrong else 0)


def _asked(reader: str, path: str) -> list[dict[str, str]]:
    """What a service's own code says, in a process of its own: the command line imports no service."""
    done = subprocess.run(
        [sys.executable, "-m", reader], capture_output=True, text=True, env={**os.environ, "GICLEE_CONFIG": path},
        check=False,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        fail(f"{reader} did not answer: {last[0]}", BAD)
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found
