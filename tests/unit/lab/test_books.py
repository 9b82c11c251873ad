"""The judge of the line against the lab: a clean run is clean, and every way of being wrong is said."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from giclee.bus.transport import Record
from tests.lab.line import report
from tests.lab.line.books import Books
from tests.lab.line.drive import CLOSED, GENERATED, OUTCOMES, ROUTED, STALLED, Run

FIRST, SECOND = (str(uuid.UUID(int=number, version=4)) for number in (1, 2))
USD = "0.025"
TODAY = date(2026, 11, 22)


def event(topic: str, number: int, **fields: Any) -> Record:
    value = json.dumps(fields).encode()
    key = str(fields.get("request_id", "")).encode()
    return Record(
        topic=topic, key=key, value=value, headers=(("ce_id", f"{topic}{number}".encode()),), timestamp_ms=9000
    )


def call(rid: str, **fields: Any) -> dict[str, Any]:
    """A row of the ledger: fal made an image."""
    said = {
        "candidate_id": f"c-{rid}", "hop": 0, "fence": 1, "request_id": rid, "tenant": "acme", "provider": "fal",
        "jobs": [f"job-{rid}"], "day": TODAY, "expected_usd": Decimal(USD), "actual_usd": None,
        "counted_usd": Decimal(USD), "outcome": "made", "again": False, "ended_at": 1,
    }  # fmt: skip
    return {**said, **fields}


def line(rid: str, **fields: Any) -> dict[str, Any]:
    """An entry of the bill."""
    return {"provider": "fal", "job": f"job-{rid}", "usd": USD, "prompt": f"p-{rid}", "seed": 7, **fields}


def clean() -> Run:
    """Two requests, an image each at fal; the second is confidential nowhere and has a budget."""
    asked = [
        {"request_id": FIRST, "prompt": f"p-{FIRST}"},
        {"request_id": SECOND, "prompt": f"p-{SECOND}", "budget_usd": "0.03"},
    ]
    run = Run(asked, sent_at={FIRST: 1.0, SECOND: 1.0})
    run.records = {topic: [] for topic in (CLOSED, GENERATED, OUTCOMES, STALLED, *ROUTED)}
    run.lab = {"bill": [], "met": {}, "trapped": 0}
    for number, rid in enumerate((FIRST, SECOND)):
        told = {"request_id": rid, "candidate_id": f"c-{rid}", "hop": 0, "seed": 7, "chain": [{"provider": "fal"}]}
        run.records[ROUTED[0]].append(event(ROUTED[0], number, **told))
        run.records[GENERATED].append(event(GENERATED, number, **told, provider="fal", spent_usd=USD, index=0))
        run.records[CLOSED].append(event(CLOSED, number, request_id=rid, outcome="approved", approved=1, cost_usd=USD))
        run.calls.append(call(rid))
        run.lab["bill"].append(line(rid))
        paid = {"candidate_id": f"c-{rid}", "hop": 0, "request_id": rid, "billed": True, "paid_usd": Decimal(USD)}
        run.claims.append(paid)
    cap = {"day": TODAY, "provider": "fal", "tenant": "acme", "reserved_usd": Decimal(0), "spent_usd": 2 * Decimal(USD)}
    run.spending = [cap]
    return run


def test_a_clean_run_is_clean_and_can_be_told() -> None:
    """Nothing is wrong, nothing differs, and the tables name the sums."""
    books = Books(clean())
    assert books.wrong() == []
    assert books.differences() == {}
    assert "| fal | 0 | 0 | – |" in report.told(books)
    assert "nothing is wrong" in report.told(books)


def _again(run: Run) -> None:
    """A second fence of the first candidate was billed as well, the first call's job was never told."""
    run.calls[0].update(jobs=[], outcome="transient")
    run.calls.append(call(FIRST, fence=2, jobs=["job-2"], again=True))
    run.lab["bill"].append(line(FIRST, job="job-2"))
    run.claims[0]["paid_usd"] *= 2
    run.spending[0]["spent_usd"] += Decimal(USD)
    run.records[CLOSED][0] = event(CLOSED, 0, request_id=FIRST, outcome="approved", approved=1, cost_usd="0.05")
    run.records[GENERATED][0] = event(
        GENERATED, 0, request_id=FIRST, candidate_id=f"c-{FIRST}", hop=0, provider="fal", spent_usd="0.05", index=0
    )


def _though_known(run: Run) -> None:
    _again(run)
    run.calls[0]["jobs"] = [f"job-{FIRST}"]


def _cheap(run: Run) -> None:
    run.calls[0]["counted_usd"] = run.claims[0]["paid_usd"] = Decimal("0.01")


def _letter(run: Run) -> None:
    run.letters.append({"candidate_id": None, "stage": "router", "dead_class": "bug", "message": "oh"})


SPOILED: dict[str, tuple[Callable[[Run], Any], str]] = {
    "open": (lambda run: run.records[CLOSED].pop(), "not closed"),
    "twice": (lambda run: run.records[CLOSED].append(run.records[CLOSED][0]), "closed 2 times"),
    "nobody's bill": (lambda run: run.lab["bill"].append(line(FIRST, job="other")), "no row of ours"),
    "paid twice": (_again, "nobody put it back"),
    "paid twice though known": (_though_known, "the first job was known"),
    "under-counted": (_cheap, "0.01 counted, 0.025 billed"),
    "open call": (lambda run: run.calls[0].update(ended_at=None), "a call is open"),
    "claim": (lambda run: run.claims[0].update(paid_usd=Decimal(1)), "the claim says 1"),
    "cap": (lambda run: run.spending[0].update(spent_usd=Decimal(1)), "the ledger says 0.050"),
    "reserved": (lambda run: run.spending[0].update(reserved_usd=Decimal(1)), "the ledger says 0.050"),
    "budget": (lambda run: run.asked[1].update(budget_usd="0.01"), "over its budget"),
    "privacy": (lambda run: run.asked[0].update(privacy="confidential"), "was shown to fal"),
    "trap": (lambda run: run.lab.update(trapped=1), "the trap"),
    "key": (lambda run: setattr(run, "keys_told", 1), "key stands 1 times"),
    "bug": (_letter, "class bug at router"),
    "broken off": (lambda run: setattr(run, "broken_off", "not true within 5 s"), "not true within"),
    "two images": (
        lambda run: run.records[GENERATED].append(
            event(GENERATED, 9, request_id=FIRST, candidate_id=f"c-{FIRST}", hop=0, spent_usd=USD)
        ),
        "2 images for one candidate",
    ),
    "told cost": (
        lambda run: run.records[CLOSED].__setitem__(0, event(CLOSED, 0, request_id=FIRST, cost_usd="0.01")),
        "closed with 0.01",
    ),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_every_way_of_being_wrong_is_said(spoil: str) -> None:
    """One fault in a clean run; the judge names it."""
    run = clean()
    change, said = SPOILED[spoil]
    change(run)
    assert any(said in found for found in Books(run).wrong()), Books(run).wrong()


def test_a_second_payment_that_an_operator_asked_for_is_told_and_not_wrong() -> None:
    """It was put back, and the ledger's row says `again`."""
    run = clean()
    _again(run)
    run.letters.append({"candidate_id": f"c-{FIRST}", "stage": "gpu-worker.hosted", "dead_class": "exhausted"})
    books = Books(run)
    assert books.wrong() == []
    assert list(books.paid_again()) == [(f"c-{FIRST}", 0)]


def test_what_may_have_been_billed_is_named_and_not_wrong() -> None:
    """A time-out that was not billed is over the bill; one that was, without a job that we know, is laid to its row."""
    run = clean()
    run.calls[0].update(outcome="timeout", jobs=[])
    run.lab["bill"][0]["job"] = "never told"
    run.calls[1].update(outcome="timeout", jobs=[])
    run.lab["bill"].pop()
    books = Books(run)
    assert books.wrong() == []
    assert [why for _, why in books.differences()] == ["timeout: may have been billed, was not"]


def test_a_price_that_nobody_told_is_the_only_reason_to_count_less() -> None:
    """Dearer than expected at a provider that says nothing of cost; where the provider told it, it is wrong."""
    run = clean()
    run.lab["bill"][0]["usd"] = "0.035"
    assert Books(run).wrong() == []
    run.calls[0]["actual_usd"] = Decimal(USD)
    assert any("0.035 billed" in found for found in Books(run).wrong())


def test_a_job_that_was_asked_after_is_laid_to_the_call_that_paid_for_it() -> None:
    """However many later calls name it."""
    run = clean()
    run.calls.append(call(FIRST, fence=2, outcome="timeout", counted_usd=Decimal(0)))
    books = Books(run)
    assert books.wrong() == []
    assert books.differences() == {}
