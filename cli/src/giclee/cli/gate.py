"""`giclee gate`: the thresholds that decide what passes; set, compared with what was scored, and their history."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from giclee.cli import environment
from giclee.cli.http import OPERATIONS, actor, call
from giclee.cli.offline import answer_of
from giclee.cli.output import AsJson, show, show_json, tell
from giclee.cli.selecting import hours_of
from giclee.schemas.gates import place_of

app = typer.Typer(no_args_is_help=True, help="The gate: which measured values pass.")

COLUMNS = ("dimension", "asset_type", "long_side_max_px", "pass_at", "doubt_at", "source")
HISTORY = ("at", "actor", "action", "place", "before", "after", "reason")
CHANGES = ("request_id", "candidate_id", "asset_type", "before", "after", "why")

Dimension = Annotated[str, typer.Argument(help="As `giclee gate ls` lists them.")]
AssetType = Annotated[str | None, typer.Option(help="Only for this asset type.")]
LongSide = Annotated[int | None, typer.Option("--long-side-max", help="Only for pictures up to so many pixels.")]
Pass = Annotated[float, typer.Option("--pass-at", help="Values from here on pass.")]
Doubt = Annotated[
    float | None, typer.Option("--doubt-at", help="From here to --pass-at: unsure; absent, never a fail.")
]
Reason = Annotated[str, typer.Option(help="Why; people and the audit read it.")]


@app.command("ls")
def ls(json_: AsJson = False) -> None:
    """Every threshold in force, and where it comes from."""
    found = ask("ls", {})
    if json_:
        show_json(found)
        return
    tell(f"gate {found['version']}")
    show([{**row, "doubt_at": _never(row["doubt_at"])} for row in found["rows"]], as_json=False, columns=COLUMNS)


@app.command("set")
def set_one(
    dimension: Dimension,
    pass_at: Pass,
    reason: Reason,
    doubt_at: Doubt = None,
    asset_type: AssetType = None,
    long_side_max: LongSide = None,
    json_: AsJson = False,
) -> None:
    """Set a threshold for images scored from now on. `gate diff` shows before what it would change."""
    row = _row(dimension, pass_at, doubt_at, asset_type, long_side_max)
    show([call(OPERATIONS, "PUT", "/v1/gate", json={"row": row, "reason": reason, "actor": actor()})], as_json=json_)


@app.command()
def clear(
    dimension: Dimension,
    reason: Reason,
    asset_type: AssetType = None,
    long_side_max: LongSide = None,
    json_: AsJson = False,
) -> None:
    """Take a threshold back; the operator's file or the built-in table counts again."""
    body = {"place": place_of(dimension, asset_type, long_side_max), "reason": reason, "actor": actor()}
    show([call(OPERATIONS, "PUT", "/v1/gate", json=body)], as_json=json_)


@app.command()
def diff(
    dimension: Dimension,
    pass_at: Pass,
    doubt_at: Doubt = None,
    asset_type: AssetType = None,
    long_side_max: LongSide = None,
    since: Annotated[str, typer.Option(help="Over verdicts of this time, for example 2h or 7d.")] = "24h",
    limit: Annotated[int, typer.Option(min=0, help="List at most so many images that change.")] = 20,
    json_: AsJson = False,
) -> None:
    """What a threshold would change in the verdicts of the last hours; no model is called, nothing is set."""
    row = _row(dimension, pass_at, doubt_at, asset_type, long_side_max)
    found = ask("diff", {"other": [row], "since_h": hours_of("since", since)})
    if json_:
        show_json(found)
        return
    moved = sum(one["count"] for one in found["verdicts"] if one["before"] != one["after"])
    tell(f"{found['looked_at']} verdicts looked at, {moved} would change")
    show(found["verdicts"], as_json=False, columns=("before", "after", "count"), empty="no verdict in that time")
    if found["changes"] and limit:
        show(found["changes"][:limit], as_json=False, columns=CHANGES)


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many, the newest first.")] = 20,
    json_: AsJson = False,
) -> None:
    """Who set what, when, why, and what it was before."""
    rows = call(OPERATIONS, "GET", "/v1/gate/history", params={"limit": limit})["items"]
    short = [{**row, "before": _thresholds(row["before"]), "after": _thresholds(row["after"])} for row in rows]
    show(rows if json_ else short, as_json=json_, columns=HISTORY, empty="nothing was ever set")


def _row(
    dimension: str, pass_at: float, doubt_at: float | None, asset_type: str | None, long_side_max: int | None
) -> dict[str, Any]:
    return {
        "dimension": dimension,
        "pass_at": pass_at,
        "doubt_at": doubt_at,
        "asset_type": asset_type,
        "long_side_max_px": long_side_max,
    }


def ask(verb: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The scorer's own code answers, in a process of its own: it knows the built-in table and its verdicts."""
    live = call(OPERATIONS, "GET", "/v1/gate")["items"]
    if verb != "ls":
        environment.needed("DATABASE_URL")
    return answer_of("giclee.scorer.whatif", verb, {**asked, "live": live})


def _never(doubt_at: float | None) -> object:
    return "never fails" if doubt_at is None else doubt_at


def _thresholds(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{row['pass_at']:g} / {_never(row.get('doubt_at'))}"
