"""`giclee review`: what waits for a person; taking the next, looking, approving, rejecting, undoing; labels of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from giclee.cli import assets
from giclee.cli.http import ASSETS, call, pages, tell_service
from giclee.cli.output import BAD, USAGE, AsJson, fail, show, show_json, tell

app = typer.Typer(no_args_is_help=True, help="Images that wait for a person, and what people said.")

COLUMNS = ("candidate_id", "kind", "asset_type", "why", "waits", "due_at", "overdue", "leased_by", "passed_by", "state")
SCORES = ("dimension", "value", "threshold", "verdict", "evaluator", "evaluator_version")
EVERYTHING = 1_000_000
UNDO_SAYS = "it takes effect in ten seconds; until then: giclee review undo"

Candidate = Annotated[str, typer.Argument(help="As `giclee review ls` lists them.")]
AssetType = Annotated[str | None, typer.Option(help="Only of this asset type.")]
Kind = Annotated[str | None, typer.Option(help="doubt, required, sample or override.")]
Codes = Annotated[
    list[str] | None,
    typer.Option("--reason-code", "-r", help="off-brief, hands, text, composition, brand, unsafe, rights, other."),
]
Note = Annotated[str | None, typer.Option(help="A sentence that travels with the image.")]
Seconds = Annotated[float | None, typer.Option(min=0, help="How long you looked.")]
Sha256 = Annotated[str | None, typer.Option(help="Of the bytes you looked at, where you fetched them yourself.")]


@app.command("ls")
def ls(
    state: Annotated[str, typer.Option(help="pending, given, done, withdrawn or any.")] = "pending",
    asset_type: AssetType = None,
    kind: Kind = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the soonest due first.")] = 50,
    json_: AsJson = False,
) -> None:
    """What waits for a person, and for how long."""
    rows = list(_listed(state, asset_type, kind, limit))
    _print(rows, json_)


@app.command("show")
def show_one(
    candidate_id: Candidate,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the image to this file or folder.")] = None,
    json_: AsJson = False,
) -> None:
    """One image with what was asked for, what was measured and what was said."""
    found = call(ASSETS, "GET", f"/v1/reviews/{candidate_id}")
    if out is not None:
        tell(str(_fetched(found, out)))
    if json_:
        show_json(found)
        return
    show([_row(found)], as_json=False, columns=COLUMNS)
    tell(f"asked for: {found['prompt']}")
    show([{"dimension": name, **score} for name, score in found["scores"].items()], as_json=False, columns=SCORES)
    if found["verdict"]:
        said = ", ".join(found["reason_codes"]) or "no reason code"
        tell(f"{found['reviewer']} said {found['verdict']} ({said}) {found['note'] or ''}".rstrip())


@app.command("next")
def take_next(
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=50, help="So many images.")] = 1,
    asset_type: AssetType = None,
    kind: Kind = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the images to this folder.")] = None,
    json_: AsJson = False,
) -> None:
    """Take the next images: nobody else gets them for five minutes."""
    named = {"count": count, "asset_type": asset_type, "kind": kind}
    body = {key: value for key, value in named.items() if value is not None}
    rows = tell_service("POST", "/v1/reviews/lease", service=ASSETS, json=body)["items"]
    for row in rows if out is not None else ():
        tell(str(_fetched(row, out or Path("."))))
    _print(rows, json_)


@app.command()
def approve(
    candidate_id: Candidate,
    reason_code: Codes = None,
    note: Note = None,
    seconds: Seconds = None,
    sha256: Sha256 = None,
    json_: AsJson = False,
) -> None:
    """Pass an image. What the gate failed needs two different people."""
    found = _judge(candidate_id, "pass", reason_code, note=note, seconds=seconds, sha256=sha256)
    _print([found], json_)
    needs_another = found["state"] == "pending"
    tell("the gate failed it: a second person must pass it too" if needs_another else f"{UNDO_SAYS} {candidate_id}")


@app.command()
def reject(
    candidate_id: Candidate,
    reason_code: Codes = None,
    note: Note = None,
    seconds: Seconds = None,
    sha256: Sha256 = None,
    json_: AsJson = False,
) -> None:
    """Fail an image, with at least one reason code. A failed sample's asset is revoked."""
    if not reason_code:
        fail("say why with --reason-code, for example --reason-code hands", USAGE)
    found = _judge(candidate_id, "fail", reason_code, note=note, seconds=seconds, sha256=sha256)
    _print([found], json_)
    tell(f"{UNDO_SAYS} {candidate_id}")


@app.command()
def undo(candidate_id: Candidate, json_: AsJson = False) -> None:
    """Take your verdict back, within ten seconds."""
    found = tell_service("POST", f"/v1/reviews/{candidate_id}/undo", service=ASSETS)
    _print([found], json_)


@app.command()
def override(request_id: str, candidate_id: str, json_: AsJson = False) -> None:
    """Put an image that the gate failed to people, while its request is open; two of them must pass it."""
    body = {"request_id": request_id, "candidate_id": candidate_id}
    found = tell_service("POST", "/v1/reviews", service=ASSETS, json=body)
    _print([found], json_)


@app.command()
def labels(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; stdout without.")] = None,
    asset_type: AssetType = None,
    kind: Kind = None,
) -> None:
    """What people said, as JSON lines that `giclee scorer calibrate --labels` reads.

    Doubts are no random choice of images: a threshold's promise needs samples, or a set that was chosen at random.
    """
    lines = [json.dumps(label(row)) for row in _listed("done", asset_type, kind, EVERYTHING)]
    if not lines:
        fail("no verdict has taken effect yet", BAD)
    if out is None:
        sys.stdout.write("\n".join(lines) + "\n")
    else:
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        tell(f"{len(lines)} labels in {out}")


def label(found: dict[str, Any]) -> dict[str, Any]:
    """A review as a labelled picture: whether it was right, and what was measured of it."""
    scores = {name: score["value"] for name, score in found["scores"].items() if score.get("value") is not None}
    return {
        "candidate_id": found["candidate_id"],
        "right": found["verdict"] == "pass",
        "scores": scores,
        "asset_type": found["asset_type"],
        "model": "{name}@{revision}".format(**found["model"]) if found.get("model") else "",
        "long_side_px": found.get("long_side_px"),
        "kind": found["kind"],
        "reviewer": found["reviewer"],
        "reason_codes": found["reason_codes"],
    }


def _listed(state: str, asset_type: str | None, kind: str | None, limit: int) -> Iterator[dict[str, Any]]:
    named = {"state": state, "asset_type": asset_type, "kind": kind}
    yield from pages(ASSETS, "/v1/reviews", {key: value for key, value in named.items() if value}, limit)


def _judge(candidate_id: str, verdict: str, reason_code: list[str] | None, **more: Any) -> dict[str, Any]:
    """The review after a verdict on the bytes that it names, unless the caller names those that were looked at."""
    sha256 = more.pop("sha256") or call(ASSETS, "GET", f"/v1/reviews/{candidate_id}")["sha256"]
    told = {key: value for key, value in more.items() if value is not None}
    body = {"verdict": verdict, "sha256": sha256, "reason_codes": reason_code or [], **told}
    return tell_service("POST", f"/v1/reviews/{candidate_id}", service=ASSETS, json=body)


def _fetched(found: dict[str, Any], out: Path) -> Path:
    """The file that the image was written to."""
    target = out
    if target.suffix == "" or target.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        target /= found["candidate_id"] + assets.SUFFIXES.get(found["image"]["content_type"], "")
    where = f"/v1/reviews/{found['candidate_id']}/image"
    target.write_bytes(assets.bytes_of(where, found["candidate_id"], found["image"]["sha256"]))
    return target


def _print(rows: list[dict[str, Any]], json_: bool) -> None:
    show(rows if json_ else map(_row, rows), as_json=json_, columns=COLUMNS, empty="nothing to review")


def _row(found: dict[str, Any]) -> dict[str, Any]:
    dimensions = [reason["dimension"] for reason in found["reasons"] if reason.get("dimension")]
    minutes = found["age_s"] / 60
    waits = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    return {**found, "why": ", ".join(dimensions), "waits": waits, "overdue": "yes" if found["overdue"] else ""}
