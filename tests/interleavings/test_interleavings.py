"""Two hundred histories hold, and without a guard of the product some break: so the histories can tell."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.interleavings import guards

pytestmark = pytest.mark.real

SEEDS = 200
SIDE_BY_SIDE = 2
WITHIN_S = 900.0
BREAKS_AT = {"order": 21, "claim-fence": 4}
"""Where a history breaks without the guard; a change of who does what when moves it, and the search begins anew."""
CHECKOUT = Path(__file__).parents[2]


def _histories(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.interleavings", *options]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=WITHIN_S)


def test_no_order_of_effects_breaks_an_invariant() -> None:
    """Kills, freezes, lost replies and rewinds between any two effects: one end, no duplicate, no false sum."""
    share = SEEDS // SIDE_BY_SIDE
    with ThreadPoolExecutor(SIDE_BY_SIDE) as side_by_side:
        runs = list(
            side_by_side.map(
                lambda n: _histories("--first", str(n * share), "--seeds", str(share)), range(SIDE_BY_SIDE)
            )
        )

    assert not any(done.returncode for done in runs), "\n".join(
        done.stdout[-6000:] + done.stderr[-2000:] for done in runs
    )
    counts = [done.stdout.splitlines()[-1].split() for done in runs]
    assert sum(int(words[2]) for words in counts) > SEEDS  # faults: it was no quiet day
    assert sum(int(words[4]) for words in counts) > SEEDS // 20  # hedges: somebody waited


@pytest.mark.parametrize("guard", sorted(guards.TABLE))
def test_without_a_guard_a_history_breaks(guard: str) -> None:
    """The scheduler finds what the guard is for."""
    at_once = ("--first", str(BREAKS_AT[guard]), "--seeds", "1")
    for seeds in (at_once, ("--seeds", str(SEEDS))):
        done = _histories(*seeds, "--without", guard, "--until-broken")
        if done.returncode:
            break

    assert done.returncode == 1 and "BROKEN" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
