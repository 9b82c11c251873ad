"""What a paid call came to: never less than was paid, and the ledger's rows add up to what the claim counts."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import pytest

from giclee.gpu_worker.bill import LOOKED_UP, LOST, UNBILLED, Bill, CallEnd, Job, bill_of, settle
from giclee.gpu_worker.provider import Answer, Made, NotMade

PRICE, TOLD = Decimal("0.04"), Decimal("0.05")
NONE = Decimal(0)


def made(**fields: Any) -> Made:
    return Made(body=b"x", content_type="image/webp", width=64, height=64, seconds=1.0, **fields)


def not_made(outcome: str = "timeout", **fields: Any) -> NotMade:
    return NotMade(outcome=outcome, message="no", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "paid", "told"),
    [
        (made(), PRICE, None),
        (made(cost_usd=TOLD), TOLD, TOLD),
        (made(cost_usd=NONE), NONE, NONE),
        (made(cost_usd=Decimal("0.0123456")), Decimal("0.012346"), Decimal("0.012346")),
        (made(cost_usd=Decimal("NaN")), PRICE, None),
        (made(cost_usd=Decimal(-1)), PRICE, None),
        (made(cost_usd=Decimal("1e9")), PRICE, None),
        (not_made(), NONE, NONE),
        (not_made(paid_usd=PRICE), PRICE, None),
        (not_made(paid_usd=Decimal("-0.1")), PRICE, None),
        (not_made(paid_usd=PRICE, cost_usd=TOLD), TOLD, TOLD),
        (not_made(cost_usd=Decimal("NaN"), paid_usd=PRICE), PRICE, None),
    ],
)
def test_a_bill_is_what_was_told_or_the_price_and_never_nonsense(answer: Answer, paid: Decimal, told: Decimal) -> None:
    """Rounded up to a millionth; an amount that cannot be one counts as not told."""
    bill = bill_of(answer, PRICE)
    assert (bill.paid_usd, bill.told_usd) == (paid, told)


def ended(found: Any) -> list[tuple[int, str, Decimal]]:
    return [(one.fence, one.outcome, one.paid_usd) for one in found.ends]


FIRST, SECOND = Job("job-1", 1, PRICE), Job("job-2", 2, PRICE)


@pytest.mark.parametrize(
    ("fence", "job", "answer", "paid", "left", "ends"),
    [
        (1, None, made(), PRICE, None, [(1, "made", PRICE)]),
        (1, FIRST, made(job="job-1", cost_usd=TOLD), TOLD, None, [(1, "made", TOLD)]),
        (2, FIRST, made(job="job-1"), PRICE, None, [(1, "made", PRICE), (2, LOOKED_UP, NONE)]),
        (2, FIRST, made(again=True), 2 * PRICE, None, [(1, LOST, PRICE), (2, "made", PRICE)]),
        (1, FIRST, not_made("refused-content"), NONE, None, [(1, "refused-content", NONE)]),
        (1, FIRST, not_made("transient", job="job-1"), NONE, None, [(1, "transient", NONE)]),
        (1, FIRST, not_made(job="job-1", paid_usd=PRICE), NONE, PRICE, [(1, "timeout", PRICE)]),
        (1, FIRST, not_made("rate"), NONE, PRICE, [(1, "rate", PRICE)]),
        (2, FIRST, not_made("transient", job="job-1"), NONE, None, [(1, "transient", NONE), (2, LOOKED_UP, NONE)]),
        (2, FIRST, not_made("auth"), NONE, PRICE, [(1, LOST, PRICE), (2, "auth", NONE)]),
        (2, FIRST, not_made(paid_usd=TOLD, job="job-1"), NONE, TOLD, [(1, LOST, TOLD), (2, "timeout", NONE)]),
        (2, FIRST, not_made("rate", again=True), PRICE, None, [(1, LOST, PRICE), (2, "rate", NONE)]),
    ],
)
def test_a_job_is_counted_once_until_the_provider_says_what_became_of_it(
    fence: int, job: Job | None, answer: Answer, paid: Decimal, left: Decimal | None, ends: list[Any]
) -> None:
    """`paid` is added to what the claim paid for good, `left` is what the job still counts."""
    found = settle(fence, job, bill_of(answer, PRICE))
    assert (found.paid_usd, found.job_usd, ended(found)) == (paid, left, ends)


def test_a_claim_whose_provider_was_not_asked_keeps_its_job() -> None:
    """A cap or a limit in the way: the image is still there to be asked for."""
    assert settle(2, FIRST, None) == settle(3, FIRST, None)
    found = settle(2, FIRST, None)
    assert (found.paid_usd, found.job_usd, ended(found)) == (NONE, PRICE, [(1, LOST, PRICE)])
    assert settle(1, None, None).ends == ()


def test_a_job_that_was_replaced_counts_unless_it_cost_nothing() -> None:
    """`again` says that the first was or may have been billed; without it the provider knows that it was not."""
    bill = bill_of(made(job="job-2"), PRICE)
    free = settle(2, SECOND, bill, [FIRST])
    assert (free.paid_usd, ended(free)) == (NONE, [(2, "made", PRICE), (1, UNBILLED, NONE)])
    paid = settle(2, SECOND, bill_of(made(job="job-2", again=True), PRICE), [FIRST])
    assert (paid.paid_usd, ended(paid)) == (PRICE, [(2, "made", PRICE)])


def answered(outcome: str, paid: Decimal, job: str | None, again: bool) -> Answer:
    if outcome == "made":
        return made(cost_usd=paid, job=job, again=again)
    return not_made(outcome, paid_usd=paid, job=job, again=again)


ANSWERS = [
    answered(*said)
    for said in itertools.product(
        ("made", "timeout", "transient", "refused-content"),
        (NONE, PRICE, TOLD),
        (None, "job-1", "job-2"),
        (False, True),
    )
]


@pytest.mark.parametrize("job", [None, FIRST, SECOND], ids=["no job", "an earlier fence's", "its own"])
def test_the_ledger_adds_up_to_the_claim_whatever_is_answered(job: Job | None) -> None:
    """For 72 answers: what a claim's rows count, open ones of other fences apart, is what it counts."""
    for answer in ANSWERS:
        bill: Bill = bill_of(answer, PRICE)
        found = settle(2, job, bill)
        rows: dict[int, CallEnd] = {one.fence: one for one in found.ends}
        assert len(rows) == len(found.ends)
        counted = sum((one.paid_usd for one in rows.values()), NONE)
        assert counted == found.paid_usd + (found.job_usd or NONE), (job, answer)
        assert counted >= bill.paid_usd
