"""Six cases of the kill matrix, on every commit; `make kill-matrix` runs all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from giclee.bus import failpoints
from tests.chaos.kill_matrix import GREEN, HOSTED, MODES, SEEDS, Case, cases, run_all
from tests.kit.stack import KafkaRunning, PostgresRunning, S3Running, Stack

SUBSET = (
    Case("intake.after-accept-commit", "kill", 1),
    Case("policy.before-offset-commit", "kill", 2),
    Case("router.after-choice-commit", "kill", 3),
    Case("gpu-worker.after-provider-call", "raise", 1),
    Case("scorer.after-verdict-commit", "stop", 1),
    Case("publisher.inside-transaction", "kill", 1),
)
"""Each stage of the line, each mode, and the places where a loss or a second copy would be nearest."""


def test_the_matrix_is_every_point_in_every_mode_with_every_seed() -> None:
    """No case is left out but calls that are billed, and a selection selects."""
    assert len(cases()) == (len(failpoints.names()) - len(HOSTED)) * len(MODES) * len(SEEDS)
    assert {case.service for case in cases(["gpu-worker."])} == {"gpu-worker"}
    assert set(SUBSET) <= set(cases())


@pytest.mark.real
async def test_wherever_a_process_fails_every_request_ends_once(
    kafka: KafkaRunning, postgres: PostgresRunning, s3: S3Running, tmp_path: Path
) -> None:
    """Killed, stopped or broken at a point that was truly reached: one closing each, no version twice, money right."""
    results = await run_all(Stack(kafka, postgres, s3), SUBSET, tmp_path, 2)

    assert [one for one in results if one.verdict != GREEN] == []
    assert len(results) == len(SUBSET)
