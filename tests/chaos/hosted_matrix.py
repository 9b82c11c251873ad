"""kill -9 of a hosted pool's worker between every two steps of a paid call: `python -m tests.chaos.hosted_matrix`.

A case has candidates of its own on real Kafka, Postgres and S3, at a lab that bills (fal, which has jobs, and openai,
which has none). A worker dies, its heir at the same step, some in a row; the last one started in their place finishes
what is left. Then the lab's bill is held against ledger, claims and events. The worker is the service itself, in an
environment without torch. Exit 0: nothing unexplained, 1: something, 2: a death that did not happen.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from giclee.bus import failpoints
from tests.chaos.hosted_audit import Figures, Result, audit, audit_world, summary, table
from tests.chaos.hosted_load import LAPSED, MODULE, WORKER, HostedWorld, Load, running
from tests.chaos.kill_matrix import GREEN, INVALID, RED
from tests.chaos.matrix_world import Process, is_ready
from tests.kit.shop import Sold
from tests.kit.stack import Stack, stack
from tests.kit.wait import until

HEAVY = ("torch", "diffusers", "transformers", "onnxruntime", "open_clip", "nudenet")
REACHED_MAX_S = 240.0
"""As for whatever waits here: a death takes 5 s, on a machine that does ten other things much longer."""
ASK_AGAIN_S = 2.0
LOOK_S = 0.1
MOMENT_MAX_S = 0.3
NTH_MAX = {"plain": 3, "slow": 2}
"""The seed decides which time it is that a point kills."""

NOT_OF_A_CALL = {"before-model-load", "after-model-load"}
"""Points of a worker that has claimed nothing yet."""
KINDS = {
    "before-renew-commit": "slow",
    "after-renew-commit": "slow",
    "before-takeover-commit": "heir",
    "after-takeover-commit": "heir",
    "before-late-commit": "late",
    "after-late-commit": "late",
    "before-ended-commit": "ended",
    "after-ended-commit": "ended",
    "before-dead-letter": "dead",
    "after-dead-letter": "dead",
    "before-outbox-commit": "dead",
    "after-outbox-commit": "dead",
}
"""What must happen to reach a point: jobs that last, a death before, a claim that is lost, an end, a failed call."""
AT_PROVIDER = {
    "fal submit sent": ("fal", "submit", "hang"),
    "fal submit billed, not answered": ("fal", "submit", "late"),
    "fal job asked for": ("fal", "status", "hang"),
    "fal result asked for": ("fal", "result", "hang"),
    "fal picture asked for": ("fal", "image", "hang"),
    "fal picture half here": ("fal", "image", "slow"),
    "openai call sent": ("openai", "submit", "hang"),
    "openai call billed, not answered": ("openai", "submit", "late"),
}
"""Steps on the provider's side, where no line of ours runs: the lab stands still there, and the worker is killed."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where a worker dies: at a failpoint, or while a provider has a call of its."""

    name: str

    @property
    def at_provider(self) -> tuple[str, str, str] | None:
        return AT_PROVIDER.get(self.name)

    @property
    def kind(self) -> str:
        return "at-provider" if self.at_provider else KINDS.get(self.name, "plain")


def steps() -> list[Step]:
    """All of them; a failpoint of the worker that is new is one."""
    points = [name for name, row in failpoints.TABLE.items() if WORKER in row.stages and name not in NOT_OF_A_CALL]
    return [Step(name) for name in (*points, *AT_PROVIDER)]


@dataclass(frozen=True, slots=True)
class Case:
    """So many deaths in a row at a step, each of the heir of the one before; the last heir lives."""

    step: Step
    seed: int
    deaths: int


def cases(only: Sequence[str], deaths: int, row: int, seed: int = 1) -> list[Case]:
    """So many deaths at every step whose name begins with one of `only`; the first seed of all steps comes first."""
    found = []
    for step in steps():
        in_row = 1 if step.kind == "late" else row
        if not only or step.name.startswith(tuple(only)):
            counts = [min(in_row, deaths - at) for at in range(0, deaths, in_row)]
            found += [(at, Case(step, seed + at, count)) for at, count in enumerate(counts)]
    return [case for _, case in sorted(found, key=lambda pair: pair[0])]


async def run_case(world: HostedWorld, case: Case) -> tuple[Result, list[Sold]]:
    """One case, whatever it comes to, and what the lab billed."""
    began, step = time.monotonic(), case.step
    load = Load(world, step.kind, random.Random(f"{step.name} {case.seed}"))
    kills = _Kills(world, case, load)

    def result(verdict: str, *why: str, figures: Figures | None = None) -> Result:
        took_s = round(time.monotonic() - began, 1)
        return Result(step.name, case.seed, kills.seen, verdict, took_s, why, figures)

    try:
        victim = await kills.done()
        if victim is None:
            died = world.processes[WORKER]
            return result(INVALID, f"not reached; exits {died.deaths}; {died.log}", died.end()), []
        try:
            await _lives(victim)
            await load.settle()
        except AssertionError as error:
            figures, sold = await audit(load)
            return result(RED, str(error), *figures.wrong, figures=figures), sold
        figures, sold = await audit(load)
        wrong = [*figures.wrong, *(f"the worker has loaded {one}" for one in loaded(victim))]
        return result(RED if wrong else GREEN, *wrong, figures=figures), sold
    except (AssertionError, TimeoutError) as error:
        return result(RED, f"{type(error).__name__}: {error}"), []


async def _lives(heir: Process) -> None:
    """Wait until the last heir is ready. Errors: AssertionError where it never is."""
    deadline = time.monotonic() + REACHED_MAX_S
    while not await asyncio.to_thread(is_ready, heir.port):
        assert time.monotonic() < deadline, f"the heir is not ready: {heir.end()}"
        await asyncio.sleep(5 * LOOK_S)


def loaded(process: Process) -> list[str]:
    """Heavy libraries that the running process has mapped."""
    assert process.child is not None
    maps = Path(f"/proc/{process.child.pid}/maps").read_text()
    return [name for name in HEAVY if f"/{name}/" in maps]


class _Kills:
    """How a worker comes to its step and dies there, and its heirs after it. `seen`: how many have."""

    def __init__(self, world: HostedWorld, case: Case, load: Load) -> None:
        self.world, self.step, self.load, self.deaths = world, case.step, load, case.deaths
        self.seen = 0
        self._before = int(self.step.kind == "heir")
        """Deaths that only lead to the point."""

    async def done(self) -> Process | None:
        """The process whose last heir lives; None where the step was not reached."""
        await self.load.prepare()
        specs = [f"{WORKER}.{self.step.name}:kill:nth={self._nth()}" for _ in range(self.deaths)]
        own: list[str | None] = [None] if self.step.kind in ("heir", "at-provider") else []
        first, *heirs = own if self.step.at_provider else [*own, *specs]
        victim = await self.world.renew(WORKER, first, module=MODULE)
        victim.heirs = [spec for spec in heirs if spec is not None]
        await self.load.offer()
        other = await self._meanwhile(victim)
        try:
            while self.seen < self.deaths:
                if not await self._dies(victim):
                    return None
                self.seen += 1
            await self._afterwards()
            return victim
        finally:
            if other is not None:
                await self.load.settle()
                await self.world.stop(other)

    def _nth(self) -> int:
        return self.load.chance.randint(1, NTH_MAX.get(self.step.kind, 1))

    async def _meanwhile(self, victim: Process) -> Process | None:
        """What leads to the point beside the candidates; a second worker that has to be stopped."""
        if self.step.kind == "heir":
            await self.load.under_way()
            victim.send(signal.SIGKILL)
        if self.step.kind == "late":
            await self.load.under_way()
            other = self.world.beside(victim)
            await self.load.lose_leases()
            await self.world.lab.release("fal")
            return other
        return None

    async def _dies(self, victim: Process) -> bool:
        """Whether it dies at its step in time; a candidate more may bring it there."""
        if self.step.at_provider is not None:
            return await self._struck_at_provider(victim, *self.step.at_provider)
        deadline, asked = time.monotonic() + REACHED_MAX_S, time.monotonic()
        while not self._dead(victim):
            if time.monotonic() > deadline:
                return False
            idle = self.step.kind in ("plain", "dead", "ended") and self.load.all_told()
            if idle and time.monotonic() - asked > ASK_AGAIN_S:
                asked = time.monotonic()
                await self.load.more()
            await asyncio.sleep(LOOK_S)
        return True

    def _dead(self, victim: Process) -> bool:
        number = self.seen + 1
        killed = victim.deaths.count(-signal.SIGKILL) >= number + self._before
        return killed and victim.said(f"failpoint {WORKER}.{self.step.name}: kill", times=number)

    async def _struck_at_provider(self, victim: Process, provider: str, call: str, fault: str) -> bool:
        """kill -9 while the provider has the call, a random moment after it came there."""
        lab, deadline, number = self.world.lab, time.monotonic() + REACHED_MAX_S, len(victim.deaths)
        before = len(await self._came(provider, call, fault))
        await lab.inject(provider, call, fault, times=1)
        while len(await self._came(provider, call, fault)) == before:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(self.load.chance.uniform(0, MOMENT_MAX_S))  # so that the others are anywhere
        victim.send(signal.SIGKILL)
        await until(lambda: len(victim.deaths) > number, REACHED_MAX_S)
        return victim.deaths[-1] == -signal.SIGKILL

    async def _came(self, provider: str, call: str, fault: str) -> list[Any]:
        lab = self.world.lab
        return await (lab.bill(provider) if fault == "late" else lab.seen(provider, call))

    async def _afterwards(self) -> None:
        """What the last heir finds: jobs that end at last, leases of ended requests that are over."""
        if self.step.kind in ("slow", "heir"):
            await self.world.lab.release("fal")
        if self.step.kind == "ended":
            await self.world.rows(LAPSED)


# ---- many -----------------------------------------------------------------------------------------


async def run_all(parts: Stack, wanted: Sequence[Case], folder: Path, worlds: int) -> list[Result]:
    """All kills, spread over so many worlds side by side; every result is printed and written as it comes."""
    require_light()
    waiting, results = list(reversed(wanted)), []

    def tell(found: Result) -> None:
        results.append(found)
        with (folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(asdict(found), default=str) + "\n")
        say = f"{len(results):4}/{len(wanted)} {found.verdict:7} {found.seconds:6.1f} s"
        sys.stdout.write(f"{say}  {found.step} x {found.deaths}, seed {found.seed} {' | '.join(found.why)}\n")
        sys.stdout.flush()

    async def one_world(number: int) -> None:
        async with running(parts, f"hosted{number}", folder / f"w{number}") as world:
            bill: list[Sold] = []
            while waiting:
                found, sold = await run_case(world, waiting.pop())
                bill += sold
                tell(found)
            if wrong := await audit_world(world, bill):  # also what came after its kill was judged
                tell(Result("afterwards", number, 0, RED, 0.0, tuple(wrong)))

    async with asyncio.TaskGroup() as tasks:
        for number in range(min(worlds, len(wanted))):
            tasks.create_task(one_world(number))
    return results


def require_light() -> None:
    """Errors: RuntimeError where torch and the like could be imported: a hosted pool must do without."""
    if there := [name for name in HEAVY if importlib.util.find_spec(name) is not None]:
        raise RuntimeError(f"{', '.join(there)} can be imported here; this is run with the environment of the services")


def main() -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], help="steps that begin so; may be repeated")
    parser.add_argument("--deaths", type=int, default=20, help="at every step")
    parser.add_argument("--row", type=int, default=5, help="of them in a row, heir after heir, before one lives")
    parser.add_argument("--seed", type=int, default=1, help="the first of them")
    parser.add_argument("--worlds", type=int, default=4, help="workers side by side on one set of parts")
    chosen = parser.parse_args()
    wanted = cases(chosen.only, chosen.deaths, chosen.row, chosen.seed)
    folder = Path(tempfile.mkdtemp(prefix="giclee-hosted-matrix-"))
    sys.stdout.write(f"{sum(case.deaths for case in wanted)} deaths; results and logs in {folder}\n")
    began = time.monotonic()
    with stack() as parts:
        results = asyncio.run(run_all(parts, wanted, folder, chosen.worlds))
    sys.stdout.write(f"{table(results)}\n{summary(results, time.monotonic() - began)}\n")
    verdicts = {one.verdict for one in results}
    return 1 if RED in verdicts else 2 if INVALID in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
