"""`giclee score`: what the line would say to pictures that somebody made elsewhere. Nothing is stored unless asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from giclee.cli.http import INTAKE, Away, call
from giclee.cli.output import BAD, USAGE, AsJson, fail, show, show_json, tell
from giclee.infra.trouble import Trouble

FILE_MAX_BYTES = 20 * 1024 * 1024
ANSWER_MAX_S = 120.0
"""A hostile file takes the scorer 20 s; on a busy machine everything takes longer."""
COLUMNS = ("file", "dimension", "value", "threshold", "verdict", "reason")


def score(
    files: Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP, at most 20 MiB each.")],
    prompt: Annotated[str, typer.Option(help="What the pictures should show.")],
    asset_type: Annotated[str, typer.Option(help="generic, product-tile, email-hero, …")] = "generic",
    store: Annotated[bool, typer.Option("--store", help="Keep the verdicts, readable under their ids.")] = False,
    json_: AsJson = False,
) -> None:
    """Judge pictures made elsewhere as the line would; exit code 0 when all pass, 1 when not."""
    bodies = {path: _read(path) for path in files}
    found: list[dict[str, Any]] = []
    for path, body in bodies.items():
        try:
            found.append({"file": str(path), **_ask(path, body, prompt, asset_type, store)})
        except Away:
            _print(found, json_)
            raise
        except Trouble as trouble:  # this file's; the others still get their verdicts
            tell(f"{path}: {trouble}")
    _print(found, json_)
    if len(found) < len(bodies) or any(one["verdict"] != "pass" for one in found):
        raise typer.Exit(BAD)


def _read(path: Path) -> bytes:
    """A file's bytes; before anything is sent, since one that is not there is a mistake of the caller."""
    try:
        body = path.read_bytes() if path.stat().st_size <= FILE_MAX_BYTES else None
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", USAGE)
    if body is None:
        fail(f"{path} is larger than {FILE_MAX_BYTES} bytes", USAGE)
    return body


def _ask(path: Path, body: bytes, prompt: str, asset_type: str, store: bool) -> dict[str, Any]:
    # no type is claimed: a file's ending is its owner's, and the line judges what the file is
    parts = {"file": (path.name, body, "application/octet-stream")}
    values = {"prompt": prompt, "asset_type": asset_type, "store": "true" if store else "false"}
    answer: dict[str, Any] = call(INTAKE, "POST", "/v1/evaluations", data=values, files=parts, timeout=ANSWER_MAX_S)
    return answer


def _print(found: list[dict[str, Any]], json_: bool) -> None:
    if json_:
        show_json(found)
        return
    for one in found:
        stored = f", stored as {one['evaluation_id']}" if one["stored"] else ""
        tell(f"{one['file']}: {one['verdict']} as {one['asset_type']}, gate {one['gate_version']}{stored}")
    rows = [_row(one["file"], name, score) for one in found for name, score in one["scores"].items()]
    show(rows, as_json=False, columns=COLUMNS, empty="no verdict")


def _row(file: str, dimension: str, score: dict[str, Any]) -> dict[str, Any]:
    value = score["value"]
    return {
        "file": file,
        "dimension": dimension,
        "value": None if value is None else round(value, 3),
        "threshold": score["threshold"],
        "verdict": score["verdict"],
        "reason": score["reason"],
    }
