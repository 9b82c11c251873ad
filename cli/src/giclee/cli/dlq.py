"""`giclee dlq`: dead letters listed, shown and put back. `giclee dead` is the same."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from giclee.cli.http import OPERATIONS, actor, call, pages
from giclee.cli.output import BAD, USAGE, AsJson, fail, show, show_json, tell

app = typer.Typer(no_args_is_help=True, help="Dead letters.")

Topic = Annotated[str | None, typer.Option(help="The topic it failed on.")]
Stage = Annotated[str | None, typer.Option(help="The stage that failed.")]
Class = Annotated[str | None, typer.Option("--class", help="invalid, poison, exhausted, deadline or bug.")]
ErrorType = Annotated[str | None, typer.Option()]
Fingerprint = Annotated[str | None, typer.Option(help="The cause.")]
Tenant = Annotated[str | None, typer.Option()]
Request = Annotated[str | None, typer.Option(help="A request id.")]
State = Annotated[str | None, typer.Option(help="open, replaying, replayed, parked or discarded.")]
Since = Annotated[str | None, typer.Option(help="RFC 3339 time.")]
Until = Annotated[str | None, typer.Option(help="RFC 3339 time.")]
COLUMNS = ("dlq_id", "state", "stage", "class", "error_type", "message", "request_id", "replay_count")


def _narrowed(**named: str | None) -> dict[str, str]:
    return {("class" if key == "class_" else key): value for key, value in named.items() if value is not None}


@app.command("ls")
def ls(
    topic: Topic = None,
    stage: Stage = None,
    class_: Class = None,
    error_type: ErrorType = None,
    fingerprint: Fingerprint = None,
    tenant: Tenant = None,
    request: Request = None,
    state: State = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="At most this many.")] = 50,
    json_: AsJson = False,
) -> None:
    """Dead letters, newest first, with counts of everything selected."""
    params = _narrowed(
        topic=topic, stage=stage, class_=class_, error_type=error_type, fingerprint=fingerprint,
        tenant=tenant, request=request, state=state, since=since, until=until,
    )  # fmt: skip
    if not json_:
        counts = call(OPERATIONS, "GET", "/v1/dead-letters", params={**params, "limit": 1})["counts"]
        tell(
            ", ".join(f"{one['count']} {one['state']} {one['class']} at {one['stage']}" for one in counts)
            or "no dead letters"
        )
    rows = list(pages(OPERATIONS, "/v1/dead-letters", params, limit))
    show(rows, as_json=json_, columns=COLUMNS, empty="nothing")


@app.command("show")
def show_one(dlq_id: str, json_: AsJson = False) -> None:
    """One dead letter with its value, headers and everything known about the fault."""
    found = call(OPERATIONS, "GET", f"/v1/dead-letters/{dlq_id}")
    if json_:
        show_json(found)
        return
    value, headers = found.pop("value", None), found.pop("headers", ())
    show([{"field": name, "value": one} for name, one in found.items() if one is not None], as_json=False)
    show(
        [{"header": name, "value": text} for name, text in headers if not name.startswith("dlq-")],
        as_json=False,
        empty="no headers",
    )
    if value is not None:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@app.command()
def replay(
    dlq_ids: Annotated[
        list[str] | None, typer.Argument(help="Ids; none means everything selected by the options.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; goes to the audit.")] = "",
    topic: Topic = None,
    stage: Stage = None,
    class_: Class = None,
    error_type: ErrorType = None,
    fingerprint: Fingerprint = None,
    tenant: Tenant = None,
    request: Request = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="At most this many in one run.")] = 1000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also what was replayed before or came back too often.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Replay everything, although nothing was selected.")] = False,
    json_: AsJson = False,
) -> None:
    """Put dead letters back on the topic they came from, for the stage that failed."""
    selection = _narrowed(
        topic=topic, stage=stage, class_=class_, error_type=error_type, fingerprint=fingerprint,
        tenant=tenant, request=request, since=since, until=until,
    )  # fmt: skip
    if not dry_run and not reason:
        fail("--reason is needed: it goes to the audit", USAGE)
    if not dlq_ids and not selection and not (yes or dry_run):
        fail("name dead letters, narrow them with options, or say --yes to replay every open one", USAGE)
    if not dlq_ids and not again:
        selection["state"] = "open"
    body: dict[str, Any] = {"selection": selection, "reason": reason or "dry run", "actor": actor(), "limit": limit}
    body |= {"everything": True} if yes else {}
    body |= {"ids": dlq_ids} if dlq_ids else {}
    done = call(OPERATIONS, "POST", "/v1/dead-letters/replay", json={**body, "dry_run": dry_run, "again": again})
    if json_:
        show_json(done)
    else:
        show(
            done["items"],
            as_json=False,
            columns=("dlq_id", "verdict", "topic", "stage", "why"),
            empty="nothing selected",
        )
        tell(f"{done['replayed']} replayed" + (f" in run {done['run_id']}" if done["run_id"] else " (dry run)"))
    if any(one["verdict"] == "refuse" for one in done["items"]):
        raise typer.Exit(BAD)
