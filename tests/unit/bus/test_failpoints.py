"""Failpoints: refused where nobody allowed them, firing once where they are armed, next to free where they are not."""

from __future__ import annotations

import asyncio
import dis
import json
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from giclee.bus import failpoints
from giclee.bus.errors import Transient
from giclee.bus.settings import BadSettings, read
from giclee.cli.__main__ import app
from giclee.policy.settings import PolicySettings
from tests.kit.wait import until

GOOD = {"KAFKA_BOOTSTRAP_SERVERS": "localhost:9092", "DATABASE_URL": "postgresql://u:p@localhost/db"}
ALLOWED = {**GOOD, "GICLEE_ALLOW_FAILPOINTS": "1"}
OFF_MAX_NS = 2000.0
"""Far above what an empty coroutine costs (about 60 ns), far below anything that looks into a table per stage."""


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """No test leaves a failpoint behind."""
    yield
    failpoints.arm((), "nobody")


def errors_of(environment: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(BadSettings) as caught:
        read(PolicySettings, environment)
    return caught.value.errors


def test_a_failpoint_needs_permission() -> None:
    """GICLEE_FAILPOINT alone stops the start; with GICLEE_ALLOW_FAILPOINTS it arms."""
    (error,) = errors_of({**GOOD, "GICLEE_FAILPOINT": "policy.before-produce:kill"})
    assert "GICLEE_ALLOW_FAILPOINTS=1" in error

    chosen = read(
        PolicySettings, {**ALLOWED, "GICLEE_FAILPOINT": "policy.before-produce:kill:nth=3, router.after-poll:stop"}
    )
    assert chosen.process.armed() == (
        failpoints.Failpoint("policy", "before-produce", "kill", 3),
        failpoints.Failpoint("router", "after-poll", "stop", 1),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("policy.before-prodce:kill", "policy.before-produce"),
        ("intake.status.after-pol:kill", "intake.status.after-poll"),
        ("policy.before-blob-put:kill", "the nearest is"),
        ("policy.before-produce:explode", "kill, stop, raise, hang"),
        ("policy.before-produce", "kill, stop, raise, hang"),
        ("policy.before-produce:kill:nth=0", "nth=1"),
        ("policy.before-produce:kill:3", "nth=1"),
    ],
)
def test_a_failpoint_that_does_not_exist_is_refused_with_the_nearest_name(text: str, says: str) -> None:
    """A misspelt point must not mean a run without a fault."""
    (error,) = errors_of({**ALLOWED, "GICLEE_FAILPOINT": text})
    assert says in error


def test_bad_failpoints_are_told_with_all_other_bad_settings() -> None:
    """Two bad points, the missing permission and a bad port are one answer."""
    errors = errors_of(
        {**GOOD, "GICLEE_HEALTH_PORT": "x", "GICLEE_FAILPOINT": "policy.nowhere:kill,policy.after-poll:x"}
    )
    told = "\n".join(errors)
    assert len(errors) == 2
    assert all(word in told for word in ("GICLEE_HEALTH_PORT", "policy.nowhere", "'policy.after-poll:x'", "refused"))


async def test_a_point_fires_once_when_it_is_reached_for_the_nth_time() -> None:
    """Before and after that it is passed."""
    failpoints.arm([failpoints.parse("policy.before-produce:raise:nth=2")], "policy")

    await failpoints.reach("before-produce")
    await failpoints.reach("after-produce")
    with pytest.raises(Transient, match=r"policy\.before-produce"):
        await failpoints.reach("before-produce")
    await failpoints.reach("before-produce")


async def test_a_process_arms_the_points_of_its_own_stages_only() -> None:
    """One environment serves every process of the stack; intake.status is a stage of intake's."""
    specs = [failpoints.parse(text) for text in ("router.after-poll:raise", "intake.status.before-offset-commit:raise")]

    failpoints.arm(specs, "policy")
    await failpoints.reach("after-poll")
    failpoints.arm(specs, "intake")
    await failpoints.reach("after-poll")
    with pytest.raises(failpoints.Raised):
        await failpoints.reach("before-offset-commit")


async def test_a_point_that_hangs_holds_its_task_and_no_other() -> None:
    """The process goes on."""
    failpoints.arm([failpoints.parse("policy.after-poll:hang")], "policy")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await failpoints.reach("after-poll")


_VICTIM = """
import asyncio, sys
from giclee.bus import failpoints
failpoints.arm([failpoints.parse(sys.argv[1])], "policy")
asyncio.run(failpoints.reach("after-poll"))
print("went on")
"""


async def test_kill_is_a_death_that_nothing_is_told_of() -> None:
    """The exit is SIGKILL's, and the point's name is on stderr."""
    victim = await _victim("policy.after-poll:kill")
    out, err = await asyncio.wait_for(victim.communicate(), 20)
    assert (victim.returncode, out) == (-signal.SIGKILL, b"")
    assert b"policy.after-poll" in err


async def test_stop_lasts_until_somebody_says_go_on() -> None:
    """SIGCONT lets the process go on where it was."""
    victim = await _victim("policy.after-poll:stop")
    assert victim.stderr is not None
    assert b"policy.after-poll" in await asyncio.wait_for(victim.stderr.readline(), 20)
    await until(lambda: _state(victim.pid) == "T")
    victim.send_signal(signal.SIGCONT)
    out, _ = await asyncio.wait_for(victim.communicate(), 20)
    assert (victim.returncode, out) == (0, b"went on\n")


async def _victim(spec: str) -> asyncio.subprocess.Process:
    pipe: Any = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, "-c", _VICTIM, spec, stdout=pipe, stderr=pipe)


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_an_unarmed_point_costs_one_look_at_a_name() -> None:
    """Off, `reach` loads one global and compares it to None: no table, no call, and far under 2 us."""
    failpoints.arm((), "policy")
    read_names = [one.argval for one in dis.get_instructions(failpoints.reach) if one.opname == "LOAD_GLOBAL"]
    assert read_names == ["_armed", "_armed"]  # the second behind the jump that None takes

    async def many() -> float:
        began = time.perf_counter_ns()
        for _ in range(20_000):
            await failpoints.reach("after-poll")
        return (time.perf_counter_ns() - began) / 20_000

    assert min(asyncio.run(many()) for _ in range(5)) < OFF_MAX_NS


def test_the_command_line_lists_every_point() -> None:
    """`giclee dev failpoints`, also as JSON."""
    table = CliRunner().invoke(app, ["dev", "failpoints"])
    listed = json.loads(CliRunner().invoke(app, ["dev", "failpoints", "--json"]).stdout)

    assert listed["failpoints"] == failpoints.names()
    assert all(name in table.stdout for name in failpoints.names())
