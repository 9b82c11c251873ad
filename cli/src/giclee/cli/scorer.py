"""`giclee scorer`: thresholds from labels, gates compared, drift; the scorer's own code does the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from giclee.cli import environment, gate
from giclee.cli.http import OPERATIONS, actor, call
from giclee.cli.offline import answer_of
from giclee.cli.output import BAD, AsJson, fail, show, show_json, tell
from giclee.cli.selecting import hours_of

app = typer.Typer(no_args_is_help=True, help="The scorer's offline tools; they need giclee-scorer installed.")


@app.command()
def calibrate(
    labels: Annotated[Path, typer.Option(help="JSON lines or CSV: candidate_id, right; see the scorer's README.")],
    bad_rate: Annotated[float, typer.Option(help="Share of the accepted that may be bad, for example 0.02.")],
    confidence: Annotated[float, typer.Option(help="Of the promise.")] = 0.95,
    dimension: Annotated[str, typer.Option(help="Whose threshold is chosen.")] = "alignment",
    asset_type: Annotated[str | None, typer.Option(help="Only labels of it, and a row for it alone.")] = None,
    out: Annotated[Path, typer.Option(help="A folder is made in it.")] = Path("calibration"),
) -> None:
    """Choose a threshold that keeps a promise; write a gate file and a report. Exit 1: the labels cannot carry it."""
    words = ["--labels", str(labels), "--bad-rate", str(bad_rate), "--confidence", str(confidence),
             "--dimension", dimension, "--out", str(out)]  # fmt: skip
    if asset_type:
        words += ["--asset-type", asset_type]
    done = subprocess.run([sys.executable, "-m", "giclee.scorer.calibrate", *words], env=dict(os.environ), check=False)
    raise typer.Exit(done.returncode)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A gate file, `now`, or a version of `giclee gate history`'s time.")],
    b: Annotated[str, typer.Argument(help="The same; a file's rows lie over what is in force now.")],
    since: Annotated[str, typer.Option(help="Over verdicts of this time, for example 2h or 7d.")] = "24h",
    asset_type: Annotated[str | None, typer.Option(help="Only verdicts on it.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="List at most so many images that change.")] = 20,
    json_: AsJson = False,
) -> None:
    """What gate B would say of stored verdicts where A says something else; no model is called, nothing is set."""
    since_h = hours_of("since", since)
    past = call(OPERATIONS, "GET", "/v1/gate/history", params={"limit": 1000})["items"] if _is_version(a, b) else []
    files = [str(Path(one).resolve()) if Path(one).is_file() else one for one in (a, b)]
    asked = {"a": files[0], "b": files[1], "since_h": since_h, "asset_type": asset_type}
    found = gate.ask("compare", {**asked, "history": past})
    found["changes"] = found["changes"][:limit]
    if json_:
        show_json(found)
        return
    tell(f"{found['looked_at']} verdicts looked at; A is {found['a']['version']}, B is {found['b']['version']}")
    show(
        found["acceptance"], as_json=False, columns=("asset_type", "images", "a", "b"), empty="no verdict in that time"
    )
    for name in ("asset_types", "newly_approved", "newly_refused", "changes"):
        if found[name]:
            tell(f"\n{name.replace('_', ' ')}")
            show(found[name], as_json=False, columns=gate.CHANGES if name == "changes" else None)


def _is_version(*gates: str) -> bool:
    return any(one != "now" and not Path(one).is_file() for one in gates)


drift = typer.Typer(no_args_is_help=True, help="What is held back because its scores are no longer as calibrated.")
app.add_typer(drift, name="drift")
DRIFT = ("asset_type", "model", "dimension", "says", "seen", "raised_at", "in_force")
CLEARED = (*DRIFT, "cleared_at", "cleared_by", "cleared_because")


@drift.command("ls")
def drift_ls(
    every: Annotated[bool, typer.Option("--all", help="What was cleared as well.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many, the newest first.")] = 50,
    json_: AsJson = False,
) -> None:
    """What is held back: asset type, model revision, dimension, and what was seen. `*`: never calibrated with."""
    rows = _held("ls", {"all": every, "limit": limit})["items"]
    show(rows, as_json=json_, columns=CLEARED if every else DRIFT, empty="nothing is held back")


@drift.command("clear")
def drift_clear(
    model: Annotated[str, typer.Argument(help="name@revision, as `giclee scorer drift ls` lists it.")],
    asset_type: Annotated[str, typer.Option(help="The asset type that is held back.")],
    reason: Annotated[str, typer.Option(help="Why; people and the audit read it.")],
    dimension: Annotated[str | None, typer.Option(help="Only this one; `*`: never calibrated with.")] = None,
    json_: AsJson = False,
) -> None:
    """Let images pass again and count anew. A model that stays changed is held back again: calibrate anew for it."""
    asked = {"model": model, "asset_type": asset_type, "dimension": dimension, "reason": reason, "actor": actor()}
    rows = _held("clear", asked)["items"]
    if not rows:
        fail(f"nothing of {asset_type} by {model} is held back; `giclee scorer drift ls` shows what is", BAD)
    show(rows, as_json=json_)


def _held(verb: str, asked: dict[str, Any]) -> dict[str, Any]:
    environment.needed("DATABASE_URL")
    return answer_of("giclee.scorer.held", verb, asked)
