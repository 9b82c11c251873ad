"""The funnel's rules, one by one (contract 3.2)."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from giclee.publisher import funnel
from giclee.publisher.facts import Fact
from giclee.schemas.parts import Reason
from tests.unit.publisher.builders import OUTLOOK, START, Book, Request


def test_an_order_without_a_verdict_waits() -> None:
    """Facts of candidates alone decide nothing: without policy's verdict nothing is approved."""
    request = Request()
    book = Book(request, request.generated(0), request.scored(0)).seal()

    assert book.decide().is_empty()


def test_enough_sealed_passers_end_the_order() -> None:
    """As soon as nothing is live and enough are sealed, the best are approved and the order is closed."""
    request = Request(wanted=1, first_wave=2)
    book = Book(request, request.cleared(), request.generated(0), request.scored(0, 0.7))
    assert book.seal().decide().is_empty()
    book.tell(request.generated(1), request.scored(1, 0.8)).seal().decide()

    assert (book.ending, book.approved) == ("approved", [1])


def test_best_breaks_ties_by_index() -> None:
    """Equal images rank by index, so every replica chooses the same."""
    request = Request(wanted=1, first_wave=3)
    book = Book(request, request.cleared())
    for index in (2, 1, 0):
        book.tell(request.generated(index), request.scored(index, 0.8))
    book.seal().decide()

    assert book.approved == [0]


def test_first_approves_as_they_pass_and_ends_early() -> None:
    """With `first`, each sealed passer is approved at once; the order ends although others are still live."""
    request = Request(wanted=2, first_wave=4, selection="first")
    book = Book(request, request.cleared(), request.generated(3), request.scored(3, 0.6)).seal()
    assert book.decide().approve == (3,)
    assert book.endings == 0
    book.tell(request.generated(1), request.scored(1, 0.6)).seal().decide()

    assert (book.ending, book.approved) == ("approved", [3, 1])


def test_a_passer_is_sealed_before_anything_ends() -> None:
    """A passing image that is not under assets/ yet is work to do, also when the closing time has passed (rule 6)."""
    request = Request(wanted=1, first_wave=1, closes_by=START + timedelta(seconds=60))
    book = Book(request, request.cleared(), request.generated(0), request.scored(0)).later(120)

    assert book.decide().seal == (0,)
    assert book.endings == 0
    book.seal().decide()
    assert (book.ending, book.approved) == ("approved", [0])


def test_a_score_counts_only_for_the_bytes_it_names() -> None:
    """A passing score of another sha256 does not let the image through (rule 17)."""
    request = Request(wanted=1, first_wave=1)
    book = Book(request, request.cleared(), request.generated(0), request.scored(0, sha="0" * 64))

    assert book.order.unsealed() == {}
    assert book.decide().is_empty()


def test_rejected_candidates_are_replaced_within_the_cap() -> None:
    """What is missing is asked for as a wave of contiguous indices, until the cap is reached; then it is over."""
    request = Request(wanted=2, max_candidates=3)
    book = Book(request, request.cleared())
    for index in (0, 1):
        book.tell(request.generated(index), request.scored(index, 0.1, passes=False))
    book.decide()
    assert book.waves == [(1, 2, 1)]
    book.tell(request.generated(2), request.scored(2)).seal().decide()

    assert (book.ending, book.because, book.approved) == ("partial", "cap_reached", [2])


def test_a_failure_without_an_image_gives_its_place_back() -> None:
    """The cap counts candidates with an image or still able to make one (rule 2)."""
    request = Request(wanted=1, max_candidates=1)
    book = Book(request, request.cleared(), request.failed(0))
    book.decide()

    assert book.waves == [(1, 1, 1)]


@pytest.mark.parametrize("code", ["no_route", "limit", "switch_refused"])
def test_what_every_candidate_would_share_ends_the_order_at_once(code: str) -> None:
    """When no provider can make the image nobody is asked again, and the providers' reasons stand first."""
    request = Request(wanted=2, first_wave=2)
    book = Book(request, request.cleared(), request.failed(0, code=code))
    assert book.decide().is_empty()
    book.tell(request.failed(1, code=code)).decide()

    assert (book.ending, book.waves, book.because) == ("failed", [], None)


def test_a_hop_that_was_not_affordable_after_a_failure_is_no_reason_for_all() -> None:
    """The chain broke at a provider's own fault first: another candidate may be luckier there."""
    request = Request(wanted=1)
    failed = request.failed(0, code="provider_failed", spent_usd="0.004")
    over = Reason(code="limit", stage="gpu-worker.hosted", message="0.01 after 0.004 is over the limit")
    book = Book(request, request.cleared(), failed.model_copy(update={"reasons": (*failed.reasons, over)}))

    assert book.decide().ask is not None


def test_what_only_some_candidates_share_ends_nothing() -> None:
    """One that failed by its own fault is replaced; a wave that passed before counts."""
    request = Request(wanted=2, first_wave=2, max_candidates=4)
    book = Book(request, request.cleared(), request.failed(0, code="no_route"), request.failed(1)).seal()
    assert book.decide().ask is not None
    book.tell(request.generated(2), request.scored(2)).seal()
    book.tell(request.failed(3, code="no_route")).decide()
    last = book.waves[-1]
    for index in range(last[1], last[1] + last[2]):
        book.tell(request.failed(index, code="no_route"))
    book.decide()

    assert (book.ending, book.approved) == ("partial", [2])


def test_failures_of_any_kind_end_at_twice_the_cap() -> None:
    """However candidates fail, the number of waves is bounded."""
    request = Request(wanted=1, max_candidates=3)
    book = Book(request, request.cleared())
    for index in range(20):
        book.tell(request.failed(index)).decide()

    last = book.waves[-1]
    assert (book.ending, last[1] + last[2]) == ("failed", 6)


def test_the_budget_is_never_overshot() -> None:
    """Cost of settled candidates plus limits of those out plus what is asked for stays within the budget (rule 4)."""
    request = Request(wanted=2, budget_usd="0.035", limit_usd="0.01", max_candidates=50)
    book = Book(request, request.cleared())
    for index in (0, 1):
        book.tell(request.generated(index, spent_usd="0.008"), request.scored(index, passes=False))
    book.decide()
    assert book.waves == [(1, 2, 1)]  # 0.035 - 0.016 leaves room for one at 0.01
    book.tell(request.generated(2, spent_usd="0.01"), request.scored(2, passes=False)).decide()

    assert book.ending == "failed"


def test_the_largest_sum_ever_reported_is_the_cost() -> None:
    """Sums of events that are otherwise ignored count too, stalls included (rule 4)."""
    request = Request()
    book = Book(request, request.cleared(), request.generated(0, spent_usd="0.002"))
    book.tell(request.failed(0, spent_usd="0.005"), request.stalled(0, paid_usd="0.009"))

    assert str(book.order.spent[0]) == "0.009"


def test_late_is_not_lost() -> None:
    """A silent candidate has its wave repeated at 5 minutes and then at doubled intervals, and one hedge (rule 3)."""
    request = Request(wanted=1, max_candidates=8)
    book = Book(request, request.cleared())
    assert book.later(299).decide().is_empty()
    first = book.later(1).decide()
    assert (first.repeat, book.waves, first.hedged) == ((0,), [(1, 1, 1)], (0, 1))
    book.tell(request.generated(1), request.scored(1, passes=False))
    repeats = 0
    for _ in range(3600 // 20):
        repeats += book.later(20).decide().repeat.count(0)
    assert repeats == 2  # at 15 and at 35 minutes; the next is at 75
    assert book.waves == [(1, 1, 1)]  # neither hedged again, nor ended
    assert book.endings == 0
    book.tell(request.generated(0), request.scored(0)).seal().decide()

    assert (book.ending, book.approved) == ("approved", [0])


def test_who_is_waited_for_is_hedged_once_and_elsewhere() -> None:
    """Where somebody waits, a silent candidate gets one hedge after the router's time, naming who is silent."""
    request = Request(wanted=1, priority="interactive")
    book = Book(request, request.cleared(), request.routed(0, "slow", hedge_after_s=4.0))
    assert book.decide().is_empty()
    assert book.alarm() == START + timedelta(seconds=4)
    asked = book.later(4).decide()
    assert asked.ask is not None
    assert (asked.ask.first, asked.ask.count, asked.ask.hedges, asked.hedged) == (1, 1, ("slow",), (0, 1))
    book.tell(request.routed(1, "fast", hedge_after_s=None))
    for _ in range(20):
        assert book.later(10).decide().is_empty()  # neither is hedged again
    assert [wave.hedges for wave in book.order.waves] == [(), ("slow",)]


def test_the_hedge_decides_without_who_is_silent() -> None:
    """Once enough have passed nobody waits for a silent candidate, `best` or not."""
    request = Request(wanted=1, priority="interactive")
    book = Book(request, request.cleared(), request.routed(0)).later(5)
    book.decide()
    book.tell(request.generated(1), request.scored(1)).seal().decide()

    assert (book.ending, book.approved) == ("approved", [1])


def test_a_hedge_that_is_rejected_leaves_the_silent_one_to_be_waited_for() -> None:
    """Nothing ends while a hedged candidate may still come; what it brings counts."""
    request = Request(wanted=1, priority="interactive", max_candidates=2)
    book = Book(request, request.cleared(), request.routed(0)).later(5)
    book.decide()
    assert book.tell(request.generated(1), request.scored(1, passes=False)).decide().is_empty()
    book.tell(request.generated(0), request.scored(0)).seal().decide()

    assert (book.ending, book.approved) == ("approved", [0])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"max_candidates": 1}, ()),  # no room under the cap
        ({"budget_usd": "0.019", "limit_usd": "0.01"}, ()),  # nor in the budget
        ({}, ("generated",)),  # there is an image
        ({}, ("failed",)),  # or there will be none: the next wave is its matter
        ({}, ("stalled",)),  # a dead letter holds it (rule 10)
    ],
)
def test_what_is_not_hedged(asked: dict[str, Any], told: tuple[str, ...]) -> None:
    """No hedge beyond cap and budget, nor of a candidate with an outcome or a dead letter."""
    request = Request(wanted=1, priority="interactive", **asked)
    book = Book(request, request.cleared(), request.routed(0))
    book.tell(*(getattr(request, name)(0) for name in told)).later(5)

    assert book.decide().hedged == ()


def test_a_hedge_is_not_paid_for_what_is_being_judged() -> None:
    """One of two has its image at the scorer: no third is asked for before it is judged."""
    request = Request(wanted=1, first_wave=2, priority="interactive")
    book = Book(request, request.cleared(), request.routed(0), request.routed(1), request.generated(0)).later(5)
    assert book.decide().is_empty()
    asked = book.tell(request.scored(0, passes=False)).decide()

    assert asked.ask is not None
    assert (asked.ask.count, asked.ask.hedges) == (1, ("slow",))


def test_as_many_hedges_as_are_missing() -> None:
    """Three silent ones of an order that wants two get two hedges, in one wave."""
    request = Request(wanted=2, first_wave=3, priority="interactive")
    book = Book(request, request.cleared(), *(request.routed(index) for index in range(3))).later(5)
    asked = book.decide()

    assert (asked.ask and asked.ask.count, asked.hedged) == (2, (0, 1, 2, 3, 4))
    assert book.later(60).decide().is_empty()


def test_waiting_begins_with_the_first_hop_and_is_for_the_last() -> None:
    """A fallback does not begin the wait again; the hedge avoids whoever has the candidate now."""
    request = Request(wanted=1, priority="interactive")
    book = Book(request, request.cleared(), request.routed(0, "broken", hedge_after_s=4.0)).later(3)
    book.tell(request.routed(0, "slow", hop=1, hedge_after_s=4.0))
    asked = book.later(1).decide()

    assert (asked.ask and asked.ask.hedges) == ("slow",)


def test_where_nobody_waits_nothing_is_hedged_early() -> None:
    """Without a time of the router's a silent candidate is hedged when it is late (rule 3)."""
    request = Request(wanted=1)
    book = Book(request, request.cleared(), request.routed(0, hedge_after_s=None))

    assert book.later(299).decide().is_empty()
    assert book.later(1).decide().hedged == (0, 1)


def test_a_late_candidate_is_not_waited_for_once_enough_are_sealed() -> None:
    """Enough passers end an order while a candidate is late."""
    request = Request(wanted=1, first_wave=2)
    book = Book(request, request.cleared(), request.generated(0), request.scored(0)).seal()
    assert book.decide().is_empty()
    book.later(301).decide()

    assert (book.ending, book.approved, book.repeated) == ("approved", [0], [])


def test_stalled_is_neither_late_nor_replaced() -> None:
    """A stalled candidate keeps the order open without repeats or hedges until it has an outcome (rule 10)."""
    request = Request(wanted=1)
    book = Book(request, request.cleared(), request.stalled(0))
    assert book.later(4000).decide().is_empty()
    book.tell(request.generated(0), request.scored(0)).seal().decide()

    assert book.ending == "approved"


@pytest.mark.parametrize("stall", [{"index": 1}, {"wave": 0, "stage": "router"}, {"stage": "policy"}])
def test_stalled_ones_are_not_waited_for_once_enough_are_sealed(stall: dict[str, object]) -> None:
    """Enough sealed passers end the order although a candidate, a wave or the order is stalled (rule 6)."""
    request = Request(wanted=1, first_wave=2)
    book = Book(request, request.cleared(), request.generated(0), request.scored(0)).seal()
    book.tell(request.stalled(**stall)).decide()  # type: ignore[arg-type]

    assert (book.ending, book.approved) == ("approved", [0])


def test_an_invalid_stall_is_no_fact() -> None:
    """Somebody's broken record with this id holds nothing up (rule 10)."""
    request = Request()
    book = Book(request, request.cleared(), request.stalled(0, dead_class="invalid"))

    assert book.order.stalls == ()


def test_a_discard_ends_a_candidate_unless_it_is_sealed() -> None:
    """A discarded candidate is replaced; a sealed one stays what it is (rule 11)."""
    request = Request(wanted=1, max_candidates=4)
    book = Book(
        request, request.cleared(), request.generated(0), request.stalled(0), request.failed(0, code="discarded")
    )
    book.decide()
    assert book.waves == [(1, 1, 1)]
    book.tell(request.generated(1), request.scored(1)).seal().tell(request.failed(1, code="discarded")).decide()

    assert (book.ending, book.approved) == ("approved", [1])


def test_closing_time_ends_with_what_there_is() -> None:
    """Past `closes_by` the best sealed are approved: partial if some, expired if none (rules 5, 6)."""
    for passes, ending in ((True, "partial"), (False, "expired")):
        request = Request(wanted=2, closes_by=START + timedelta(seconds=100))
        book = (
            Book(request, request.cleared(), request.generated(0), request.scored(0, passes=passes)).seal().later(101)
        )
        book.decide()
        assert (book.ending, book.because) == (ending, "closes_by_passed")


def test_a_passer_that_cannot_be_sealed_does_not_outlive_the_closing_time() -> None:
    """Where sealing was given up, expiry goes on without it."""
    request = Request(wanted=1, closes_by=START + timedelta(seconds=100))
    book = Book(request, request.cleared(), request.generated(0), request.scored(0)).later(101)
    book.store(Fact(kind="unfit", name="0", says={"why": "gone"}))
    book.decide()

    assert book.ending == "expired"


@pytest.mark.parametrize("first", ["cancel", "verdict"])
def test_a_cancel_waits_for_the_verdict_and_wins(first: str) -> None:
    """A cancel of an unheard request is kept and closes when the verdict comes (rule 15)."""
    request = Request()
    events = [request.cancel(), request.cleared()]
    book = Book(request, *(events if first == "cancel" else reversed(events)))
    book.decide()

    assert (book.ending, book.because) == ("cancelled", "cancelled")


def test_a_cancel_alone_waits_and_one_with_the_request_closes() -> None:
    """A bare cancel cannot close what nobody knows; the request's own fields can (rule 15)."""
    request = Request()
    book = Book(request, request.cancel())
    assert book.decide().is_empty()
    book.tell(request.cancel("expired", complete=True)).decide()

    assert book.ending == "cancelled"  # the first reason stays, the later cancel added its fields


def test_a_cancel_is_forgotten_after_a_week() -> None:
    """A cancel that is older than 7 days when the verdict comes does not count."""
    request = Request(closes_by=START + timedelta(days=30))
    book = Book(request, request.cancel()).later(7 * 86_400 + 1).tell(request.cleared())

    assert book.decide().is_empty()


def test_intakes_clock_closes_only_what_has_no_verdict() -> None:
    """`expired` by intake is a wake-up for an order with a verdict (rule 5)."""
    request = Request()
    assert Book(request, request.cleared(), request.cancel("expired", complete=True)).decide().is_empty()
    book = Book(request, request.cancel("expired", complete=True))
    book.decide()

    assert (book.ending, book.because) == ("expired", "closes_by_passed")


def test_a_discard_closes_no_order_that_has_waves() -> None:
    """`discarded` ends a request without a verdict only (rule 11), and does not hide a later wish to cancel."""
    request = Request()
    book = Book(request, request.cleared(), request.cancel("discarded", complete=True))
    assert book.decide().is_empty()
    book.tell(request.cancel()).decide()
    assert book.ending == "cancelled"
    other = Book(request, request.cancel("discarded", complete=True))
    other.decide()

    assert (other.ending, other.because) == ("failed", "discarded")


def test_a_refusal_closes() -> None:
    """Policy's refusal is an end."""
    request = Request()
    book = Book(request, request.refused())
    book.decide()

    assert book.ending == "refused"


def test_a_cancel_keeps_what_was_approved_before() -> None:
    """`first` may have approved some; a cancel ends the order and approves no more."""
    request = Request(wanted=3, selection="first")
    book = Book(request, request.cleared(), request.generated(0), request.scored(0)).seal()
    book.decide()
    book.tell(request.generated(1), request.scored(1)).seal().tell(request.cancel()).decide()

    assert (book.ending, book.approved) == ("cancelled", [0])


def test_the_alarm_is_the_next_moment_that_matters() -> None:
    """The sweeper is woken at the time-out, then at the next repeat, and never after `closes_by`."""
    request = Request(wanted=1, max_candidates=1)
    book = Book(request, request.cleared())
    seen = []
    for _ in range(3):
        alarm = funnel.wake_at(book.order, book.now, OUTLOOK)
        assert alarm is not None
        seen.append((alarm - START).total_seconds())
        book.now = alarm
        book.decide()
    short = Request(closes_by=START + timedelta(seconds=10))

    assert seen == [300, 900, 2100]
    assert funnel.wake_at(Book(short, short.cleared()).order, START, OUTLOOK) == short.closes_by
    assert funnel.wake_at(Book(short, short.cancel()).order, START, OUTLOOK) is None


def test_a_draft_that_will_miss_goes_on_as_final() -> None:
    """Once too few drafts pass for the room that is left, and final is believed to do better; at final's limit."""
    request = Request(wanted=2, max_candidates=6, quality="draft", limit_usd="0.001", escalation_limit_usd="0.004",
                      first_wave=4, budget_usd="0.02")  # fmt: skip
    book = Book(request, request.cleared())
    for index in range(4):
        book.tell(request.generated(index, spent_usd="0.001"), request.scored(index, passes=False))
    decision = book.decide()

    assert decision.ask is not None
    assert (decision.ask.quality, decision.ask.limit_usd, decision.ask.count) == ("final", Decimal("0.004"), 2)
    assert book.order.waves[-1].quality == "final"
    for index in (4, 5):
        book.tell(request.generated(index, spent_usd="0.004"), request.scored(index))
    assert book.seal().decide().ending == "approved"
    assert sorted(book.approved) == [4, 5]


@pytest.mark.parametrize(
    "asked",
    [{}, {"escalation_limit_usd": "0.004", "budget_usd": "0.006"}, {"escalation_limit_usd": "0.004", "wanted": 1}],
    ids=["not allowed", "the budget holds no final one", "the drafts will do"],
)
def test_a_draft_stays_one(asked: dict[str, Any]) -> None:
    """Where nobody allowed more, where it cannot be paid, and where it is not needed."""
    known = {"wanted": 2, "max_candidates": 16, "quality": "draft", "limit_usd": "0.001", "first_wave": 4, **asked}
    request = Request(**known)
    book = Book(request, request.cleared())
    for index in range(4):
        book.tell(request.generated(index, spent_usd="0.001"), request.scored(index, passes=False))
    decision = book.decide()

    assert decision.ask is not None
    assert decision.ask.quality == "draft"


def test_enough_passers_end_an_order_that_later_waves_are_still_out_for() -> None:
    """Wave 0 is the choice that was asked for and is waited for; of later waves nobody waits, and nothing is lost."""
    request = Request(wanted=2, max_candidates=30, first_wave=2)
    book = Book(request, request.cleared())
    book.tell(request.generated(0), request.scored(0)).seal()
    assert book.decide().ending is None
    book.tell(request.generated(1), request.scored(1, passes=False)).decide()
    ((_, first, count),) = book.waves
    assert (first, count) == (2, 1)
    for index in range(2, 5):
        book.tell(request.generated(index), request.scored(index, passes=False)).decide()
    _, first, count = book.waves[-1]
    book.tell(request.generated(first), request.scored(first))
    assert book.decide().ending is None
    assert book.seal().decide().ending == "approved"
    assert sorted(book.approved) == [0, first]
