"""A child cannot outlive us, is stopped in time, and has a bounded log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from giclee.infra.local import child as children
from giclee.infra.local.child import Child, Launch, finish, stop_all
from giclee.infra.local.proc import start_ticks
from giclee.infra.trouble import Trouble

_SAY = "import signal, sys, time; {before}; print('up', flush=True); time.sleep(600)"


def launch(tmp_path: Path, code: str, grace_s: float = 20.0, name: str = "child") -> Launch:
    return Launch(argv=(sys.executable, "-c", code), log=tmp_path / f"{name}.log", grace_s=grace_s)


def until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        os.sched_yield()


def started(tmp_path: Path, before: str = "pass", grace_s: float = 20.0, name: str = "child") -> Child:
    child = Child(launch(tmp_path, _SAY.format(before=before), grace_s, name))
    until(lambda: "up" in child.launch.log.read_text())
    return child


def test_a_child_that_obeys_is_not_killed(tmp_path: Path) -> None:
    """SIGTERM is asked first, and its answer is the exit code."""
    child = started(tmp_path, "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))")
    assert child.stop() == 7


def test_a_child_that_does_not_is_killed_after_its_grace(tmp_path: Path) -> None:
    """Who ignores SIGTERM is gone all the same."""
    child = started(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)", grace_s=0.2)
    assert child.stop() == -signal.SIGKILL
    assert start_ticks(child.pid) is None


def test_graces_run_side_by_side(tmp_path: Path) -> None:
    """Stopping many takes as long as the slowest, not as long as all."""
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    several = [started(tmp_path, deaf, 0.5, str(number)) for number in range(4)]
    begun = time.monotonic()
    stop_all(several)
    assert time.monotonic() - begun < 1.5
    assert all(start_ticks(child.pid) is None for child in several)


def test_the_group_goes_with_the_child(tmp_path: Path) -> None:
    """What a child started in its own group ends with it."""
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    child = Child(launch(tmp_path, code))
    until(lambda: child.launch.log.read_text().endswith("\n"))
    grandchild = int(child.launch.log.read_text())
    child.kill()
    until(lambda: start_ticks(grandchild) is None)


def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """kill -9 of the parent ends the child, by the kernel."""
    code = f"""
import sys, time
from pathlib import Path
from giclee.infra.local.child import Child, Launch
child = Child(Launch(argv=("sleep", "600"), log=Path({str(tmp_path / "inner.log")!r})))
print(child.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        inner = int(parent.stdout.readline())
        assert start_ticks(inner) is not None
        parent.kill()
    until(lambda: start_ticks(inner) is None)


def test_a_failing_command_is_told_with_its_last_lines(tmp_path: Path) -> None:
    """What a preparation printed is in the sentence that people read."""
    with pytest.raises(Trouble, match=r"The download failed \(3\).*\n.*no such mirror"):
        finish(launch(tmp_path, "print('no such mirror'); exit(3)"), what="The download", timeout_s=20)


def test_a_command_that_is_broken_off_is_gone(tmp_path: Path) -> None:
    """When waiting is broken off the command is killed."""

    class Stop(Exception):
        pass

    def stop() -> None:
        if "up" in (tmp_path / "child.log").read_text():
            raise Stop

    with pytest.raises(Stop):
        finish(launch(tmp_path, _SAY.format(before="pass")), what="It", timeout_s=20, keep_on=stop)


def test_a_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log past its bound is cut and one older piece is kept; the child writes on at the start."""
    monkeypatch.setattr(children, "LOG_MAX_BYTES", 100)
    child = started(tmp_path)
    log = child.launch.log
    with log.open("a") as file:
        file.write("x" * 200)
    child.trim_log()
    assert log.stat().st_size == 0
    assert (tmp_path / "child.log.1").stat().st_size > 200
    child.kill()
