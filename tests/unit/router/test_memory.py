"""What is remembered of a model: whose fault it was, what holds it, how sure we are of what passes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as some

from giclee.router import memory
from giclee.router.advice import standing_of
from giclee.router.costs import HALF_LIFE_S, Counts, Draw, belief, posterior
from giclee.schemas.events import ProviderHealth, ProviderOutcome
from tests.unit.router.builders import AT_S

WORDS = ("made", "refused-content", "invalid", "auth", "budget", "rate", "transient", "timeout", "unusable", "other")


def outcome(word: str = "made", after_s: float = 0.0, **values: Any) -> ProviderOutcome:
    fields = {
        "provider": "p", "model": "m", "candidate_id": uuid4(), "hop": 0, "fence": 1, "outcome": word, "seconds": 2.0,
        "price_usd": "0.01", "expected_usd": "0.01", "at": datetime.fromtimestamp(AT_S + after_s, UTC),
    }  # fmt: skip
    return ProviderOutcome.model_validate({**fields, **values})


def after(*outcomes: ProviderOutcome) -> Any:
    record: memory.Memory = {}
    for one in outcomes:
        record = memory.counted(record, one, one.at.timestamp())
    found = memory.health("p", {"m": (record, {})}, outcomes[-1].at.timestamp())
    return ProviderHealth.model_validate_json(found.model_dump_json()).models["m"]


def test_failures_in_a_row_are_counted_and_an_image_ends_them() -> None:
    """A breaker opens by three, whichever of their faults they are."""
    three = after(outcome(), outcome("transient"), outcome("timeout"), outcome("unusable"))
    assert (three.streak, three.tried > 3) == (3, True)
    assert standing_of(three).rests_until_s > AT_S
    assert after(outcome("transient"), outcome("transient"), outcome("transient"), outcome()).streak == 0


@pytest.mark.parametrize("word", ["refused-content", "invalid", "other"])
def test_what_is_not_their_fault_counts_against_nobody(word: str) -> None:
    """A refused prompt and a bad parameter are the request's doing; an unknown word is a newer release's."""
    found = after(outcome(), *(outcome(word) for _ in range(20)))
    assert (found.streak, found.failed, found.held, found.limited) == (0, 0.0, None, 0)
    assert standing_of(found).rests_until_s == 0.0


def test_a_key_and_a_budget_hold_and_an_image_lets_go() -> None:
    """A budget until the next day (UTC), a key until somebody acts."""
    auth, budget = after(outcome("auth")), after(outcome("budget"))
    assert (auth.held, auth.held_until) == ("auth", None)
    assert budget.held == "budget" and budget.held_until is not None
    assert budget.held_until.timestamp() > AT_S and budget.held_until.timestamp() % 86400 == 0
    assert after(outcome("budget"), outcome("auth")).held == "budget"
    assert after(outcome("auth"), outcome()).held is None


def test_being_asked_too_often_rests_shortly() -> None:
    """A 429 is no failure: it rests seconds, longer when it goes on, and never counts in the ratio."""
    found = after(outcome(), outcome("rate"), outcome("rate"))
    assert (found.limited, found.streak, found.failed) == (2, 0, 0.0)
    assert 0 < standing_of(found).rests_until_s - AT_S <= 10


def test_bills_are_compared_by_their_median() -> None:
    """One odd bill of three changes nothing; two calls say nothing yet."""
    assert after(outcome(), outcome()).paid_ratio is None
    assert after(outcome(), outcome(price_usd="0.05"), outcome()).paid_ratio == 1.0
    assert after(*(outcome(price_usd="0.02") for _ in range(3))).paid_ratio == 2.0


def test_calls_count_whoever_is_at_fault_and_a_wait_is_told_for_a_minute() -> None:
    """For people: how many gave no image, how many stood in for another, what was paid for all of them."""
    found = after(
        outcome("transient", price_usd="0.001"), outcome("refused-content", price_usd="0"), outcome(hop=1), outcome(),
        outcome(hop=2, queue_s=3.5),
    )  # fmt: skip
    assert (round(found.calls, 1), round(found.unmade, 1), round(found.stood_in, 1)) == (4.7, 1.8, 1.9)
    assert found.paid_usd == pytest.approx(0.001 * 0.97**4 + 0.01 * (1 + 0.97 + 0.97**2))
    assert found.queue_s == 3.5
    record = memory.counted({}, outcome(queue_s=3.5), AT_S)
    queues = [memory.health("p", {"m": (record, {})}, AT_S + later_s).models["m"].queue_s for later_s in (60, 61)]
    assert queues == [3.5, None]  # one that was asked long ago says nothing of its queue now


def test_judged_images_count_by_asset_type_and_old_ones_less() -> None:
    """The newest sixty or so; a change shows within them."""
    record: memory.Memory = {}
    for at in range(300):
        record = memory.judged(record, "product-tile", passed=at < 200, at_s=AT_S + at, now_s=AT_S + at)
    record = memory.judged(record, "email-hero", passed=True, at_s=AT_S, now_s=AT_S)
    found = memory.health("p", {"m": ({}, record)}, AT_S + 300).models["m"].accepted
    assert found["email-hero"].scored == 1
    assert found["product-tile"].scored < 70
    assert found["product-tile"].passed / found["product-tile"].scored < 0.25


@given(some.lists(some.tuples(some.floats(-1000, 1000), some.sampled_from(WORDS)), max_size=60))
def test_a_memory_travels_as_json_and_stays_small(rows: list[tuple[float, str]]) -> None:
    """Any words in any order of time: finite numbers, ratios within bounds, nothing changed in place."""
    record: memory.Memory = {}
    for after_s, word in rows:
        before, copy = record, json.loads(json.dumps(record))
        record = memory.counted(record, outcome(word, after_s), AT_S)
        assert before == copy
    told = memory.health("p", {"m": (json.loads(json.dumps(record)), {})}, AT_S)
    found = ProviderHealth.model_validate_json(told.model_dump_json()).models["m"]
    assert found.failed <= found.tried + 1e-6 and found.samples <= memory.SECONDS_MAX
    assert 0 <= standing_of(found).odds <= 20


def test_a_belief_starts_at_the_prior_and_goes_back_to_it() -> None:
    """Six in ten for who is unknown; what was judged long ago counts less, and is less sure."""
    assert belief({}, "generic", AT_S).mean == pytest.approx(0.6)
    known = {"generic": Counts(95.0, 100.0, AT_S)}
    now, later = (belief(known, "generic", AT_S + days * HALF_LIFE_S) for days in (0, 6))
    assert 0.85 < now.mean < 0.95 and 0.6 < later.mean < now.mean
    assert later.sd > 2 * now.sd
    assert belief({"generic": Counts(0.0, 500.0, AT_S)}, "generic", AT_S).mean > 0


@given(seed=some.integers(0, 2**64), passed=some.integers(0, 50), failed=some.integers(0, 50))
def test_a_draw_is_a_share_and_repeats_itself(seed: int, passed: int, failed: int) -> None:
    """Between 0 and 1, the same for the same seed."""
    known = posterior(passed, passed + failed, 0.6, 10)
    one, other = Draw(seed), Draw(seed)
    assert (one.explores, one.optimistic(known)) == (other.explores, other.optimistic(known))
    assert 0 < one.optimistic(known) <= 1
