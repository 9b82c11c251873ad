"""`giclee assets`: approved images, their evidence and their bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from giclee.cli.http import ASSETS, call, client, pages, read, tell_service
from giclee.cli.output import AsJson, fail, show, show_json
from giclee.infra.trouble import Trouble

app = typer.Typer(no_args_is_help=True, help="Approved images.")

SUFFIXES = {"image/webp": ".webp", "image/png": ".png", "image/jpeg": ".jpg"}
Role = Annotated[str, typer.Option(help="original, or a derivative such as thumbnail.")]


@app.command("ls")
def ls(
    status: Annotated[str | None, typer.Option(help="approved or revoked.")] = None,
    updated_after: Annotated[str | None, typer.Option(help="RFC 3339 time.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key:value; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many.")] = 50,
    json_: AsJson = False,
) -> None:
    """Approved images, newest first."""
    named = {"status": status, "updated_after": updated_after, "label": label}
    params = {key: value for key, value in named.items() if value}
    rows = list(pages(ASSETS, "/v1/assets", params, limit))
    show(rows if json_ else [_row(row) for row in rows], as_json=json_, empty="no assets")


@app.command("show")
def show_one(asset_id: str, json_: AsJson = False) -> None:
    """One approval with all its evidence."""
    found = call(ASSETS, "GET", f"/v1/assets/{asset_id}")
    if json_:
        show_json(found)
        return
    show([_row(found)], as_json=False)
    scores = [{"dimension": name, **score} for name, score in found["scores"].items()]
    show(
        scores, as_json=False, columns=("dimension", "value", "threshold", "verdict", "evaluator", "evaluator_version")
    )


@app.command()
def get(
    asset_id: str,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    role: Role = "original",
) -> None:
    """Download an approved image; its hash is checked."""
    typer.echo(str(download(asset_id, out, role=role)))


@app.command()
def revoke(
    asset_id: str,
    reason: Annotated[str, typer.Option(help="Why, in a sentence; subscribers read it.")],
    reason_code: Annotated[str, typer.Option(help="rights, legal, safety, brand, quality or requested.")] = "requested",
    take_down_by: Annotated[str | None, typer.Option(help="RFC 3339 time by which it must be gone.")] = None,
    replaced_by: Annotated[str | None, typer.Option(help="The asset to use instead.")] = None,
    json_: AsJson = False,
) -> None:
    """Take an approval back: subscribers are told, its bytes are given to nobody any more."""
    named = {"take_down_by": take_down_by, "replaced_by": replaced_by}
    body = {"reason": reason, "reason_code": reason_code} | {key: value for key, value in named.items() if value}
    found = tell_service("POST", f"/v1/assets/{asset_id}/revoke", service=ASSETS, json=body)
    show([found if json_ else {**_row(found), **body}], as_json=json_)


def download(asset_id: str, out: Path | None, *, role: str = "original") -> Path:
    """The file written; `out` may be a folder. Errors: Trouble when the bytes are not those that were approved."""
    approval = call(ASSETS, "GET", f"/v1/assets/{asset_id}")
    blobs = {"original": approval["image"], **{one["role"]: one for one in approval.get("derivatives") or ()}}
    if role not in blobs:
        fail(f"{asset_id} has no {role}; it has {', '.join(blobs)}")
    target = out or Path(".")
    if target.suffix == "" or target.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        target /= asset_id + SUFFIXES.get(blobs[role]["content_type"], "")
    where = f"/v1/assets/{asset_id}/download"
    target.write_bytes(bytes_of(where, f"{asset_id} {role}", blobs[role]["sha256"], role=role))
    return target


def bytes_of(path: str, name: str, sha256: str, **params: str) -> bytes:
    """What the link at `path` leads to. Errors: Trouble when there is none, or when it is not that sha256."""
    with client(ASSETS) as connection:
        link = connection.get(path, params=params)
    if not link.is_redirect:
        read(link)
        raise Trouble(f"{name}: expected a redirect to the bytes, got {link.status_code}.")
    try:  # the store must not see our bearer key
        answer = httpx2.get(link.headers["location"], timeout=30, trust_env=False)
    except httpx2.HTTPError as error:
        raise Trouble(f"The object store does not answer: {error}.") from error
    if answer.status_code != 200:
        raise Trouble(f"The object store answered {answer.status_code} for {name}.")
    if hashlib.sha256(answer.content).hexdigest() != sha256:
        raise Trouble(f"{name}: the bytes are not those that were approved or put to review.")
    return bytes(answer.content)


def _row(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "asset_id": found["asset_id"],
        "status": found["status"],
        "version": found["version"],
        "request_id": found["request_id"],
        "size": f"{found['image']['width']}x{found['image']['height']}" if found.get("image") else None,
        "cost_usd": found.get("cost_usd"),
        "reproducibility": found.get("reproducibility"),
        "client_ref": found.get("client_ref"),
    }
