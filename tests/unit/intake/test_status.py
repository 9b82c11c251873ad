"""What a caller sees follows from the set of facts, in whatever order they came."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from giclee.intake import facts, status
from giclee.schemas.events import Event
from tests.unit.intake.builders import TTL, Line, known, standing, tallies


def everything(line: Line, told: list[Event]) -> object:
    """All that is stored and shown after these events."""
    one = known(line)
    for event in told:
        facts.learn(one, event)
    rows = {str(at): status.columns_of(candidate) for at, candidate in one.candidates.items()}
    return one.facts, rows, one.routes, one.request, one.closes_by, status.standing(one, tallies(one))


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 18), max_size=12))
def test_any_order_and_any_repetition_give_one_answer(chance: random.Random, twice: list[int]) -> None:
    """Events of a request in any order, some of them twice, lead to the same facts and the same answer."""
    line = Line()
    story = line.whole_story()
    mixed = story + [story[at % len(story)] for at in twice]
    chance.shuffle(mixed)

    assert everything(line, mixed) == everything(line, story)


def test_two_records_of_one_event_give_one_answer() -> None:
    """The same event carried by two records leaves the time of the earlier one, whichever is read first."""
    line = Line()
    first, second = line.cleared(), line.cleared()

    assert everything(line, [second, first]) == everything(line, [first, second])


def test_each_event_takes_the_request_one_step_further() -> None:
    """pending, clearing, routing, generating, scoring: as far as the furthest live candidate."""
    line = Line()
    steps = [line.requested(), line.cleared(), line.routed(0), line.generated(0), line.scored(0), line.routed(1)]
    expected = ["clearing", "routing", "generating", "scoring", "scoring", "scoring"]

    assert [standing(line, *steps[: at + 1]).stage for at in range(len(steps))] == expected
    assert standing(line).stage == "pending"


def test_a_request_is_as_far_as_its_furthest_live_candidate() -> None:
    """A rejected candidate is not live; when none is, the request waits for its next wave."""
    line = Line()
    told = [line.requested(), line.cleared(), line.routed(0), line.generated(0), line.scored(0, passes=False)]

    assert standing(line, *told).stage == "routing"
    assert standing(line, *told, line.routed(1)).stage == "generating"


def test_an_event_that_never_came_does_not_hide_a_later_one() -> None:
    """A score without its image, an image without its route: the furthest fact counts."""
    line = Line()

    assert standing(line, line.requested(), line.scored(0)).shown["progress"]["passed"] == 1
    assert standing(line, line.requested(), line.generated(0)).stage == "scoring"


def test_progress_counts_every_candidate_once() -> None:
    """The counts of progress are those of the states."""
    line = Line()
    progress = standing(line, *line.whole_story()[:15]).shown["progress"]

    assert progress == {
        "wanted": 2,
        "approved": 0,
        "in_flight": 0,
        "in_review": 0,
        "rejected": 1,
        "stalled": 0,
        "passed": 2,
        "failed": 1,
    }


def test_a_request_is_in_review_while_people_are_asked() -> None:
    """From the question to the verdict; a random sample of what passed makes nobody wait."""
    line = Line()
    told: list[Event] = [line.requested(), line.cleared(), line.generated(0), line.scored(0, passes=False)]
    asked, sampled = line.review_requested(0), line.review_requested(0, "review_sample")
    waiting = standing(line, *told, asked)

    assert (waiting.stage, waiting.shown["progress"]["in_review"], waiting.shown["progress"]["rejected"]) == (
        "in-review", 1, 0,
    )  # fmt: skip
    assert standing(line, asked, *told) == waiting
    assert standing(line, *told, sampled).stage == "routing"
    assert standing(line, *told, asked, line.reviewed(0, "pass")).shown["progress"]["passed"] == 1
    assert standing(line, *told, asked, line.reviewed(0, "fail")).shown["progress"]["rejected"] == 1
    ended = standing(line, *told, asked, line.closed("expired"))
    assert ended.shown["progress"]["in_review"] == 0


def test_a_stalled_candidate_is_flagged_until_its_stage_has_done_its_work() -> None:
    """A worker's dead letter stalls a candidate; after a replay its image ends that."""
    line = Line()
    told: list[Event] = [line.requested(), line.cleared(), line.routed(0), line.stalled("gpu-worker.local", 0)]
    stuck = standing(line, *told)
    moving = standing(line, *told, line.routed(1))
    mended = standing(line, *told, line.generated(0))

    assert (stuck.stalled, stuck.stuck, stuck.shown["progress"]["stalled"]) == (True, True, 1)
    assert (moving.stalled, moving.stuck) == (True, False)
    assert (mended.stalled, mended.stuck, mended.stage) == (False, False, "scoring")


@pytest.mark.parametrize("stage", ["policy", "router"])
def test_a_stall_before_any_candidate_is_flagged_until_the_next_step(stage: str) -> None:
    """Dead letters of policy and router name no candidate; the clearance or the routing ends their stall."""
    line = Line()
    told: list[Event] = [line.requested(), line.stalled(stage, wave=0 if stage == "router" else None)]
    after = line.cleared() if stage == "policy" else line.routed(0)

    assert standing(line, *told).stuck
    assert not standing(line, *told, after).stalled


def test_an_invalid_record_stalls_nothing() -> None:
    """A record with this id that cannot even be read says nothing about the request."""
    line = Line()

    assert not standing(line, line.requested(), line.stalled("policy", dead_class="invalid")).stalled


def test_cost_is_the_largest_sum_ever_reported_of_each_candidate() -> None:
    """Dead letters and ignored events count too, and nothing is counted twice."""
    line = Line()
    told: list[Event] = [
        line.generated(0, spent_usd="0.0004"),
        line.generated(0, spent_usd="0.0004"),
        line.stalled("gpu-worker.local", 1, paid_usd="0.0007"),
        line.failed(1, spent_usd="0.0005"),
    ]

    assert standing(line, *told).shown["cost_usd"] == "0.0011"


def test_a_cost_that_was_not_final_becomes_the_sum_once_all_have_settled() -> None:
    """A closing with candidates still out counts their limits; when they come in, GET shows what was paid."""
    line = Line()
    closed = line.closed("partial", cost_usd="0.0108", cost_final=False, candidates=2)
    out = standing(line, line.generated(0, spent_usd="0.0008"), closed)
    settled = standing(line, line.generated(0, spent_usd="0.0008"), closed, line.failed(1, spent_usd="0.0002"))

    assert (out.shown["cost_usd"], out.shown["cost_final"]) == ("0.0108", False)
    assert (settled.shown["cost_usd"], settled.shown["cost_final"]) == ("0.001", True)


def test_other_values_under_a_known_id_change_nothing() -> None:
    """Policy refuses such a record; what is shown stays the first request."""
    line = Line()
    one = known(line)
    for event in (line.requested(), line.requested(wanted=7)):
        facts.learn(one, event)

    assert one.request == line.request


def test_a_request_is_accepted_at_the_earlier_of_record_and_now() -> None:
    """A record from the future counts from now on."""
    line = Line()
    one = known(line)
    event = line.requested()
    one.now = event.envelope.recorded_at - TTL
    facts.learn(one, event)

    assert one.accepted_at == one.now
    assert one.closes_by == one.now + TTL
