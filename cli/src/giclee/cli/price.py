"""`giclee price`: what providers charge; set for a while or for good, and its history."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from giclee.cli.http import OPERATIONS, actor, call
from giclee.cli.offline import answer_of
from giclee.cli.output import BAD, USAGE, AsJson, fail, show
from giclee.cli.selecting import span_of

app = typer.Typer(no_args_is_help=True, help="Prices: what an image costs at each model.")

COLUMNS = ("provider", "model", "quality", "usd_each", "usd", "unit", "until", "source")
SET_COLUMNS = ("place", "usd", "unit", "until", "reason", "actor", "set_at")
HISTORY = ("at", "actor", "action", "place", "before", "after", "reason")
READER = "giclee.router.configured"

Provider = Annotated[str, typer.Argument(help="As `giclee price ls` lists them.")]
Model = Annotated[str | None, typer.Option(help="Only for this model of the provider.")]
Quality = Annotated[str | None, typer.Option(help="Only for images sold as draft or final.")]
Upto = Annotated[float | None, typer.Option("--megapixels-max", help="Only for images up to so many megapixels.")]
Reason = Annotated[str, typer.Option(help="Why; people and the audit read it.")]


@app.command("ls")
def ls(json_: AsJson = False) -> None:
    """What each model asks for an image of its own size, and where that comes from."""
    live = call(OPERATIONS, "GET", "/v1/prices")["items"]
    rows = answer_of(READER, "prices", {"live": live})["rows"]
    if not json_:
        rows = [{**row, "usd_each": row["usd_each"] or "unknown"} for row in rows]
    show(rows, as_json=json_, columns=COLUMNS, empty="there is no model")


@app.command("set")
def set_one(
    provider: Provider,
    usd: Annotated[str, typer.Argument(help="US dollars for one unit, for example 0.012.")],
    reason: Reason,
    unit: Annotated[str, typer.Option(help="image, megapixel, step or second.")] = "image",
    model: Model = None,
    quality: Quality = None,
    megapixels_max: Upto = None,
    until: Annotated[
        str | None, typer.Option(help="For how long (2h, 7d), or an RFC 3339 time; then it is void.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Set a price for what is routed from now on."""
    row = {
        "provider": provider, "model": model, "unit": unit, "usd": usd, "quality": quality,
        "megapixels_max": megapixels_max, "until": _until(until),
    }  # fmt: skip
    asked = {key: value for key, value in row.items() if value is not None}
    if wrong := answer_of(READER, "check", {"row": asked})["wrong"]:
        fail(wrong, BAD)
    show([_flat(_put({"row": asked, "reason": reason}))], as_json=json_, columns=SET_COLUMNS)


@app.command()
def clear(
    place: Annotated[str, typer.Argument(help="As `giclee price set` and `giclee price history` name it.")],
    reason: Reason,
    json_: AsJson = False,
) -> None:
    """Take a price back; the operator's file counts again."""
    show([_flat(_put({"place": place, "reason": reason}))], as_json=json_)


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many, the newest first.")] = 20,
    json_: AsJson = False,
) -> None:
    """Who set what, when, why, and what it was before."""
    rows = call(OPERATIONS, "GET", "/v1/prices/history", params={"limit": limit})["items"]
    short = [{**row, "before": _said(row["before"]), "after": _said(row["after"])} for row in rows]
    show(rows if json_ else short, as_json=json_, columns=HISTORY, empty="nothing was ever set")


def _put(body: dict[str, Any]) -> dict[str, Any]:
    done: dict[str, Any] = call(OPERATIONS, "PUT", "/v1/prices", json={**body, "actor": actor()})
    return done


def _flat(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, **{key: event["row"].get(key) for key in ("usd", "unit", "until")}} if event.get("row") else event


def _until(text: str | None) -> str | None:
    if text is None:
        return None
    span = span_of(text)
    if span is not None:
        return (datetime.now(UTC) + span).isoformat()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        fail("--until is a span such as 2h or 7d, or a time with its zone such as 2026-12-01T00:00:00Z", USAGE)
    return moment.isoformat()


def _said(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    return f"{row['usd']} a {row['unit']}" + (f" until {row['until']}" if row.get("until") else "")
