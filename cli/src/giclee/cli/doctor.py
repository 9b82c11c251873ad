"""`giclee doctor`: is everything well, and if not, what to do. Answers also when services or the database are down."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer

from giclee.cli.http import ASSETS, INTAKE, call, tell_service
from giclee.cli.output import BAD, USAGE, AsJson, fail, show, show_json, tell
from giclee.infra import migrate, topics
from giclee.infra.local import control
from giclee.infra.local.folder import folder_from_env
from giclee.infra.local.ports import Ports
from giclee.infra.trouble import Trouble

CONNECT_MAX_S = 3.0
COLUMNS = ("check", "verdict", "says", "fix")
Row = dict[str, Any]


def doctor(
    delete_orphans: Annotated[
        bool, typer.Option("--delete-orphans", help="Delete the objects found that nothing needs.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; needed to delete.")] = "",
    json_: AsJson = False,
) -> None:
    """Check everything, from here and by the reconciler; exit code 1 unless all of it is known to be good."""
    if delete_orphans:
        _delete_orphans(reason)
    with ThreadPoolExecutor() as threads:
        rows = [row for found in threads.map(_asked, CHECKS.items()) for row in found]
    if json_:
        show_json({"verdict": _worst(rows), "checks": rows})
    else:
        show([{**row, "says": _with_examples(row)} for row in rows], as_json=False, columns=COLUMNS)
        unsure = [row["check"] for row in rows if row["verdict"] == "unknown"]
        if unsure:
            tell(f"not known: {', '.join(unsure)}")
    if _worst(rows) != "good":
        raise typer.Exit(BAD)


def _delete_orphans(reason: str) -> None:
    if not reason:
        fail("--delete-orphans needs --reason: it goes to the audit", USAGE)
    done = tell_service("POST", "/v1/doctor/delete-orphans", json={"reason": reason})
    tell(f"{done['deleted']} objects deleted")


def _asked(row: tuple[str, Callable[[], list[Row]]]) -> list[Row]:
    name, check = row
    try:
        return check()
    except Trouble as trouble:
        return [_row(name, "unknown", str(trouble), "")]


def _row(check: str, verdict: str, says: str, fix: str) -> Row:
    return {"check": check, "verdict": verdict, "says": says, "fix": fix or None}


def _broker() -> list[Row]:
    """Whether one of the brokers takes a connection, then whether it is as the table says."""
    target = topics.target_from_env()
    refused = [said for server in target.bootstrap_servers.split(",") if (said := _refuses(server.strip()))]
    if len(refused) == len(target.bootstrap_servers.split(",")):
        fix = "start it: make up; or KAFKA_BOOTSTRAP_SERVERS names another"
        return [
            _row("broker", "bad", "; ".join(refused), fix),
            _row("topics", "unknown", "the broker cannot be asked", ""),
        ]
    changes = topics.plan(target)
    drift = _row("topics", "bad", f"{len(changes)} differ from the table: {_few(changes)}", "giclee topics apply")
    as_table = _row("topics", "good", "as the table says", "")
    return [_row("broker", "good", f"answers at {target.bootstrap_servers}", ""), drift if changes else as_table]


def _refuses(server: str) -> str | None:
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_MAX_S).close()
    except (OSError, ValueError) as error:
        return f"{server} does not answer ({error})"
    return None


def _few(changes: list[topics.Change]) -> str:
    said = ", ".join(f"{one.kind} {one.name}" for one in changes[:3])
    return said + (", …" if len(changes) > 3 else "")


def _database() -> list[Row]:
    """Whether the database answers, and has every migration."""
    try:
        missing = asyncio.run(migrate.plan(migrate.database_url_from_env()))
    except Trouble as trouble:
        return [_row("database", "bad", str(trouble), "start it: make up; or DATABASE_URL names another")]
    if missing:
        said = ", ".join(f"{one.service} {one.number:04d}" for one in missing[:3])
        return [_row("database", "bad", f"{len(missing)} migrations are not applied: {said}", "giclee db migrate")]
    return [_row("database", "good", "answers, every migration is applied", "")]


def _services() -> list[Row]:
    """Every process of the local stack; of another, the services whose address is known."""
    folder = folder_from_env()
    record = folder.record()
    if record is not None and folder.is_locked():
        found = control.statuses(folder, Ports(record.base))
        bad = [f"{one.name}: {one.says}" for one in found if not one.ready]
        if bad:
            fix = f"giclee dev logs {bad[0].partition(':')[0]}"
            return [_row("services", "bad", f"{len(bad)} of {len(found)} are not ready: {'; '.join(bad)}", fix)]
        return [_row("services", "good", f"all {len(found)} processes are ready", "")]
    return [_answers("intake", INTAKE, "/v1/requests"), _answers("publisher", ASSETS, "/v1/assets")]


def _answers(name: str, service: str, path: str) -> Row:
    if not os.environ.get(service):
        return _row(name, "unknown", f"{service} is not set", "")
    try:
        call(service, "GET", path, params={"limit": 1})
    except Trouble as trouble:
        return _row(name, "bad", str(trouble), f"look at the logs of {name}")
    return _row(name, "good", "answers", "")


def _reconciler() -> list[Row]:
    """What the reconciler sees; where it cannot be asked, all of that is unknown."""
    found: list[Row] = tell_service("GET", "/v1/doctor")["checks"]
    return found


# what is asked, all at once; each answers one or more rows, or raises Trouble for what cannot be told
CHECKS: dict[str, Callable[[], list[Row]]] = {
    "broker": _broker,
    "database": _database,
    "services": _services,
    "reconciler": _reconciler,
}


def _worst(rows: list[Row]) -> str:
    verdicts = {row["verdict"] for row in rows}
    return next((one for one in ("bad", "unknown") if one in verdicts), "good")


def _with_examples(row: Row) -> str:
    return f"{row['says']} ({'; '.join(row['examples'][:3])})" if row.get("examples") else str(row["says"])
