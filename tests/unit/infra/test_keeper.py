"""Restarts: at once after a long life, with a growing wait after short ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from giclee.infra.local import keeper as keepers
from giclee.infra.local.child import Launch
from giclee.infra.local.folder import ProcessRecord
from giclee.infra.local.keeper import LONGEST_WAIT_S, Keeper


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(keepers, "time", made)
    return made


def dies(keeper: Keeper, clock: Clock, age_s: float) -> float:
    """Let it run for so long and die; returns how long its next start is put off."""
    assert keeper.tend() and keeper.child is not None
    keeper.child.started_at = clock.now
    clock.now += age_s
    keeper.child.kill()
    assert keeper.tend()
    wait = (keeper.due_at or 0.0) - clock.now
    assert not keeper.tend(), "it is not due yet"
    clock.now += wait
    return wait


def keeper_of(tmp_path: Path) -> Keeper:
    launch = Launch(argv=("sleep", "600"), log=tmp_path / "log")
    return Keeper(ProcessRecord(name="x"), lambda: launch)


def test_the_wait_doubles_up_to_a_bound_and_is_forgotten(tmp_path: Path, clock: Clock) -> None:
    """0.2 s doubling to 5 s; after 30 s of life it starts at 0.2 s again."""
    keeper = keeper_of(tmp_path)
    waits = [round(dies(keeper, clock, age_s=1), 3) for _ in range(7)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_WAIT_S, LONGEST_WAIT_S]
    assert dies(keeper, clock, age_s=31) == pytest.approx(0.2)
    assert keeper.record.restarts == 8 and keeper.record.last_exit == -9


def test_what_is_missing_is_never_started(tmp_path: Path, clock: Clock) -> None:
    """A process whose module is not installed is kept in the record and left alone."""
    keeper = keeper_of(tmp_path)
    keeper.record.missing = "not installed"
    clock.now += 1000
    assert not keeper.tend() and keeper.child is None and keeper.due_at is None
