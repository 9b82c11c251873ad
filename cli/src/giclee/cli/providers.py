"""`giclee providers`: how each provider does, what its calls cost, and holding one or letting it go (a switch of scope
`provider:`)."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import quote

import typer

from giclee.cli.http import OPERATIONS, actor, call
from giclee.cli.output import USAGE, AsJson, fail, show, show_json, tell
from giclee.cli.selecting import checked

app = typer.Typer(no_args_is_help=True, help="Providers: who is well, who is held, what passes.")

COLUMNS = (
    "provider", "model", "state", "failed", "fell_back", "stood_in", "p50_s", "p95_s", "queue_s", "accepted",
    "usd_per_passed", "billed", "age_s",
)  # fmt: skip
BY_TYPE = ("model", "asset_type", "passed", "scored", "share", "usd_per_passed", "at")
CALLS = (
    "began_at", "provider", "model", "tenant", "request_id", "outcome", "expected_usd", "actual_usd", "counted_usd",
    "again", "jobs",
)  # fmt: skip
SPENT = ("provider", "calls", "open", "again", "untold", "expected_usd", "actual_usd", "counted_usd")
STATES = ("open", "lost", "again", "untold", "differs")

Name = Annotated[str, typer.Argument(help="As `giclee providers ls` lists them.")]
Reason = Annotated[str, typer.Option(help="Why; people and the audit read it.")]


@app.command("ls")
def ls(json_: AsJson = False) -> None:
    """Every model at its provider: its state, failures, fallbacks from and to it, durations, what passes and costs.

    Of about the newest 33 calls; of what was judged, about the newest 67 images of each asset type.
    """
    rows = call(OPERATIONS, "GET", "/v1/providers")["items"]
    if json_:
        show_json(rows)
        return
    show(
        [line for row in rows for line in _lines(row)], as_json=False, columns=COLUMNS, empty="no provider was used yet"
    )


@app.command("show")
def show_one(name: Name, json_: AsJson = False) -> None:
    """One provider, with what passes, and what a passing image costs, by asset type."""
    row = call(OPERATIONS, "GET", f"/v1/providers/{quote(name, safe='')}")
    if json_:
        show_json(row)
        return
    show(list(_lines(row)), as_json=False, columns=COLUMNS, empty="no model of it was used yet")
    kinds = [
        {
            "model": model,
            "asset_type": kind,
            **one,
            "share": f"{one['passed'] / max(one['scored'], 1e-9):.2f}",
            "usd_per_passed": _usd_per_passed(told, one["passed"], one["scored"]),
        }
        for model, told in row.get("models", {}).items()
        for kind, one in told.get("accepted", {}).items()
    ]
    if kinds:
        show(kinds, as_json=False, columns=BY_TYPE)


@app.command()
def calls(
    provider: Annotated[str | None, typer.Option(help="Only at this one.")] = None,
    request: Annotated[str | None, typer.Option(help="Only of this request.")] = None,
    candidate: Annotated[str | None, typer.Option(help="Only of this candidate.")] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="open; lost: nobody heard of it, so its price counts; again: paid a second time; untold: the provider "
            "did not say what it cost; or differs: it cost other than expected."
        ),
    ] = None,
    since: Annotated[str, typer.Option(help="An RFC 3339 time, or so long ago, for example 2h.")] = "7d",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many, the newest first.")] = 50,
    json_: AsJson = False,
) -> None:
    """Paid calls as the workers' ledger has them: what was expected and what was billed, with totals by provider."""
    if state is not None and state not in STATES:
        fail(f"--state {state}: expected one of {', '.join(STATES)}", USAGE)
    named = {"request": request, "candidate": candidate, "since": since}
    asked = checked({name: text for name, text in named.items() if text is not None})
    others = {name: text for name, text in (("provider", provider), ("state", state)) if text is not None}
    found = call(OPERATIONS, "GET", "/v1/calls", params={**asked, **others, "limit": limit})
    if json_:
        show_json(found)
        return
    rows = [{**row, "outcome": row["outcome"] or "open", "jobs": " ".join(row["jobs"])} for row in found["items"]]
    show(rows, as_json=False, columns=CALLS, empty="no such call")
    if rows and not (request or candidate or state):
        typer.echo(f"\nall calls since {asked['since'][:19]}, in US dollars:")
        show(_spent(found["spent"]), as_json=False, columns=SPENT)


def _spent(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The days and tenants of each provider added up."""
    total: dict[str, dict[str, Any]] = {}
    for row in rows:
        into = total.setdefault(row["provider"], {"provider": row["provider"]})
        for name in SPENT[1:]:
            # amounts come as text, so that no digit is lost
            into[name] = into.get(name, 0) + (Decimal(row[name]) if name.endswith("_usd") else row[name])
    return list(total.values())


@app.command()
def hold(name: Name, reason: Reason, json_: AsJson = False) -> None:
    """Route nothing to it while anybody else can do the work; what is on its way there waits."""
    _put(name, {"mode": "hold", "reason": reason}, as_json=json_)
    tell(f"let it go: giclee providers release {name} --reason …")


@app.command()
def release(name: Name, reason: Reason, json_: AsJson = False) -> None:
    """Use it again: ends a hold, and forgives a refused key or spent credit that was mended."""
    _put(name, {"mode": "clear", "reason": reason}, as_json=json_)


def _put(name: str, body: dict[str, str], *, as_json: bool) -> None:
    path = f"/v1/switches/{quote(f'provider:{name}', safe='')}"
    show([call(OPERATIONS, "PUT", path, json={**body, "actor": actor()})], as_json=as_json)


def _lines(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for model, told in (row.get("models") or {"–": {}}).items():
        kinds = told.get("accepted", {}).values()
        scored, passed = sum(one["scored"] for one in kinds), sum(one["passed"] for one in kinds)
        ratio = told.get("paid_ratio")
        yield {
            "provider": row["provider"],
            "model": model,
            "state": _state(row, told),
            "failed": f"{told.get('failed', 0):.1f} of {told.get('tried', 0):.1f}",
            "fell_back": _of_calls(told, "unmade"),
            "stood_in": _of_calls(told, "stood_in"),
            "p50_s": told.get("p50_s"),
            "p95_s": told.get("p95_s"),
            "queue_s": told.get("queue_s"),
            "accepted": f"{passed / scored:.0%} of {scored:.0f}" if scored else "–",
            "usd_per_passed": _usd_per_passed(told, passed, scored),
            "billed": "–" if ratio is None else f"{ratio:.2f} of the price",
            "age_s": row["age_s"],
        }


def _of_calls(told: dict[str, Any], name: str) -> str:
    """A share of the newest calls; nothing from a release that did not count it."""
    calls = told.get("calls", 0)
    return f"{told.get(name, 0) / calls:.0%}" if calls else "–"


def _usd_per_passed(told: dict[str, Any], passed: float, scored: float) -> str:
    """What was paid, failed calls too, for an image that passes: per image, over the share that passes."""
    images = told.get("calls", 0) - told.get("unmade", 0)
    return f"{told.get('paid_usd', 0) / images * scored / passed:.4f}" if images > 0 and passed > 0 else "–"


def _state(row: dict[str, Any], told: dict[str, Any]) -> str:
    if row.get("switch"):
        return f"{row['switch']['mode']} by {row['switch']['actor']}: {row['switch']['reason']}"
    held, released = told.get("held"), row.get("released_at") or ""
    if held and released <= told.get("held_since", ""):
        return f"refused for {held} until {told.get('held_until', 'somebody acts')}"
    if told.get("streak", 0) >= 3:
        return f"resting, {told['streak']} failures in a row"
    return "well"
