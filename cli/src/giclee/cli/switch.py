"""`giclee switch`: stop a tenant, a model, a stage or everything, and let it go again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

import typer

from giclee.cli.http import OPERATIONS, actor, call, pages
from giclee.cli.output import USAGE, AsJson, fail, show, tell
from giclee.cli.selecting import span_named

app = typer.Typer(no_args_is_help=True, help="Switches: hold or refuse a part of the work.")

COLUMNS = ("scope", "mode", "in_force", "held", "reason", "actor", "set_at", "expires_at")
HELD = ("held_at", "scope", "stage", "topic", "request_id", "size_bytes")

Scope = Annotated[
    str, typer.Argument(help="all, or tenant:, provider:, model:, template:, asset-type:, batch:, stage: and a name.")
]
Reason = Annotated[str, typer.Option(help="Why; people and the audit read it.")]


@app.command("ls")
def ls(json_: AsJson = False) -> None:
    """Switches that are set, and how many records wait under each."""
    show(call(OPERATIONS, "GET", "/v1/switches")["items"], as_json=json_, columns=COLUMNS, empty="no switch is set")


@app.command()
def held(
    scope: Annotated[str | None, typer.Argument(help="Only what waits under this switch.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the oldest first.")] = 50,
    json_: AsJson = False,
) -> None:
    """Records that wait under switches; they flow on by themselves when the switch is cleared."""
    rows = list(pages(OPERATIONS, "/v1/held", {"scope": scope} if scope else {}, limit))
    show(rows, as_json=json_, columns=HELD, empty="nothing is held")


@app.command("set")
def set_one(
    scope: Scope,
    reason: Reason,
    hold: Annotated[
        bool, typer.Option("--hold", help="What comes waits and flows on when the switch is cleared.")
    ] = False,
    refuse: Annotated[
        bool,
        typer.Option(
            "--refuse", help="New requests are refused, waves fail; what is further along becomes a dead letter."
        ),
    ] = False,
    expires: Annotated[str | None, typer.Option(help="For how long, for example 30m or 2h.")] = None,
    json_: AsJson = False,
) -> None:
    """Stop work of a scope."""
    if hold == refuse:
        fail("say --hold or --refuse", USAGE)
    body = {"mode": "hold" if hold else "refuse", "reason": reason, "actor": actor(), "expires_at": _until(expires)}
    show([_put(scope, {key: value for key, value in body.items() if value})], as_json=json_)
    if hold:
        tell(f"what it holds: giclee switch held {scope}; let it go: giclee switch clear {scope} --reason …")


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
    return (datetime.now(UTC) + span_named("expires", text)).isoformat()
