"""A whole stack of its own, with the real models: brought up by the command people use, on ports of its own."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
GICLEE = CHECKOUT / ".venv/bin/giclee"


@dataclass(frozen=True)
class System:
    """A running stack as its users see it."""

    env: dict[str, str]
    own: dict[str, str]

    def giclee(self, *words: str, timeout_s: float = 300, check: bool = True) -> str:
        """What the command prints. Errors: AssertionError with what it said when it failed."""
        done = subprocess.run(
            [str(GICLEE), *words],
            env=self.own,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"giclee {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *words: str, **options: Any) -> Any:
        """The same with --json, read."""
        return json.loads(self.giclee(*words, "--json", **options))

    def processes(self) -> list[dict[str, Any]]:
        """Every process with its pid and readiness."""
        found: list[dict[str, Any]] = self.json("dev", "status", check=False)["processes"]
        return found


def _free_base() -> int:
    """A port base whose main ports nobody has; below the range that the kernel hands out."""
    for _ in range(200):
        base = random.randrange(10_000, 19_000, 200)
        probes = [socket.socket() for _ in (32, 33, 80, 82, 84, 92, 100)]
        try:
            for probe, offset in zip(probes, (32, 33, 80, 82, 84, 92, 100), strict=True):
                probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return base
    raise RuntimeError("no free ports")


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The stack, up and ready; down and gone at the end."""
    folder = tmp_path_factory.mktemp("stack")
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("GICLEE_", "KAFKA_", "DATABASE_"))
    }
    # nobody sits before a test: what the gate doubts is rejected, and every order ends by itself
    alone = {"GICLEE_PUBLISHER_REVIEW_DOUBTS": "false"}
    own = {**clean, **alone, "GICLEE_PORT_BASE": str(_free_base()), "GICLEE_STATE_DIR": str(folder)}
    found = System({}, own)
    try:
        found.giclee("dev", "up", timeout_s=400)
        lines = (folder / "env").read_text().splitlines()
        pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
        found.env.update({name: value.strip("\"'") for name, _, value in pairs})
        yield found
    finally:
        found.giclee("dev", "down", check=False)
