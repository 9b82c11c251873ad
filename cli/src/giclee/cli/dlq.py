"""`giclee dlq`: dead letters listed, counted by cause, shown and exported. `giclee dead` is the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO, Annotated, Any

import httpx2
import typer

from giclee.cli import dlq_change, dlq_runs
from giclee.cli.http import OPERATIONS, call, client, pages, read
from giclee.cli.output import BAD, USAGE, AsJson, fail, show, show_json, tell
from giclee.cli.selecting import Limit, selecting
from giclee.infra.trouble import Trouble

app = typer.Typer(no_args_is_help=True, help="Dead letters: find, understand, put back, set aside, give up.")

COLUMNS = ("dlq_id", "state", "died_at", "stage", "class", "error_type", "message", "tenant", "request_id", "replays")
CAUSES = (
    "fingerprint", "count", "open", "stage", "class", "error_type", "message", "first_seen", "last_seen", "tenants",
    "versions", "paid_usd", "cost_max_usd",
)  # fmt: skip
HISTORY = ("at", "actor", "action", "reason", "run_id", "details")
FORMS = ("jsonl", "records", "csv")
MESSAGE_MAX = 60


@app.command("ls")
@selecting
def ls(
    *,
    selection: dict[str, str],
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 50,
    json_: AsJson = False,
) -> None:
    """Dead letters, newest first, with counts of everything selected; `dlq show` has a letter's value."""
    if not json_:
        head = call(OPERATIONS, "GET", "/v1/dead-letters", params={**selection, "limit": 0})
        tell("too many to count in time" if head.get("counts_partial") else dlq_change.counted(head["counts"]))
    rows = list(pages(OPERATIONS, "/v1/dead-letters", selection, limit))
    show(rows if json_ else map(_row, rows), as_json=json_, columns=COLUMNS, empty="no dead letters")


@app.command()
@selecting
def stats(
    *,
    selection: dict[str, str],
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most this many causes.")] = 30,
    json_: AsJson = False,
) -> None:
    """Causes: how many letters each has, since when, whom it concerns, and the money at stake."""
    found = call(OPERATIONS, "GET", "/v1/dead-letters/stats", params={**selection, "limit": limit})
    if json_:
        show_json(found)
        return
    show(map(_cause, found["items"]), as_json=False, columns=CAUSES, empty="no dead letters")
    if found.get("partial"):
        tell("not all could be counted in time; narrow them, for example --since 1d")


@app.command("show")
def show_one(dlq_id: str, json_: AsJson = False) -> None:
    """One dead letter: what is known of the fault, what is wrong with its value, its history, headers and value."""
    found = call(OPERATIONS, "GET", f"/v1/dead-letters/{dlq_id}")
    if json_:
        show_json(found)
        return
    apart = {name: found.pop(name, None) for name in ("value", "value_base64", "headers", "errors", "history")}
    fields = {**found, "original": _place(found["original"]), "dead_letter": _place(found["dead_letter"])}
    show([{"field": name, "value": one} for name, one in fields.items() if one is not None], as_json=False)
    for title in ("errors", "history"):
        if apart[title]:
            typer.echo(f"\n{title}")
            show(apart[title], as_json=False, columns=HISTORY if title == "history" else None)
    typer.echo("\nheaders")
    plain = [{"header": name, "value": text} for name, text in apart["headers"] or () if not name.startswith("dlq-")]
    show(plain, as_json=False, empty="none")
    typer.echo("\nvalue")
    typer.echo(
        json.dumps(apart["value"], indent=2, ensure_ascii=False)
        if apart["value"] is not None
        else f"base64: {apart['value_base64']}" if apart["value_base64"] else found.get("missing") or "none"
    )  # fmt: skip


@app.command()
@selecting
def export(
    *,
    selection: dict[str, str],
    form: Annotated[
        str, typer.Option(help="jsonl (decoded), records (bytes as they were) or csv (no values).", metavar="TEXT")
    ] = "jsonl",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; else standard output.")] = None,
    limit: Limit = None,
) -> None:
    """Write dead letters with their values, oldest first."""
    if form not in FORMS:
        fail(f"--form {form}: expected one of {', '.join(FORMS)}", USAGE)
    params = {**selection, "form": form, **({"limit": limit} if limit else {})}
    if out is None:
        _stream(params, sys.stdout.buffer)
        return
    try:
        with out.open("wb") as file:
            _stream(params, file)
    except OSError as error:
        fail(f"{out}: {error.strerror}", BAD)
    tell(f"{out} written")


def _stream(params: dict[str, Any], file: IO[bytes]) -> None:
    with client(OPERATIONS) as connection:
        try:
            with connection.stream("GET", "/v1/dead-letters/export", params=params) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    read(answer)
                for piece in answer.iter_bytes():
                    file.write(piece)
        except httpx2.HTTPError as error:
            raise Trouble(f"the export ended early ({error}); what was written is not complete.") from error
    file.flush()


def _row(found: dict[str, Any]) -> dict[str, Any]:
    short = {"message": _short(found["message"]), "died_at": _minute(found["died_at"])}
    return {**found, **short, "replays": found["replay_count"]}


def _cause(found: dict[str, Any]) -> dict[str, Any]:
    return {
        **found,
        "open": found["states"].get("open", 0),
        "message": _short(found["message"]),
        "first_seen": _minute(found["first_seen"]),
        "last_seen": _minute(found["last_seen"]),
        "tenants": ", ".join(found["tenants"]),
        "versions": ", ".join(found["service_versions"]),
    }


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MESSAGE_MAX else f"{line[: MESSAGE_MAX - 1]}…"


def _minute(text: str) -> str:
    """A time as a table shows it; JSON has all of it."""
    return text[:16].replace("T", " ")


def _place(found: dict[str, Any]) -> str:
    return f"{found['topic']}/{found['partition']}/{found['offset']}"


app.add_typer(dlq_change.app)
app.add_typer(dlq_runs.app, name="runs")
