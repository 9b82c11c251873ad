"""One campaign: stack, recorders, load, faults, quiet, judgement. The folder of the run says all that is known of it.

.giclee/chaos/<seed>/        the stack: logs; its data are gone at the end
.giclee/chaos/<seed>/run/    what README.md describes, and report.json
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from giclee.infra.local.child import Child, Launch, tail
from giclee.infra.local.folder import checkout
from tests.chaos import faults, quiet, stack
from tests.chaos.fault import until
from tests.chaos.faults import Row
from tests.chaos.load import MARKS
from tests.chaos.nemesis import Nemesis
from tests.chaos.plan import GAP_S, draw
from tests.chaos.quiet import Closings
from tests.chaos.stack import Stack

FOLLOWING_WITHIN_S = 60.0
WELL_WITHIN_S = 240.0
QUIET_WITHIN_S = 420.0
RECORDED_WITHIN_S = 600.0
LOAD_ENDS_WITHIN_S = 120.0
INVALID = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a campaign is asked to be."""

    seed: int
    minutes: float
    rate_per_s: float
    scale: Mapping[str, int]
    kinds: Sequence[str] | None = None
    """Faults by name; None draws from the whole table, an empty one injects none."""
    lasts_s: float | None = None
    """How long every fault lasts, instead of what its row says."""
    gap_s: tuple[float, float] = GAP_S
    """Shortest and longest time between two faults; long ones let the line recover from each alone."""
    faults_min: int = 0
    requests_min: int = 1
    """Fewer faults that happened, or fewer accepted requests, and the run is no proof."""

    @property
    def seconds(self) -> float:
        return 60.0 * self.minutes

    def rows(self) -> tuple[Row, ...]:
        rows = faults.possible(self.kinds)
        return rows if self.lasts_s is None else tuple(replace(row, lasts_s=(self.lasts_s,) * 2) for row in rows)


def run(wish: Wish, root: Path) -> int:
    """The checker's exit code: 0 green, 1 red, 2 invalid. Whatever ends it, Ctrl-C included, leaves no process."""
    _fresh(root)
    absent = {row.name for row in faults.TABLE} - {row.name for row in faults.possible()}
    if absent:
        _say(f"this machine cannot do {', '.join(sorted(absent))}")
    with stack.parts(root) as parts:
        _say(f"seed {wish.seed}: parts are up")
        return asyncio.run(_campaign(wish, parts, root / "run"))


async def _campaign(wish: Wish, parts: Stack, folder: Path) -> int:
    async with stack.running(parts, wish.scale):
        _say("services are ready")
        recorder = await _recorder(parts, folder)
        closings = Closings(parts.env["KAFKA_BOOTSTRAP_SERVERS"])
        following = asyncio.create_task(closings.follow())
        began_at = time.time()
        nemesis = await _under_load(wish, parts, folder)
        left = await _quiet(parts, folder, closings)
        await _end_recorder(recorder)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        _write_run(wish, folder, began_at, is_quiet=not left)
    code = await _judge(folder)
    _summarise(wish, folder, nemesis, left, code)
    return code


async def _under_load(wish: Wish, parts: Stack, folder: Path) -> Nemesis:
    """Load and faults, side by side, to the end of both."""
    plan = draw(wish.seed, wish.seconds, wish.rows(), wish.scale, wish.gap_s) if wish.rows() else []
    arguments = (folder, wish.seed, wish.rate_per_s, wish.seconds)
    load = _child(parts, "load", ("tests.chaos.load", *map(str, arguments)))
    with (folder / "faults.jsonl").open("w") as log:
        nemesis = Nemesis(parts, wish.scale, log)
        await nemesis.run(plan)
    await _ended(load, wish.seconds + LOAD_ENDS_WITHIN_S)
    return nemesis


async def _quiet(parts: Stack, folder: Path, closings: Closings) -> list[str]:
    """Everything up, then everything closed; gives what is open all the same."""
    try:
        await parts.wait_well(list(parts.kept), WELL_WITHIN_S)
    except TimeoutError as error:
        _say(str(error))
    return await quiet.wait(parts.env, folder / "operations.jsonl", closings, QUIET_WITHIN_S, _say)


async def _recorder(parts: Stack, folder: Path) -> Child:
    child = _child(parts, "observe", ("tests.chaos.observe", str(folder)))
    await until(lambda: _follows(child) or child.exit_code() is not None, FOLLOWING_WITHIN_S)
    if not _follows(child):
        raise TimeoutError(f"the recorder does not follow: {tail(child.launch.log, 20)}")
    return child


def _follows(recorder: Child) -> bool:
    return "following" in tail(recorder.launch.log, 5)


async def _end_recorder(recorder: Child) -> None:
    recorder.ask_to_stop()
    await _ended(recorder, RECORDED_WITHIN_S)


async def _ended(child: Child, within_s: float) -> None:
    """Wait for its end. A process that fails is told, and judged by what it left."""
    await until(lambda: child.exit_code() is not None, within_s)
    if child.exit_code() != 0:
        _say(f"{child.launch.log.stem} ended with {child.exit_code()}: {tail(child.launch.log, 10)}")
        child.kill()


def _child(parts: Stack, name: str, module: Sequence[str]) -> Child:
    intakes = (parts.kept[one].record.http_port for one in parts.replicas("intake"))
    env = {
        **parts.env,
        "CHAOS_INTAKES": ",".join(f"http://127.0.0.1:{port}" for port in intakes),
        "PYTHONUNBUFFERED": "1",
    }
    launch = Launch(argv=(sys.executable, "-m", *module), env=env, log=parts.folder.log(name), cwd=checkout())
    child = Child(launch)
    parts.others.append(child)
    return child


def _write_run(wish: Wish, folder: Path, began_at: float, *, is_quiet: bool) -> None:
    about: dict[str, Any] = {
        "run_id": f"chaos-{wish.seed}",
        "seed": wish.seed,
        "began_at": began_at,
        "ended_at": time.time(),
        "quiet": is_quiet,
        "faults_min": wish.faults_min,
        "operations_min": wish.requests_min,
        "canaries": MARKS,
        "minutes": wish.minutes,
        "rate_per_s": wish.rate_per_s,
        "scale": dict(wish.scale),
    }
    (folder / "run.json").write_text(json.dumps(about, indent=1) + "\n")


async def _judge(folder: Path) -> int:
    checker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.invariants", str(folder), cwd=checkout()
    )
    try:
        return await checker.wait()
    finally:
        if checker.returncode is None:
            checker.kill()


def _summarise(wish: Wish, folder: Path, nemesis: Nemesis, left: Sequence[str], code: int) -> None:
    for failure in nemesis.failures:
        _say(f"fault failed: {failure}")
    for request_id in left[:10]:
        _say(f"open: {request_id}")
    verdict = {0: "green", 1: "red"}.get(code, "invalid")
    count = len(quiet.accepted(folder / "operations.jsonl"))
    planned = len({json.loads(line)["id"] for line in (folder / "faults.jsonl").read_text().splitlines()})
    _say(
        f"seed {wish.seed}: {verdict}; {nemesis.happened} of {planned} faults happened, {count} requests accepted, "
        f"{len(left)} left open; {folder / 'report.json'}"
    )


def _fresh(root: Path) -> None:
    """Nothing of an earlier run of this seed."""
    if root.exists():
        shutil.rmtree(root)
    (root / "run").mkdir(parents=True)


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)
