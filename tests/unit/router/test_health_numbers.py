"""Windows of provider health as pure arithmetic, what the router makes of them, and what a quote says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as some

from giclee.router import advice, windows
from giclee.router.health import GROUP, changelogs
from giclee.router.quote import Quote
from giclee.schemas import topics
from giclee.schemas.events import ImageScored, ProviderHealth, ProviderOutcome
from giclee.schemas.strict import InvalidInput
from tests.unit.router.builders import DEMO, cleared

NOW_S = 1_800_000_000.0
NOW = datetime.fromtimestamp(NOW_S, UTC)


def outcome(ago_s: float = 0.0, word: str = "made", seconds: float = 1.0) -> ProviderOutcome:
    return ProviderOutcome(
        provider="diffusion", model="m", candidate_id=uuid4(), hop=0, fence=1, outcome=word, seconds=seconds,
        price_usd="0.0004", at=datetime.fromtimestamp(NOW_S - ago_s, UTC),
    )  # fmt: skip


def window(*outcomes: ProviderOutcome, now_s: float = NOW_S) -> windows.Window:
    found: windows.Window = {}
    for one in outcomes:
        found = windows.with_outcome(found, one, now_s)
    return found


def row(**values: Any) -> ProviderHealth:
    fields = {"provider": "diffusion", "attempts": 10, "made": 10, "success_ratio": 1.0, "window_s": 60, "at": NOW}
    return ProviderHealth.model_validate({**fields, **values})


def test_a_window_adds_up() -> None:
    """Attempts, failures by class, ratio and percentiles of the last minute."""
    found = window(*(outcome(at, seconds=at) for at in range(10)), outcome(5, "transient"), outcome(5, "timeout"))
    health = windows.health("diffusion", [found], NOW_S)
    assert (health.attempts, health.made, health.failures) == (12, 10, {"transient": 1, "timeout": 1})
    assert health.success_ratio == pytest.approx(10 / 12)
    assert (health.p50_s, health.p95_s) == (4.0, 9.0)


def test_what_is_older_than_the_window_is_gone() -> None:
    """A minute later nothing is left, and the provider has no ratio at all."""
    found = window(outcome(), outcome(30, "transient"))
    later = windows.health("diffusion", [found], NOW_S + 45)
    assert (later.attempts, later.made) == (1, 1)
    empty = windows.health("diffusion", [found], NOW_S + 75)
    assert (empty.attempts, empty.success_ratio, empty.p50_s) == (0, None, None)


def test_scores_and_outcomes_are_one_row() -> None:
    """Two tables, one provider."""
    scores = windows.with_score({}, passed=True, at_s=NOW_S, now_s=NOW_S)
    scores = windows.with_score(scores, passed=False, at_s=NOW_S - 20, now_s=NOW_S)
    health = windows.health("diffusion", [window(outcome()), scores], NOW_S)
    assert (health.made, health.scored, health.passed) == (1, 2, 1)


@given(some.lists(some.tuples(some.floats(-30, 400), some.sampled_from(["made", "transient", "rate"])), max_size=60))
def test_a_window_never_counts_more_than_came(rows: list[tuple[float, str]]) -> None:
    """Old records, records of a clock that is ahead, any order: counts stay within what came, the table stays small."""
    found = window(*(outcome(ago_s, word) for ago_s, word in rows))
    health = windows.health("diffusion", [found], NOW_S)
    assert health.attempts <= len(rows)
    assert health.attempts >= sum(ago_s <= windows.WINDOW_S - windows.BUCKET_S for ago_s, _ in rows)
    assert len(found) <= windows.WINDOW_S // windows.BUCKET_S + 1
    assert json.loads(json.dumps(found)) == found


def test_a_window_is_never_changed_in_place() -> None:
    """Only a new value reaches the table's changelog."""
    before = window(outcome())
    copy = json.loads(json.dumps(before))
    windows.with_outcome(before, outcome(), NOW_S)
    windows.with_score(before, passed=True, at_s=NOW_S, now_s=NOW_S)
    assert before == copy


def test_samples_are_bounded() -> None:
    """A busy provider costs no more memory than a quiet one."""
    found = window(*(outcome() for _ in range(windows.SAMPLES_MAX * 2)))
    assert [len(bucket["seconds"]) for bucket in found.values()] == [windows.SAMPLES_MAX]


def test_the_tables_changelogs_are_as_wide_as_their_sources() -> None:
    """Faust wants the partitions to be equal; the topics are made beforehand."""
    assert changelogs() == {
        f"{GROUP}-outcomes-changelog": topics.row_of(ProviderOutcome).partitions,
        f"{GROUP}-scores-changelog": topics.row_of(ImageScored).partitions,
    }
    rows = {row.name: row for row in topics.all_topics()}
    for name, partitions in changelogs().items():
        assert (rows[name].partitions, rows[name].compacted) == (partitions, True)
    assert "router.health" in topics.row_of(ProviderOutcome).readers


@given(scored=some.integers(0, 1000), passed=some.integers(0, 1000))
def test_acceptance_is_a_share_that_nothing_makes_zero(scored: int, passed: int) -> None:
    """Dividing by it is always possible."""
    assert 0 < advice.acceptance(row(scored=scored, passed=passed)) < 1


async def quoted(health: dict[str, ProviderHealth], **values: Any) -> dict[str, Any]:
    body = {"cleared": cleared(**values).model_dump(mode="json")}
    return await Quote(DEMO.offers, lambda: health).quote(body)


def test_only_rows_of_now_speak_about_now() -> None:
    """Neither older than the window nor of the future, but for the seconds by which clocks differ."""
    ages = {-6: False, -5: True, 0: True, 60: True, 61: False}
    rows = {str(age): row(provider=str(age), at=NOW - timedelta(seconds=age)) for age in ages}
    assert advice.fresh(rows, NOW).keys() == {str(age) for age, speaks in ages.items() if speaks}


async def test_a_quote_works_without_health() -> None:
    """Expected cost and time by the table's own numbers and a prior."""
    found = await quoted({}, wanted=3)
    assert found["routable"] and [hop["model"] for hop in found["chain"]] == ["shapes-final"]
    assert (found["acceptance_ratio"], found["acceptance_known"], found["candidates_expected"]) == (0.6, False, 5)
    assert (found["cost_per_approved_usd"], found["cost_usd"]) == ("0.000667", "0.002")
    assert found["seconds_per_approved"] == pytest.approx(1 / 0.6, abs=0.001)


async def test_a_quote_follows_what_is_measured() -> None:
    """Half the acceptance, twice the price of an approved image."""
    found = await quoted({"diffusion": row(scored=990, passed=294, p50_s=0.3)})
    assert (found["acceptance_known"], found["acceptance_ratio"]) == (True, 0.3)
    assert found["cost_per_approved_usd"] == "0.001334"
    assert found["seconds_per_approved"] == 1.0


async def test_a_quote_says_why_there_is_no_route() -> None:
    """The reasons are those the candidates would fail with."""
    found = await quoted({}, size={"width": 512, "height": 512})
    assert (found["routable"], found["chain"]) == (False, [])
    assert {reason["code"] for reason in found["reasons"]} == {"no_route", "size_unsupported"}


async def test_a_quote_for_nonsense_is_invalid_input() -> None:
    """Pointers say what is missing."""
    with pytest.raises(InvalidInput) as caught:
        await Quote(DEMO.offers, dict).quote({"cleared": {"request_id": "x"}})
    assert "/cleared/request_id" in {error.pointer for error in caught.value.errors}
