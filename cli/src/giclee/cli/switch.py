"""`giclee switch`: stop a tenant, a model, a stage or everything, and let it go again."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import quote

import typer

from giclee.cli.http import OPERATIONS, actor, call
from giclee.cli.output import USAGE, AsJson, fail, show

app = typer.Typer(no_args_is_help=True, help="Switches: hold or refuse a part of the work.")

COLUMNS = ("scope", "mode", "in_force", "held", "reason", "actor", "set_at", "expires_at")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Scope = Annotated[
    str, typer.Argument(help="all, or tenant:, provider:, model:, template:, asset-type:, batch:, stage: and a name.")
]
Reason = Annotated[str, typer.Option(help="Why; people and the audit read it.")]


@app.command("ls")
def ls(json_: AsJson = False) -> None:
    """Switches that are set, and how many records wait under each."""
    show(call(OPERATIONS, "GET", "/v1/switches")["items"], as_json=json_, columns=COLUMNS, empty="no switch is set")


@app.command("set")
def set_one(
    scope: Scope,
    reason: Reason,
    hold: Annotated[
        bool, typer.Option("--hold", help="What comes waits and flows on when the switch is cleared.")
    ] = False,
    refuse: Annotated[bool, typer.Option("--refuse", help="What comes becomes a dead letter.")] = False,
    expires: Annotated[str | None, typer.Option(help="For how long, for example 30m or 2h.")] = None,
    json_: AsJson = False,
) -> None:
    """Stop work of a scope."""
    if hold == refuse:
        fail("say --hold or --refuse", USAGE)
    body = {"mode": "hold" if hold else "refuse", "reason": reason, "actor": actor(), "expires_at": _until(expires)}
    show([_put(scope, {key: value for key, value in body.items() if value})], as_json=json_)


@app.command()
def clear(scope: Scope, reason: Reason, json_: AsJson = False) -> None:
    """Let a scope go; what it held flows on."""
    show([_put(scope, {"mode": "clear", "reason": reason, "actor": actor()})], as_json=json_)


def _put(scope: str, body: dict[str, str]) -> dict[str, str]:
    done: dict[str, str] = call(OPERATIONS, "PUT", f"/v1/switches/{quote(scope, safe='')}", json=body)
    return done


def _until(text: str | None) -> str | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not found:
        fail(f"--expires {text}: expected a number and s, m, h or d, for example 2h", USAGE)
    return (datetime.now(UTC) + timedelta(seconds=int(found[1]) * _UNITS_S[found[2]])).isoformat()
