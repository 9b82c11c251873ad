"""A campaign of two minutes with a fixed seed, as CI runs it; and that none leaves a process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from giclee.infra.local.proc import marked

pytestmark = pytest.mark.real

SEED = 11
FAULTS = ("kill", "stop", "postgres-restart", "s3-truncated", "end-txn-delay", "kill-broker")
ENDS_WITHIN_S = 600.0
CHECKOUT = Path(__file__).parents[2]


def _command(folder: Path) -> list[str]:
    options = ["--seed", str(SEED), "--minutes", "1", "--rate", "1", "--small", "--folder", str(folder)]
    return [sys.executable, "-m", "tests.chaos", *options, "--only", *FAULTS]


def test_a_short_campaign_is_green_and_its_faults_happened(tmp_path: Path) -> None:
    """Every kind of fault left evidence, every accepted request its one closing, and the checker finds nothing."""
    folder = tmp_path / "run"
    done = subprocess.run(_command(folder), cwd=CHECKOUT, capture_output=True, text=True, timeout=ENDS_WITHIN_S)

    lines = [json.loads(text) for text in (folder / "run" / "faults.jsonl").read_text().splitlines()]
    happened = [line for line in lines if line.get("happened")]
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert {line["kind"].partition(":")[0] for line in happened} == set(FAULTS)
    assert all(any(line["proof"].values()) for line in happened)
    assert marked(str(folder)) == []


@pytest.mark.parametrize("moment", ["seed", "parts are up"])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, moment: str) -> None:
    """Whatever it is doing: no process of the campaign lives when it has returned."""
    folder = tmp_path / "run"
    with subprocess.Popen(_command(folder), cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as campaign:
        assert campaign.stdout is not None
        try:
            assert any(moment in line for line in campaign.stdout)
            os.kill(campaign.pid, signal.SIGINT)
            assert campaign.wait(timeout=ENDS_WITHIN_S / 4) != 0
        finally:
            campaign.kill()
    assert marked(str(folder)) == []
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
