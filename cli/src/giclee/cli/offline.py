"""A service's own code answers, in a process of its own: the command line imports no service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from giclee.cli.output import BAD, fail


def answer_of(module: str, verb: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What `python -m <module> <verb>` makes of one JSON object. Fails with the last line of what it says."""
    done = subprocess.run(
        [sys.executable, "-m", module, verb],
        input=json.dumps(asked), capture_output=True, text=True, env=dict(os.environ), check=False,
    )  # fmt: skip
    if done.returncode:
        fail(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the scorer did not answer", BAD)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
