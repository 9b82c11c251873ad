"""A process with a bad environment says everything that is wrong with it, on stderr, and exits with 2."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

PROGRAM = textwrap.dedent(
    """
    from giclee.bus.settings import KafkaSettings, ProcessSettings, Settings, load, setting
    class PolicySettings(Settings):
        kafka: KafkaSettings
        process: ProcessSettings
        words_max: int = setting(500, ge=1, says="Longest prompt.", unit="words")
    print(load(PolicySettings).words_max)
    """
)


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("GICLEE_", "KAFKA_"))}
    argv = [sys.executable, "-c", PROGRAM]
    return subprocess.run(argv, env=clean | environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_bad_environment_ends_the_process_at_once() -> None:
    """Exit code 2, nothing on stdout, one line per error."""
    done = run(GICLEE_POLICY_WORDS_MAX="many", GICLEE_HEALTH_PROT="1", GICLEE_EXTERNAL="kafka")
    assert (done.returncode, done.stdout) == (2, "")
    for name in ("KAFKA_BOOTSTRAP_SERVERS is not set", "GICLEE_POLICY_WORDS_MAX='many'", "GICLEE_HEALTH_PORT?"):
        assert name in done.stderr
    assert "GICLEE_EXTERNAL is not supported" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_good_environment_starts() -> None:
    """The same program with everything in place."""
    done = run(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9092", GICLEE_POLICY_WORDS_MAX="7")
    assert (done.returncode, done.stdout) == (0, "7\n")
