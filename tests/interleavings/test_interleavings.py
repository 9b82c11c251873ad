"""Two hundred histories hold, and without a guard of the product some break: so the histories can tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.interleavings import guards

pytestmark = pytest.mark.real

SEEDS = 200
WITHIN_S = 900.0
CHECKOUT = Path(__file__).parents[2]


def _histories(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.interleavings", *options]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=WITHIN_S)


def test_no_order_of_effects_breaks_an_invariant() -> None:
    """Kills, freezes, lost replies and rewinds between any two effects: one end, no duplicate, no false sum."""
    done = _histories("--seeds", str(SEEDS))

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1].split()[2]) > SEEDS  # faults, so that it was no quiet day


@pytest.mark.parametrize("guard", sorted(guards.TABLE))
def test_without_a_guard_a_history_breaks(guard: str) -> None:
    """The scheduler finds what the guard is for."""
    done = _histories("--seeds", str(SEEDS), "--without", guard, "--until-broken")

    assert done.returncode == 1 and "BROKEN" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
