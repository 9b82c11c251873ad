"""`giclee requests`: ask for images, follow them, cancel. `giclee request "…"` is short for create."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from giclee.cli import assets, routing
from giclee.cli.http import INTAKE, TIMEOUT_S, Away, call, client, pages, read
from giclee.cli.output import BAD, USAGE, AsJson, fail, show, show_json, tell
from giclee.infra.trouble import Trouble

app = typer.Typer(no_args_is_help=True, help="Requests for images.")

COUNTED = ("rejected", "in_flight", "in_review", "stalled")

ENDED = ("approved", "partial", "refused", "failed", "cancelled", "expired")
WAIT_MAX_S = 3600.0
RECONNECT_S = 1.0

Label = Annotated[list[str] | None, typer.Option(help="key=value; may be repeated.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 1 unless it is approved.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the approved images; implies --wait.")]


def _pairs(values: list[str] | None, option: str) -> dict[str, str]:
    pairs = [value.partition("=") for value in values or ()]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong:
        fail(f"{option} {wrong[0]}: expected key=value", USAGE)
    return {name: value for name, _, value in pairs}


def _size(text: str | None) -> dict[str, int] | None:
    if text is None:
        return None
    width, by, height = text.lower().partition("x")
    if not (by and width.isdigit() and height.isdigit()):
        fail(f"--size {text}: expected WIDTHxHEIGHT, for example 64x64", USAGE)
    return {"width": int(width), "height": int(height)}


@app.command()
def create(
    prompt: Annotated[str | None, typer.Argument(help="What the images should show.")] = None,
    wanted: Annotated[int, typer.Option(help="Approved images wanted.")] = 1,
    max_candidates: Annotated[int | None, typer.Option(help="At most this many are generated.")] = None,
    asset_type: Annotated[str | None, typer.Option(help="generic, product-tile, email-hero, …")] = None,
    template: Annotated[str | None, typer.Option(help="id@version, instead of a prompt.")] = None,
    var: Annotated[list[str] | None, typer.Option(help="slot=value of the template; may be repeated.")] = None,
    negative_prompt: Annotated[str | None, typer.Option()] = None,
    quality: Annotated[str | None, typer.Option(help="draft or final.")] = None,
    priority: Annotated[str | None, typer.Option(help="interactive, standard or bulk.")] = None,
    privacy: Annotated[str | None, typer.Option(help="public or confidential.")] = None,
    selection: Annotated[str | None, typer.Option(help="best or first.")] = None,
    budget_usd: Annotated[str | None, typer.Option(help="Never spend more on this request.")] = None,
    deadline: Annotated[str | None, typer.Option(help="RFC 3339 time.")] = None,
    model: Annotated[str | None, typer.Option(help="name or name@revision.")] = None,
    steps: Annotated[int | None, typer.Option()] = None,
    guidance_scale: Annotated[float | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Rather no image than one made differently.")] = False,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    client_ref: Annotated[str | None, typer.Option(help="Your own reference, echoed everywhere.")] = None,
    batch_id: Annotated[str | None, typer.Option()] = None,
    label: Label = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen and cost.")] = False,
    wait: Wait = False,
    out: Out = None,
    json_: AsJson = False,
) -> None:
    """Ask for approved images."""
    identifier, at, version = (template or "").partition("@")
    name, _, revision = (model or "").partition("@")
    if template and not (at and version.isdigit()):
        fail(f"--template {template}: expected id@version, for example product-tile@1", USAGE)
    params = {"steps": steps, "guidance_scale": guidance_scale}
    asked = {
        "prompt": prompt,
        "template": {"id": identifier, "version": int(version), "variables": _pairs(var, "--var")}
        if template
        else None,
        "negative_prompt": negative_prompt,
        "wanted": wanted,
        "max_candidates": max_candidates,
        "asset_type": asset_type,
        "quality": quality,
        "priority": priority,
        "privacy": privacy,
        "selection": selection,
        "budget_usd": budget_usd,
        "deadline": deadline,
        "model": {"name": name, **({"revision": revision} if revision else {})} if model else None,
        "params": {key: value for key, value in params.items() if value is not None} or None,
        "seed": seed,
        "strict": strict or None,
        "size": _size(size),
        "client_ref": client_ref,
        "batch_id": batch_id,
        "labels": _pairs(label, "--label") or None,
    }
    body = {key: value for key, value in asked.items() if value is not None}
    if dry_run:
        show_json(call(INTAKE, "POST", "/v1/requests", params={"dry_run": "true"}, json=body))
        return
    made = call(INTAKE, "POST", "/v1/requests", json=body, headers={"Idempotency-Key": str(uuid.uuid4())})
    if wait or out:
        _wait_and_tell(made["request_id"], out=out, json_=json_)
    else:
        show([{"request_id": made["request_id"], "state": made["state"]}], as_json=json_)


@app.command("ls")
def ls(
    state: Annotated[str | None, typer.Option()] = None,
    outcome: Annotated[str | None, typer.Option()] = None,
    batch_id: Annotated[str | None, typer.Option()] = None,
    client_ref: Annotated[str | None, typer.Option()] = None,
    asset_type: Annotated[str | None, typer.Option()] = None,
    label: Label = None,
    limit: Annotated[int, typer.Option(help="At most this many.")] = 50,
    json_: AsJson = False,
) -> None:
    """Requests, newest first."""
    named = {
        "state": state,
        "outcome": outcome,
        "batch_id": batch_id,
        "client_ref": client_ref,
        "asset_type": asset_type,
    }
    params: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    if label:
        params["label"] = [f"{key}:{value}" for key, value in _pairs(label, "--label").items()]
    rows = [row if json_ else _row(row) for row in pages(INTAKE, "/v1/requests", params, limit)]
    show(rows, as_json=json_, empty="no requests")


@app.command("show")
def show_one(request_id: str, json_: AsJson = False) -> None:
    """One request: its state, its candidates with their scores, its cost; whom the router chose, who lost and why."""
    found = call(INTAKE, "GET", f"/v1/requests/{request_id}")
    if json_:
        show_json(found)
        return
    show([_row(found)], as_json=False)
    show([_candidate(one) for one in found.get("candidates") or ()], as_json=False, empty="no candidates yet")
    routing.tell_routes(found)


@app.command()
def watch(request_id: str, out: Out = None, json_: AsJson = False) -> None:
    """Follow a request to its end; exit code 1 unless it is approved."""
    _wait_and_tell(request_id, out=out, json_=json_)


@app.command()
def cancel(request_id: str, json_: AsJson = False) -> None:
    """Cancel a request; what is already approved stays approved."""
    done = call(INTAKE, "POST", f"/v1/requests/{request_id}/cancel")
    show([done], as_json=json_, columns=("request_id", "state"))


@app.command()
def retry(request_id: str, json_: AsJson = False) -> None:
    """Ask again for what a closed request did not get."""
    done = call(INTAKE, "POST", f"/v1/requests/{request_id}/retry")
    show([done], as_json=json_, columns=("request_id", "state"))


def _row(found: dict[str, Any]) -> dict[str, Any]:
    progress = found.get("progress") or {}
    return {
        "request_id": found["request_id"],
        "state": found["state"],
        "approved": f"{progress.get('approved', 0)}/{progress.get('wanted', found.get('wanted', 1))}",
        "cost_usd": found.get("cost_usd"),
        "client_ref": found.get("client_ref"),
    }


def _candidate(one: dict[str, Any]) -> dict[str, Any]:
    scores = one.get("scores") or {}
    said = ", ".join(
        f"{name} {score['value']:.2f} {score['verdict']}"
        for name, score in scores.items()
        if score.get("value") is not None
    )
    return {
        "index": one.get("index"),
        "state": one.get("state"),
        "made_by": routing.made_by(one),
        "fell_back_from": routing.fallbacks(one),
        "cost_usd": one.get("cost_usd"),
        "scores": said or None,
    }


def events(request_id: str) -> Iterator[dict[str, Any]]:
    """The request now and after each of its events, until it has ended; a lost connection is taken up again.

    Errors: Trouble when it does not end within an hour.
    """
    last, deadline = "", time.monotonic() + WAIT_MAX_S
    while time.monotonic() < deadline:
        try:
            for heard in _heard(request_id, last):
                last = heard
                found = call(INTAKE, "GET", f"/v1/requests/{request_id}")
                yield found
                if found["state"] in ENDED:
                    return
        except (httpx2.HTTPError, Away):
            pass
        time.sleep(RECONNECT_S)
    raise Trouble(
        f"{request_id} did not end within {WAIT_MAX_S:.0f} s; `giclee requests show {request_id}` says where it is."
    )


def _heard(request_id: str, last: str) -> Iterator[str]:
    """`last`, then the id of each event behind it, until the connection ends."""
    yield last
    path, headers = f"/v1/requests/{request_id}/events", {"Last-Event-ID": last} if last else {}
    patience = httpx2.Timeout(TIMEOUT_S, read=60)
    with client(INTAKE) as connection, connection.stream("GET", path, headers=headers, timeout=patience) as stream:
        if stream.status_code >= 400:
            stream.read()
            read(stream)
        for line in stream.iter_lines():
            if line.startswith("id:"):
                last = line[3:].strip()
            elif line.startswith("data:"):
                yield last


def wait(request_id: str) -> dict[str, Any]:
    """Wait for the end with a progress display on stderr; the request as it ended."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("pending", total=1, said="")
        found: dict[str, Any] = {}
        for found in events(request_id):
            progress = found["progress"]
            counts = (f"{progress[name]} {name.replace('_', ' ')}" for name in COUNTED)
            said = f"{progress['approved']}/{progress['wanted']} approved, {', '.join(counts)}"
            bar.update(
                task, description=found["state"], total=progress["wanted"], completed=progress["approved"], said=said
            )
    return found


def _wait_and_tell(request_id: str, *, out: Path | None, json_: bool) -> None:
    tell(f"{request_id} accepted") if sys.stderr.isatty() else None
    found = wait(request_id)
    files = [str(assets.download(one["asset_id"], out)) for one in found.get("assets") or ()] if out else []
    if json_:
        typer.echo(json.dumps({**found, "files": files}, indent=2))
    else:
        show([_row(found)], as_json=False)
        for file in files:
            typer.echo(file)
        for reason in found.get("reasons") or ():
            tell(f"{reason['code']}: {reason['message']}")
    if found["state"] != "approved":
        raise typer.Exit(BAD)
