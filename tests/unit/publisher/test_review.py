"""Contract rule 18: when an order asks people, when it waits for them, and what their word does."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from giclee.publisher import funnel, review
from giclee.publisher.facts import Fact, override_fact
from giclee.publisher.standing import Outlook, Pace
from giclee.schemas.parts import ReviewTerms
from tests.unit.publisher.builders import START, Book, Request

ALL = ReviewTerms(rule="all")


def doubted(count: int = 2, **asked: Any) -> tuple[Request, Book]:
    """An order of one image whose every candidate is a doubt, with no room for another."""
    request = Request(**{"wanted": 1, "first_wave": count, "max_candidates": count, **asked})
    book = Book(request, request.cleared())
    for index in range(count):
        book.tell(request.generated(index), request.doubted(index, 0.5 + 0.01 * index))
    return request, book


def test_doubts_are_left_alone_while_more_may_be_asked_for() -> None:
    """With room under cap and budget a doubt is a rejection: machines are asked before people."""
    request = Request(wanted=1, max_candidates=3)
    book = Book(request, request.cleared(), request.generated(0), request.doubted(0))
    book.decide()
    assert (book.waves, book.put_to_people) == ([(1, 1, 1)], [])
    book.tell(request.generated(1), request.scored(1)).seal().decide()

    assert (book.ending, book.approved, book.put_to_people) == ("approved", [1], [])


@pytest.mark.parametrize("cap", ["candidates", "budget"])
def test_people_are_asked_when_cap_or_budget_leaves_no_other_way(cap: str) -> None:
    """Every doubt is put to people once, the likeliest first, and the order waits."""
    limits: dict[str, Any] = {} if cap == "candidates" else {"max_candidates": 50, "budget_usd": "0.012"}
    _, book = doubted(2, **limits)
    book.decide()
    assert book.put_to_people == [(1, "doubt"), (0, "doubt")]
    book.later(4000).decide()

    assert (book.ending, book.waves, len(book.put_to_people)) == (None, [], 2)


def test_a_doubt_that_a_person_passes_is_sealed_and_approved() -> None:
    """The order ends with it; what others still look at is not waited for."""
    _, book = doubted(2)
    book.decide()
    book.later(4000).look(0, passes=True)
    assert book.decide().seal == (0,)
    book.seal().decide()

    assert (book.ending, book.approved, book.repeated, book.waves) == ("approved", [0], [], [])


def test_doubts_that_people_fail_are_rejected() -> None:
    """When the last of them has failed nothing is left to wait for: the order ends by what kept it from more."""
    _, book = doubted(2)
    book.decide()
    book.look(0, passes=False).decide()
    assert not book.ending
    book.look(1, passes=False).decide()

    assert (str(book.ending), book.because) == ("failed", "cap_reached")


def test_people_are_not_waited_for_past_the_closing_time() -> None:
    """At `closes_by` the order ends with what it has, whoever still looks; a later verdict changes nothing."""
    request, book = doubted(2, closes_by=START + timedelta(seconds=600))
    book.decide()
    order = book.order
    assert funnel.wake_at(order, book.now, Outlook()) == request.closes_by
    book.later(601).decide()
    assert [book.ending, book.because] == ["expired", "closes_by_passed"]

    assert book.look(0, passes=True).decide().is_empty()


def test_a_verdict_counts_only_for_the_bytes_that_were_looked_at() -> None:
    """A person's pass of another sha256 lets nothing through (rule 17)."""
    _, book = doubted(1)
    book.decide()
    book.look(0, passes=True, sha="0" * 64)

    assert book.order.unsealed() == {}
    assert book.decide().is_empty()


@pytest.mark.parametrize("terms", [ReviewTerms(rule="never"), None])
def test_where_nobody_reviews_a_doubt_is_a_rejection(terms: ReviewTerms | None) -> None:
    """By the asset type's row, or because the operator says that there are no people."""
    asked: dict[str, Any] = {"review": terms} if terms else {}
    _, book = doubted(2, **asked)
    decision = funnel.decide(book.order, book.now, Outlook(Pace(people=terms is not None)))

    assert (decision.review, decision.ending, decision.because) == ((), "failed", "cap_reached")


def test_what_has_no_pixels_or_a_failed_dimension_is_no_doubt() -> None:
    """People are shown nothing that nobody could decode, and nothing that the gate failed."""
    request = Request(wanted=1, first_wave=2, max_candidates=2)
    blind = request.doubted(0).model_copy(update={"phash": None})
    failed = request.doubted(1)
    scores = {**failed.scores, "safety": failed.scores["alignment"].model_copy(update={"verdict": "fail"})}
    book = Book(request, request.cleared(), request.generated(0), request.generated(1), blind)
    book.tell(failed.model_copy(update={"scores": scores}))
    book.decide()

    assert (book.ending, book.put_to_people) == ("failed", [])


def test_all_puts_every_passer_to_people_and_asks_for_nothing_in_their_place() -> None:
    """With `review: all` nothing is approved that no person passed; the order waits, and replaces what they fail."""
    request = Request(wanted=2, review=ALL)
    book = Book(request, request.cleared())
    book.tell(request.generated(0), request.scored(0)).seal().decide()
    assert book.put_to_people == [(0, "required")]
    book.tell(request.generated(1), request.scored(1)).seal().decide()
    book.later(4000).seal().decide()
    assert (book.ending, book.waves, book.order.seals) == (None, [], {})
    book.look(0, passes=False).decide()
    assert book.waves == [(1, 2, 1)]
    book.look(1, passes=True).decide()
    book.seal().tell(request.generated(2), request.scored(2)).decide()
    book.look(2, passes=True).seal().decide()

    assert (book.ending, book.approved, book.repeated) == ("approved", [1, 2], [])


def test_a_clearance_that_comes_last_still_wants_its_people() -> None:
    """An image that was sealed before anybody knew its asset type is not approved before a person passed it."""
    request = Request(wanted=1, review=ALL)
    book = Book(request, request.generated(0), request.scored(0)).seal()
    book.decide()
    book.tell(request.cleared()).decide()
    assert (book.ending, book.put_to_people) == (None, [(0, "required")])
    book.look(0, passes=True).decide()

    assert (book.ending, book.approved) == ("approved", [0])


def test_all_with_first_approves_as_people_pass() -> None:
    """`selection: first` approves each image as soon as a person passed it, and stops at enough."""
    request = Request(wanted=1, first_wave=3, selection="first", review=ALL)
    book = Book(request, request.cleared())
    for index in range(3):
        book.tell(request.generated(index), request.scored(index))
    book.decide()
    book.look(2, passes=True).seal().decide()

    assert (book.ending, book.approved) == ("approved", [2])


def test_a_sample_is_looked_at_after_its_approval() -> None:
    """Samples never block: the order ends at once and a person is asked about what it approved."""
    request = Request(wanted=1, review=ReviewTerms(share=1.0))
    book = Book(request, request.cleared(), request.generated(0), request.scored(0)).seal()
    book.decide()

    assert (book.ending, book.approved, book.put_to_people) == ("approved", [0], [(0, "sample")])


def test_a_sample_blocks_where_the_asset_type_says_so() -> None:
    """Then it is looked at before its approval, and not once more after it."""
    request = Request(wanted=1, review=ReviewTerms(share=1.0, share_blocks=True))
    book = Book(request, request.cleared(), request.generated(0), request.scored(0)).seal()
    book.decide()
    assert (book.ending, book.put_to_people) == (None, [(0, "required")])
    book.look(0, passes=True).seal().decide()

    assert (book.ending, book.put_to_people) == ("approved", [(0, "required")])


def test_the_sample_is_its_share_and_the_same_for_everybody() -> None:
    """Drawn from the candidate's id alone; one in fifty of many, all at 1, none at 0."""
    dice = [uuid.uuid5(uuid.NAMESPACE_URL, str(number)) for number in range(20_000)]
    assert 320 <= sum(review.drawn(one, 0.02) for one in dice) <= 480
    assert all(review.drawn(one, 1.0) and not review.drawn(one, 0.0) for one in dice[:100])
    assert {one for one in dice if review.drawn(one, 0.02)} <= {one for one in dice if review.drawn(one, 0.05)}


def test_an_override_is_put_to_people_and_waited_for_when_nothing_else_is_left() -> None:
    """Somebody wants another look at what the gate failed: asked at once, and the order does not end before it."""
    request = Request(wanted=1, first_wave=2, max_candidates=2)
    book = Book(request, request.cleared(), request.generated(0), request.scored(0, 0.4, passes=False))
    book.store(override_fact(0, "mira"))
    book.decide()
    assert book.put_to_people == [(0, "override")]
    book.tell(request.failed(1, code="no_route")).decide()
    assert not book.ending
    book.look(0, passes=True).seal().decide()

    assert (str(book.ending), book.approved) == ("approved", [0])


def test_what_a_person_passed_and_nobody_can_seal_is_not_waited_for() -> None:
    """No event of its own tries again, so it counts as rejected and the order ends."""
    request, book = doubted(1)
    book.decide()
    book.look(0, passes=True).tell(request.stalled(0))
    assert book.decide().seal == (0,)
    book.store(Fact(kind="unfit", name="0", says={"why": "gone"}))
    book.decide()

    assert book.ending == "failed"


def test_a_failed_sample_does_not_change_an_open_order() -> None:
    """What is approved stays counted; the asset is revoked, the order goes on."""
    request = Request(wanted=2, first_wave=2, selection="first", review=ReviewTerms(share=1.0))
    book = Book(request, request.cleared(), request.generated(0), request.scored(0)).seal()
    book.decide()
    book.look(0, passes=False).decide()
    assert (book.ending, book.approved) == (None, [0])
    book.tell(request.generated(1), request.scored(1)).seal().decide()

    assert (book.ending, book.approved) == ("approved", [0, 1])


@pytest.mark.parametrize(
    ("codes", "reason"),
    [(("hands",), "quality"), (("brand", "unsafe"), "safety"), (("other", "brand"), "brand"), ((), "quality")],
)
def test_a_failed_sample_is_revoked_for_the_gravest_reason(codes: tuple[str, ...], reason: str) -> None:
    """Subscribers act on the reason code of a revocation."""
    assert review.revokes_as(codes) == reason
