"""`giclee dev`: the local stack. `supervise` is what `up` starts in the background."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from giclee.bus import failpoints as points
from giclee.cli import environment
from giclee.cli.output import BAD, USAGE, AsJson, fail, show, show_json, tell
from giclee.infra import topics
from giclee.infra.local import control
from giclee.infra.local.folder import Folder, folder_from_env
from giclee.infra.local.follow import follow
from giclee.infra.local.ports import Ports, ports_from_env
from giclee.infra.local.services import TABLE, Wanted
from giclee.infra.local.supervisor import Supervisor
from giclee.infra.trouble import Trouble

app = typer.Typer(no_args_is_help=True, help="The local stack: Kafka, Postgres, S3 and every service.")

Only = Annotated[str, typer.Option(help="Comma-separated parts and services; the rest is not started.")]
Scale = Annotated[list[str] | None, typer.Option(help="NAME=COUNT replicas of a service; may be repeated.")]
Registry = Annotated[bool, typer.Option("--registry", help="Also a schema registry.", envvar="GICLEE_SCHEMA_REGISTRY")]
More = Annotated[list[str] | None, typer.Argument(metavar="[NAME=COUNT]...", help="The same as --scale.")]


@app.command()
def up(only: Only = "", scale: Scale = None, registry: Registry = False, more: More = None) -> None:
    """Start the stack in the background and wait until it is ready."""
    if not ensure_up(only, [*(scale or []), *(more or [])], registry=registry):
        tell("The stack is running already.")
    tell(f"Ready. Clients: source {folder_from_env().env_file}")


def ensure_up(only: str = "", scale: Sequence[str] = (), *, registry: bool = False) -> bool:
    """Start what `up` starts and load its variables; False when a stack was running. Not all ready: exit code 1."""
    _wanted(only, scale, registry)  # a mistake is told here, not in a log
    folder, ports = folder_from_env(), ports_from_env()
    arguments = [f"--only={only}", *(f"--scale={pair}" for pair in scale), *(["--registry"] if registry else [])]
    started = control.start(folder, arguments, tell)
    try:
        not_ready = control.wait_ready(folder, _ports_of(folder, ports), tell)
    except KeyboardInterrupt:
        if started:
            tell("stopping what was started")
            control.stop(folder)
        raise
    for row in not_ready:
        tell(f"{row.name}: {row.says}" if row.missing else f"{row.name}: {row.says}; see {folder.log(row.name)}")
    if not_ready:
        fail("The stack is up, but not all of it is ready.")
    environment.load(None)
    return started


@app.command()
def down() -> None:
    """Stop the stack and wait until all of it is gone."""
    tell("Stopped." if control.stop(folder_from_env()) else "Nothing is running.")


@app.command()
def status(json_: AsJson = False) -> None:
    """Show every process with its memory and readiness, and the lag of every stage; exit code 1 if one is not ready."""
    folder = folder_from_env()
    rows = control.statuses(folder, _ports_of(folder, ports_from_env()))
    if not rows:
        fail("Nothing is running; `make up` starts the stack.")
    has_kafka = any(row.name == "kafka" and row.ready for row in rows)
    behind = _lag() if has_kafka else []
    if json_:
        show_json({"processes": [asdict(row) for row in rows], "lag": behind})
    else:
        columns = ("name", "says", "pid", "rss_mb", "cpu_s", "uptime_s", "restarts")
        show(map(asdict, rows), as_json=False, columns=columns)
        typer.echo("")
        empty = "No group is behind." if has_kafka else "No Kafka, no lag."
        show([row for row in behind if row["lag"] or row["without_offset"]], as_json=False, empty=empty)
    if not all(row.ready for row in rows):
        raise typer.Exit(BAD)


@app.command()
def logs(
    names: Annotated[list[str] | None, typer.Argument(help="Processes; all of them if none is named.")] = None,
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines of each log.")] = 20,
) -> None:
    """Show the end of the logs."""
    folder = folder_from_env()
    paths = [folder.log(name) for name in names] if names else sorted(folder.logs.glob("*.log"))
    missing = [path.stem for path in paths if not path.exists()]
    if missing or not paths:
        fail(f"No log of {', '.join(missing) or 'anything'} in {folder.logs}.")
    for path in paths:
        with path.open(errors="replace") as file:
            for line in deque(file, maxlen=lines):
                typer.echo(f"{path.stem:14} {line.rstrip()}")
    if follow_:
        for name, line in follow(paths):
            typer.echo(f"{name:14} {line}")


@app.command()
def failpoints(json_: AsJson = False) -> None:
    """List every place where a service can be told to fail, and how it can fail there."""
    rows = [{"failpoint": name, "what is true there": says} for name, says in points.names().items()]
    if json_:
        show_json({"modes": points.MODES, "failpoints": points.names()})
        return
    show(rows, as_json=False)
    typer.echo("")
    show([{"mode": mode, "does": says} for mode, says in points.MODES.items()], as_json=False)
    typer.echo("\nGICLEE_ALLOW_FAILPOINTS=1 GICLEE_FAILPOINT=<failpoint>:<mode>[:nth=N], several separated by commas")


@app.command(hidden=True)
def supervise(only: Only = "", scale: Scale = None, registry: Registry = False) -> None:
    """Run the stack in the foreground until SIGTERM or Ctrl-C."""
    wanted = _wanted(only, scale or [], registry)
    sys.exit(Supervisor(folder_from_env(), ports_from_env(), wanted).run())


def _wanted(only: str, scale: Sequence[str], registry: bool) -> Wanted:
    counts: dict[str, int] = {}
    for pair in scale:
        name, equals, count = pair.partition("=")
        if not equals or not count.isdecimal():
            fail(f"{pair!r}: expected NAME=COUNT, for example scorer=2.", USAGE)
        counts[name] = int(count)
    try:
        return Wanted(tuple(name.strip() for name in only.split(",") if name.strip()), counts, registry)
    except Trouble as trouble:
        fail(str(trouble), USAGE)


def _ports_of(folder: Folder, ports: Ports) -> Ports:
    """Where the stack runs, which is not where we would start it if GICLEE_PORT_BASE has changed since."""
    record = folder.record() if folder.root.exists() else None
    return Ports(record.base, ports.host) if record and record.base else ports


def _lag() -> list[dict[str, Any]]:
    """Lag of the stack's groups; empty, with a sentence on stderr, when Kafka does not answer."""
    here = {row.env.get("GICLEE_GPU_WORKER_POOL") for row in TABLE}
    try:  # a pool without workers in this stack is nobody's lag
        rows = topics.lag(topics.target_from_env())
        return [asdict(row) for row in rows if "gpu-worker." not in row.group or row.group.rpartition(".")[2] in here]
    except Trouble as trouble:
        tell(str(trouble))
        return []
