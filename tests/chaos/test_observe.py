"""The recorders on a small run of the real line: everything is written down, and what they wrote is judged green."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from giclee.infra import topics
from tests.bench import sides
from tests.chaos.driving import driven
from tests.kit.stack import KafkaRunning, PostgresRunning, S3Running, Stack

pytestmark = pytest.mark.real

REQUESTS = 12


@pytest.fixture
def env(
    kafka: KafkaRunning, postgres: PostgresRunning, s3: S3Running, database: str, topic_prefix: str, tmp_path: Path
) -> Mapping[str, str]:
    """The environment of services on fresh topics and a fresh database."""
    topics.apply(topics.Target(kafka.bootstrap_servers, topic_prefix, 1))
    return sides.environment(Stack(kafka, postgres, s3), topic_prefix, tmp_path, database)


async def test_a_small_run_of_the_line_is_recorded_whole_and_green(env: Mapping[str, str], tmp_path: Path) -> None:
    """Twelve requests, one poison record and a scorer killed in between: all files are there, all readers agree."""
    async with driven(tmp_path / "run", env) as run, sides.line(env, tmp_path) as line:
        for number in range(REQUESTS):
            await run.ask(tenant=("acme", "zen")[number % 2], wanted=1 + number % 2, quality="final", budget_usd="0.01")
        await run.plant(b'{"prompt": 7}')
        await run.closed(REQUESTS, 120)
        await run.seen("image.stalled.v1", 1)
        line.processes["scorer"].send_signal(signal.SIGKILL)
        died = await line.processes["scorer"].wait()
        run.fault("kill:scorer", proof={"exit": died})
        report = await run.judged(faults_min=1, operations_min=REQUESTS)

    assert report.verdict == "green", report.red()
    counts = {name: number for judged in report.checks for name, number in judged.counts.items()}
    assert counts["accepted"] == counts["closed"] == REQUESTS
    assert counts["approvals"] == counts["assets"] == REQUESTS * 3 // 2
    assert counts["blobs of approvals"] == 2 * counts["approvals"]
    assert counts["planted"] == 1
    assert counts["read at the end"] == counts["read by committed"] <= counts["read by uncommitted"]
