"""`giclee dlq runs`: replays and discards under way, and how one is followed to its end."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from giclee.cli.http import OPERATIONS, Away, pages, tell_service
from giclee.cli.output import BAD, AsJson, show, show_json, tell
from giclee.infra.trouble import Trouble

app = typer.Typer(no_args_is_help=True, help="Runs of replays and discards.")

OVER = ("done", "aborted", "stopped", "paused")
LOOK_EVERY_S = 0.3
AWAY_MAX_S = 60.0
"""How long a service that is started again is waited for; the run goes on there whether anybody looks or not."""
COLUMNS = ("run_id", "action", "state", "total", "sent", "came_back", "refused", "left", "actor", "reason", "why")
RunId = Annotated[str, typer.Argument(help="A run, as `giclee dlq runs ls` shows it.")]
Reason = Annotated[str, typer.Option(help="Why; people and the audit read it.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end; Ctrl-C pauses it.")]


@app.command("ls")
def ls(
    state: Annotated[
        str | None, typer.Option(help="canary, running, paused, stopped, done or aborted.", metavar="TEXT")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 20,
    json_: AsJson = False,
) -> None:
    """Runs, newest first."""
    rows = list(pages(OPERATIONS, "/v1/runs", {"state": state} if state else {}, limit))
    show(rows, as_json=json_, columns=COLUMNS, empty="no runs")


@app.command("show")
def show_one(run_id: RunId, json_: AsJson = False) -> None:
    """One run: what was asked, how far it is, why it stands still."""
    found = tell_service("GET", f"/v1/runs/{run_id}")
    if json_:
        show_json(found)
    else:
        show([{"field": name, "value": one} for name, one in found.items() if one not in (None, {}, [])], as_json=False)


@app.command()
def pause(run_id: RunId, reason: Reason, json_: AsJson = False) -> None:
    """Stand still; what was sent stays sent."""
    show([_act(run_id, "pause", reason)], as_json=json_, columns=COLUMNS)
    tell(how_to_go_on(run_id))


@app.command()
def resume(run_id: RunId, reason: Reason, wait: Wait = True, json_: AsJson = False) -> None:
    """Go on where a paused or stopped run stands."""
    finish(_act(run_id, "resume", reason), wait=wait, json_=json_)


@app.command()
def abort(run_id: RunId, reason: Reason, json_: AsJson = False) -> None:
    """End a run; what was not sent is open again."""
    show([_act(run_id, "abort", reason)], as_json=json_, columns=COLUMNS)


def how_to_go_on(run_id: str) -> str:
    """What to type for a run that stands still."""
    return f'go on: giclee dlq runs resume {run_id} --reason "…"; give up: giclee dlq runs abort {run_id} --reason "…"'


def finish(run: dict[str, Any], *, wait: bool, json_: bool) -> None:
    """Follow a run to its end and show it; exit code 1 unless everything was sent and nothing came back."""
    if wait:
        run = follow(run)
    show_json(run) if json_ else show([run], as_json=False, columns=COLUMNS)
    if not wait:
        tell(f"it goes on by itself: giclee dlq runs show {run['run_id']}")
        return
    if run["state"] in ("paused", "stopped"):
        tell(f"{run['state']}: {run.get('why') or 'no reason given'}")
        tell(how_to_go_on(run["run_id"]))
    if run.get("came_back"):
        tell(f"{run['came_back']} came back: giclee dlq ls --run {run['run_id']} --state open")
    if run["state"] != "done" or run.get("came_back") or run.get("refused"):
        raise typer.Exit(BAD)


def follow(run: dict[str, Any]) -> dict[str, Any]:
    """The run as it ended or stands still; Ctrl-C pauses it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(run["state"], total=run["total"] or None)
    try:
        with bar if console.is_terminal else nullcontext():
            while run["state"] not in OVER:
                done = run["sent"] + run["refused"]
                said = run["state"] + (f", {run['came_back']} came back" if run["came_back"] else "")
                bar.update(task, description=said, total=run["total"] or None, completed=done)
                time.sleep(LOOK_EVERY_S)
                run = _look(run["run_id"])
    except KeyboardInterrupt:
        return _pause_on_interrupt(run["run_id"])
    return run


def _look(run_id: str) -> dict[str, Any]:
    until = time.monotonic() + AWAY_MAX_S
    while True:
        try:
            return tell_service("GET", f"/v1/runs/{run_id}")
        except Away as trouble:
            if time.monotonic() > until:
                raise Trouble(f"{trouble} The run goes on there: giclee dlq runs show {run_id}") from trouble
            time.sleep(LOOK_EVERY_S)


def _pause_on_interrupt(run_id: str) -> dict[str, Any]:
    try:
        return tell_service("POST", f"/v1/runs/{run_id}/pause", json={"reason": "interrupted at the keyboard"})
    except Trouble as trouble:  # it may have ended just now
        tell(f"the run was not paused: {trouble}")
        return tell_service("GET", f"/v1/runs/{run_id}")


def _act(run_id: str, verb: str, reason: str) -> dict[str, Any]:
    return tell_service("POST", f"/v1/runs/{run_id}/{verb}", json={"reason": reason})
