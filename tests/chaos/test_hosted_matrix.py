"""Three cases of the hosted matrix, on every commit; `make hosted-matrix` runs all of them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from giclee.bus import failpoints
from tests.chaos.hosted_audit import Reckoning
from tests.chaos.hosted_load import WORKER
from tests.chaos.hosted_matrix import AT_PROVIDER, NOT_OF_A_CALL, Case, Step, cases, run_all, steps
from tests.chaos.kill_matrix import GREEN
from tests.kit.shop import Sold
from tests.kit.stack import KafkaRunning, PostgresRunning, S3Running, Stack

SUBSET = (
    Case(Step("before-job-commit"), 1, 2),
    Case(Step("openai call billed, not answered"), 1, 1),
    Case(Step("before-finish-commit"), 1, 1),
)
"""Billed and in nobody's row; billed at a service without jobs; made and not told."""
PRICE = Decimal("0.04")


def test_every_point_of_the_worker_is_a_step_and_every_step_has_its_deaths() -> None:
    """A failpoint that is new is killed at, and a selection selects."""
    points = {point for point, row in failpoints.TABLE.items() if WORKER in row.stages}
    assert {step.name for step in steps()} == (points - NOT_OF_A_CALL) | AT_PROVIDER.keys()
    wanted = cases((), deaths=20, row=3)
    assert {sum(one.deaths for one in wanted if one.step == step) for step in steps()} == {20}
    assert len({(one.step, one.seed) for one in wanted}) == len(wanted)
    assert {one.step.name for one in cases(["openai"], 1, 1)} == {name for name in AT_PROVIDER if "openai" in name}


def row(fence: int, outcome: str, counted: Decimal, *jobs: str, again: bool = False) -> dict[str, Any]:
    """A row of the ledger."""
    return {"fence": fence, "outcome": outcome, "counted_usd": counted, "jobs": list(jobs), "again": again}


def sold(*jobs: str) -> list[Sold]:
    return [Sold(job, "a key", PRICE) for job in jobs]


@pytest.mark.parametrize(
    ("rows", "bill"),
    [
        ([row(1, "made", PRICE, "one")], sold("one", "two")),
        ([], sold("one")),
        ([row(1, "looked-up", Decimal(0), "one")], sold("one")),
        ([row(1, "made", PRICE / 2, "one")], sold("one")),
        ([row(1, "made", 2 * PRICE, "one")], sold("one")),
        ([row(1, "made", PRICE)], sold()),
        ([row(1, "lost", Decimal(0))], sold()),
        ([row(1, "made", PRICE, "one"), row(2, "made", PRICE, "two", again=True)], sold("one", "two")),
        ([row(1, "lost", PRICE), row(2, "made", PRICE, "two")], sold("one", "two")),
    ],
)
def test_a_bill_that_the_ledger_does_not_explain_is_told(rows: Sequence[dict[str, Any]], bill: Sequence[Sold]) -> None:
    """No row, a row that counts nothing, too little or too much, a second image after a known first, or one unsaid."""
    assert Reckoning(rows, bill).wrong != []


def test_what_nobody_could_know_is_allowed_and_measured() -> None:
    """A lost call counts its price whether or not it was billed; a second image after it is explained."""
    twice = Reckoning([row(1, "lost", PRICE), row(2, "made", PRICE, "two", again=True)], sold("one", "two"))
    once = Reckoning([row(1, "lost", PRICE), row(2, "made", PRICE, "one", again=True)], sold("one"))

    assert (twice.wrong, twice.unbilled, twice.unsure_usd) == ([], 0, Decimal(0))
    assert (once.wrong, once.unbilled, once.unsure_usd) == ([], 1, PRICE)


@pytest.mark.real
async def test_kill_9_within_a_paid_call_leaves_no_bill_unexplained(
    kafka: KafkaRunning, postgres: PostgresRunning, s3: S3Running, tmp_path: Path
) -> None:
    """Workers of the hosted pool, without torch: every candidate ends once, and every image on the bill is counted."""
    results = await run_all(Stack(kafka, postgres, s3), SUBSET, tmp_path, 2)

    assert [one for one in results if one.verdict != GREEN] == []
    assert sum(one.deaths for one in results) == sum(case.deaths for case in SUBSET)
