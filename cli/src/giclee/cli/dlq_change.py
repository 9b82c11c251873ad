"""What changes dead letters: replay, park, release, discard. Each says first what it would do, and to how many."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer

from giclee.cli import dlq_runs
from giclee.cli.dlq_runs import Wait
from giclee.cli.http import tell_service
from giclee.cli.output import BAD, USAGE, AsJson, fail, show, show_json, tell
from giclee.cli.selecting import Limit, selecting

app = typer.Typer()

REASON = "--reason is needed: say why; people and the audit read it"
NOTHING = "nothing is selected: giclee dlq ls shows what there is, and its state"
VERDICTS = ("dlq_id", "verdict", "stage", "topic", "why", "order", "claim", "blob", "paid_usd", "cost_max_usd")
SHOWN_MAX = 50

Ids = Annotated[list[str] | None, typer.Argument(help="Ids; none means everything selected by the options.")]
Reason = Annotated[str, typer.Option(help="Why; people and the audit read it.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]
Yes = Annotated[bool, typer.Option("--yes", help="All of them, although nothing was selected; nothing is asked.")]


@app.command()
@selecting
def replay(
    *,
    selection: dict[str, str],
    dlq_ids: Ids = None,
    reason: Reason = "",
    limit: Limit = None,
    dry_run: DryRun = False,
    canary: Annotated[
        int | None, typer.Option(min=1, help="Send this many first, and the rest if none comes back.")
    ] = None,
    rate: Annotated[str | None, typer.Option(help="At most so many a second, for example 50/s.")] = None,
    max_cost_usd: Annotated[
        str | None, typer.Option(help="Stop before what doing it again may cost exceeds this.")
    ] = None,
    patch: Annotated[
        str | None, typer.Option(help="JSON Patch (RFC 6902) for every value: a file, or the JSON itself.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also what was replayed before or came back too often.")
    ] = False,
    yes: Yes = False,
    wait: Wait = True,
    json_: AsJson = False,
) -> None:
    """Put dead letters back on the topic they came from, for the stage that failed."""
    if not dry_run and not reason:
        fail(REASON, USAGE)
    which = _which(dlq_ids, selection, "" if again else "open", limit, asking=dry_run, yes=yes)
    rate_per_s = _rate(rate)
    how = {"again": again, "patch": _patch(patch), "max_cost_usd": _money(max_cost_usd)}
    look = tell_service("POST", "/v1/dead-letters/preflight", json=_given({**which, **how}))
    if dry_run:
        _tell_preflight(look, json_=json_)
        raise typer.Exit(BAD if look["totals"].get("refuse") else 0)
    if not (look["totals"].get("go") or look["totals"].get("go_with_changes") or look.get("beyond")):
        _tell_preflight(look, json_=json_)
        fail("nothing can be replayed" if look["items"] else NOTHING)
    tell(_counted(look))
    _confirm(which, "replay", yes=yes)
    asked = {**which, **how, "reason": reason, "canary": canary, "rate_per_s": rate_per_s}
    dlq_runs.finish(tell_service("POST", "/v1/runs", json=_given(asked)), wait=wait, json_=json_)


@app.command()
@selecting
def park(
    *,
    selection: dict[str, str],
    dlq_ids: Ids = None,
    reason: Reason = "",
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json_: AsJson = False,
) -> None:
    """Set dead letters aside; nothing ends, and `release` opens them again."""
    asked = {"reason": reason, "limit": limit, "dry_run": dry_run, "yes": yes}
    _move("park", "open", dlq_ids, selection, asked, json_)


@app.command()
@selecting
def release(
    *,
    selection: dict[str, str],
    dlq_ids: Ids = None,
    reason: Reason = "",
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json_: AsJson = False,
) -> None:
    """Open parked dead letters again."""
    asked = {"reason": reason, "limit": limit, "dry_run": dry_run, "yes": yes}
    _move("release", "parked", dlq_ids, selection, asked, json_)


@app.command()
@selecting
def discard(
    *,
    selection: dict[str, str],
    dlq_ids: Ids = None,
    reason: Reason = "",
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    wait: Wait = True,
    json_: AsJson = False,
) -> None:
    """Give dead letters up: the stage that failed ends what waits for them. Cannot be undone."""
    asked = {"reason": reason, "limit": limit, "dry_run": dry_run, "yes": yes}
    dlq_runs.finish(_done("discard", "", dlq_ids, selection, asked, json_), wait=wait, json_=json_)


def _move(
    verb: str, state: str, ids: list[str] | None, selection: dict[str, str], asked: dict[str, Any], json_: bool
) -> None:
    """Park or release, done when this returns."""
    done = _done(verb, state, ids, selection, asked, json_)
    show_json(done) if json_ else tell(f"{done['changed']} {verb}{'ed' if verb == 'park' else 'd'}")
    if not done["changed"]:
        fail(f"nothing selected is {state}: giclee dlq ls shows what there is, and its state")


def _done(
    verb: str, state: str, ids: list[str] | None, selection: dict[str, str], asked: dict[str, Any], json_: bool
) -> Any:
    """Counts first, then what the service answers to the verb. A dry run ends after the counts."""
    if not asked["dry_run"] and not asked["reason"]:
        fail(REASON, USAGE)
    which = _which(ids, selection, state, asked["limit"], asking=asked["dry_run"], yes=asked["yes"])
    counts = _counts(which)
    if asked["dry_run"]:
        _tell_counts(counts, json_=json_)
        raise typer.Exit
    _confirm(which, verb, yes=asked["yes"])
    return tell_service("POST", f"/v1/dead-letters/{verb}", json=_given({**which, "reason": asked["reason"]}))


def _which(
    ids: list[str] | None, selection: dict[str, str], state: str, limit: int | None, *, asking: bool, yes: bool
) -> dict[str, Any]:
    """Which letters a body means. Naming none at all is a mistake, unless it was said or is only asked."""
    if ids and selection:
        fail("name ids or options, not both", USAGE)
    if ids:
        return {"ids": ids}
    everything = not selection
    if everything and not (asking or yes or sys.stdin.isatty()):
        fail("name dead letters, narrow them with options (giclee dlq stats shows causes), or say --yes for all", USAGE)
    if state:
        selection = {"state": state, **selection}
    return _given({"selection": selection, "limit": limit, "all": True if everything else None})


def _confirm(which: dict[str, Any], verb: str, *, yes: bool) -> None:
    """Ask, where nothing was selected and somebody sits there."""
    if which.get("all") and not yes and not typer.confirm(f"{verb} all of them?", err=True):
        fail("nothing was done")


def _counts(which: dict[str, Any]) -> list[dict[str, Any]]:
    """How many are meant, told before anything is done."""
    if "ids" in which:
        counts: list[dict[str, Any]] = [{"count": len(which["ids"]), "state": "named", "class": "", "stage": ""}]
    else:
        found = tell_service("GET", "/v1/dead-letters", params={**which["selection"], "limit": 0})
        counts = found["counts"]
        if found.get("counts_partial"):
            tell("too many to count in time")
            return counts
    tell(counted(counts))
    return counts


def counted(counts: list[dict[str, Any]]) -> str:
    """Counts as one sentence."""
    if counts and counts[0]["state"] == "named":
        return f"{counts[0]['count']} named"
    return ", ".join(f"{one['count']} {one['state']} {one['class']} at {one['stage']}" for one in counts) or "none"


def _tell_counts(counts: list[dict[str, Any]], *, json_: bool) -> None:
    show_json(counts) if json_ else show(counts, as_json=False, empty="nothing is selected")
    tell("dry run: nothing was changed")


def _counted(look: dict[str, Any]) -> str:
    """A preflight as one sentence: how many, and what it may cost."""
    totals = look["totals"]
    said = [f"{totals.get(key, 0)} {key.replace('_', ' ')}" for key in ("go", "go_with_changes", "refuse")]
    said += [f"{look['beyond']} more selected"] if look.get("beyond") else []
    unknown = f", and what {look['cost_unknown']} cost is not known" if look.get("cost_unknown") else ""
    return f"{', '.join(said)}; at most {look.get('cost_max_usd') or 0} USD{unknown}"


def _tell_preflight(look: dict[str, Any], *, json_: bool) -> None:
    if json_:
        show_json(look)
        return
    tell(_counted(look))
    whys = Counter(why for row in look["items"] if row["verdict"] == "refuse" for why in row["why"])
    for why, count in whys.most_common():
        tell(f"  {count} refused: {why}")
    rows = [{**row, "why": "; ".join(row["why"])} for row in look["items"][:SHOWN_MAX]]
    show(rows, as_json=False, columns=[name for name in VERDICTS if any(row.get(name) for row in rows)] or VERDICTS)
    if len(look["items"]) > SHOWN_MAX:
        tell(f"{len(look['items']) - SHOWN_MAX} more with --json")


def _given(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if value is not None}


def _rate(text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/s)?", text)
    if not found or float(found[1]) <= 0:
        fail(f"--rate {text}: expected so many a second, for example 50/s", USAGE)
    return float(found[1])


def _money(text: str | None) -> str | None:
    try:
        if text is not None and not Decimal(text) >= 0:
            raise InvalidOperation
    except InvalidOperation:
        fail(f"--max-cost-usd {text}: expected an amount in US dollars, for example 2.50", USAGE)
    return text


def _patch(text: str | None) -> list[Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text if text.lstrip().startswith("[") else Path(text).read_text())
    except OSError as error:
        fail(f"--patch {text}: {error.strerror}", USAGE)
    except ValueError as error:
        fail(f"--patch: not JSON: {error}", USAGE)
    if not isinstance(found, list):
        fail('--patch: expected a list of operations, [{"op": "replace", "path": "/wanted", "value": 1}]', USAGE)
    return found
