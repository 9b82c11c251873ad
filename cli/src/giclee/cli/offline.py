"""A service's own code answers, in a process of its own: the command line imports no service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from giclee.cli.output import BAD, fail


def answer_of(module: str, verb: str, asked: dict[str, Any], **settings: str) -> dict[str, Any]:
    """What `python -m <module> <verb>` makes of one JSON object. Fails with the last line of what it says."""
    done = subprocess.run(
        [sys.executable, "-m", module, *([verb] if verb else [])],
        input=json.dumps(asked), capture_output=True, text=True, env={**os.environ, **settings}, check=False,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"{module} did not answer"]
        fail(last[0], BAD)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
