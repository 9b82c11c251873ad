"""Every failpoint x kill, stop, raise x three seeds, on real parts with real processes: `make kill-matrix`.

A case arms one point in one process, sends a short mixed load, and is valid only if the point was truly reached: the
process died of SIGKILL, was seen stopped, or said that it raised. Then the invariants are judged. Cases share their
world (parts, services, topics); worlds run side by side. Exit 0 all green, 1 any red, 2 any invalid.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from giclee.bus import failpoints
from tests.chaos.matrix_load import Load, seen_twice
from tests.chaos.matrix_world import Process, World, running
from tests.kit.stack import Stack, stack

MODES = ("kill", "stop", "raise")
SEEDS = (1, 2, 3)
STOP_S = 12.0
"""One and a half sessions of a group member: by then the group has given its partitions to the replacement."""
ZOMBIE_S = 60.0
REACHED_MAX_S = 90.0
ASK_AGAIN_S = 0.5
ONCE = ("before-model-load", "after-model-load")
"""Points that a process passes once."""
HOSTED = tuple(f"{when}-{what}-commit" for what in ("call", "job", "late") for when in ("before", "after"))
"""Points of calls that are billed, which this line's worker never makes: hosted_matrix.py kills there."""

GREEN, RED, INVALID = "green", "red", "invalid"


@dataclass(frozen=True, slots=True)
class Case:
    """One run: where, how, and what is drawn from the seed."""

    failpoint: str
    mode: str
    seed: int
    stop_s: float = STOP_S

    @property
    def stage(self) -> str:
        return self.failpoint.rpartition(".")[0]

    @property
    def service(self) -> str:
        return self.stage.partition(".")[0]

    @property
    def point(self) -> str:
        return self.failpoint.rpartition(".")[2]

    @property
    def spec(self) -> str:
        """The seed decides which time it is that the point fails."""
        return f"{self.failpoint}:{self.mode}:nth={1 if self.point in ONCE else self.seed}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a case came to."""

    failpoint: str
    mode: str
    seed: int
    verdict: str
    seconds: float
    why: tuple[str, ...] = ()


def cases(only: Sequence[str] = (), modes: Sequence[str] = MODES, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """All cases, or those of the failpoints that begin with one of `only`; the first seed of all comes first."""
    names = [name for name in failpoints.names() if not name.endswith(HOSTED)]
    chosen = [name for name in names if not only or name.startswith(tuple(only))]
    return [Case(name, mode, seed) for seed in seeds for mode in modes for name in sorted(chosen)]


async def run_case(world: World, case: Case) -> Result:
    """One case, whatever it comes to. Errors: none of the line's; a bug here is one."""
    began = time.monotonic()

    def result(verdict: str, *why: str) -> Result:
        return Result(case.failpoint, case.mode, case.seed, verdict, round(time.monotonic() - began, 1), why)

    try:
        load = Load(world, case.seed, case.stage)
        if not await _strike(world, case, load):
            victim = world.processes[case.service]
            return result(INVALID, f"the point was not reached; exits {victim.deaths}; {victim.log}", victim.end())
        try:
            await load.settle()
        except AssertionError as error:
            wrong = await load.judge() if load.asked else []
            return result(RED, str(error), *wrong)
        wrong = await load.judge()
        return result(RED if wrong else GREEN, *wrong)
    except (AssertionError, TimeoutError) as error:
        return result(RED, f"{type(error).__name__}: {error}")


async def _strike(world: World, case: Case, load: Load) -> bool:
    """Arm, load, wait for the fault and give the line its process back; whether the fault happened."""
    victim = await world.renew(case.service, case.spec)
    struck = _proof(case, victim)
    await world.ready(victim, or_else=struck)
    await load.offer()
    if not await _reached(case, load, victim):
        return False
    if case.mode == "stop":
        replacement = world.beside(victim)
        await asyncio.sleep(case.stop_s)  # the fault itself: so long is the process away
        stopped = victim.state() == "T"
        victim.send(signal.SIGCONT)
        await world.ready(replacement)
        await load.settle()
        await world.stop(victim)
        world.processes[case.service] = replacement
        return stopped
    return True


async def _reached(case: Case, load: Load, victim: Process) -> bool:
    """Whether the point fails in time; what is asked meanwhile brings it there."""
    struck = _proof(case, victim)
    deadline = time.monotonic() + REACHED_MAX_S
    while not struck():
        if time.monotonic() > deadline or (victim.deaths and not struck()):
            return False
        await load.more(point=case.point)
        await asyncio.sleep(ASK_AGAIN_S)
    return True


def _proof(case: Case, victim: Process) -> Callable[[], bool]:
    """What shows that the fault happened, here and now."""
    said = f"failpoint {case.failpoint}: {case.mode}"
    shown: dict[str, Callable[[], bool]] = {
        "kill": lambda: -signal.SIGKILL in victim.deaths,
        "stop": lambda: victim.state() == "T",
        "raise": lambda: True,
    }
    return lambda: shown[case.mode]() and victim.said(said)


# ---- many -----------------------------------------------------------------------------------------


async def run_all(parts: Stack, wanted: Sequence[Case], folder: Path, worlds: int) -> list[Result]:
    """All cases, spread over so many worlds side by side; every result is printed and written as it comes."""
    waiting, results = list(reversed(wanted)), []

    def tell(found: Result) -> None:
        results.append(found)
        with (folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(asdict(found)) + "\n")
        say = f"{len(results):4}/{len(wanted)} {found.verdict:7} {found.seconds:6.1f} s"
        sys.stdout.write(f"{say}  {found.failpoint}:{found.mode} seed {found.seed} {' | '.join(found.why)}\n")
        sys.stdout.flush()

    async def one_world(number: int) -> None:
        async with running(parts, f"w{number}", folder / f"w{number}") as world:
            while waiting:
                tell(await run_case(world, waiting.pop()))
            if late := seen_twice(world):  # also what came after its case was judged
                tell(Result("afterwards", "", number, RED, 0.0, tuple(late)))

    async with asyncio.TaskGroup() as tasks:
        for number in range(min(worlds, len(wanted))):
            tasks.create_task(one_world(number))
    return results


def summary(results: Sequence[Result], took_s: float) -> str:
    """The figures in one line."""
    verdicts = Counter(one.verdict for one in results)
    mean = sum(one.seconds for one in results) / max(len(results), 1)
    counted = ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()))
    return f"{len(results)} cases in {took_s / 60:.1f} min ({mean:.1f} s a case): {counted}"


def main() -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], help="failpoints that begin so; may be repeated")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--worlds", type=int, default=2, help="lines side by side on one set of parts")
    parser.add_argument("--zombie", action="store_true", help=f"one stop of {ZOMBIE_S:.0f} s per service instead")
    chosen = parser.parse_args()
    if chosen.zombie:
        wanted = [Case(name, "stop", 1, ZOMBIE_S) for name in ZOMBIES if name.startswith(tuple(chosen.only or [""]))]
    else:
        wanted = cases(chosen.only, chosen.modes.split(","), [int(text) for text in chosen.seeds.split(",")])
    folder = Path(tempfile.mkdtemp(prefix="giclee-kill-matrix-"))
    sys.stdout.write(f"{len(wanted)} cases; results and logs in {folder}\n")
    began = time.monotonic()
    with stack() as parts:
        results = asyncio.run(run_all(parts, wanted, folder, chosen.worlds))
    sys.stdout.write(summary(results, time.monotonic() - began) + "\n")
    verdicts = {one.verdict for one in results}
    return 1 if RED in verdicts else 2 if INVALID in verdicts else 0


ZOMBIES = (
    "publisher.inside-transaction",
    "gpu-worker.after-provider-call",
    "publisher.before-decision-commit",
    "intake.status.before-projection-commit",
    "scorer.before-verdict-commit",
    "router.after-choice-commit",
    "policy.after-verdict-commit",
    "intake.after-accept-commit",
    "replay.before-index-commit",
)
"""Where a service stands still for a minute: with a claim, a lock, a lease or a transaction in its hands."""

if __name__ == "__main__":
    sys.exit(main())
