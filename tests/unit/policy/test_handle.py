"""The stage: clearances carry wave zero, refusals their reason, and rule 13 decides repeats, copies and conflicts."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from giclee.policy.dry_run import DryRun
from giclee.policy.handle import Policy
from giclee.policy.verdict import Asked, Judge, RequestIdConflict, Stored, Times, seed_of
from giclee.schemas import topics
from giclee.schemas.events import ImageCleared, ImageRefused, ImageRequested
from giclee.schemas.parts import Reason
from tests.unit.policy.builders import AT, JUDGE, requested


class Memory:
    """Verdicts in a dict; the first of an id stays. The clock stands at AT."""

    def __init__(self) -> None:
        self.rows: dict[Any, Stored] = {}

    async def first(self, asked: Asked) -> Stored:
        accepted = min(asked.recorded_at, AT)
        times = Times(accepted, asked.deadline or accepted + timedelta(hours=asked.ttl_h))
        stored = Stored(origin=asked.origin, asked=asked.asked, ruling=asked.ruling, times=times)
        return self.rows.setdefault(asked.key, stored)


@pytest.fixture
def policy() -> Policy:
    return Policy(JUDGE, Memory(), ttl_h=72)


async def one(policy: Policy, request: ImageRequested) -> Any:
    (event,) = await policy.handle(request)
    return event


async def test_a_clearance_carries_what_later_stages_need(policy: Policy) -> None:
    """Everything asked is echoed, defaults are filled in, and wave 0 is there."""
    request = requested(
        wanted=3,
        labels={"team": "shoes"},
        client_ref="order 7",
        budget_usd=0.5,
        negative_prompt="blurry",
        params={"steps": 4},
    )
    event = await one(policy, request)
    assert isinstance(event, ImageCleared)
    assert (event.client_ref, event.labels) == ("order 7", {"team": "shoes"})
    assert (event.first_wave, event.limit_usd, list(event.indices())) == (3, Decimal("0.001"), [0, 1, 2])
    cleared = event.request
    assert (cleared.prompt, cleared.negative_prompt) == (request.prompt, "blurry")
    assert (cleared.wanted, cleared.max_candidates, cleared.params.steps) == (3, 12, 4)
    assert (cleared.accepted_at, cleared.closes_by) == (AT, AT + timedelta(hours=72))
    assert (cleared.policy_version, cleared.seed) == (JUDGE.version, seed_of(request))
    assert ImageCleared.model_validate_json(event.model_dump_json()) == event


async def test_a_template_is_assembled(policy: Policy) -> None:
    """The prompt is the assembled one; the template and its values travel along."""
    use = {"id": "shape", "version": 1, "variables": {"colour": "red", "shape": "ring", "background": "white"}}
    event = await one(policy, requested(template=use))
    assert event.request.prompt == "a medium red ring on a white background"
    assert event.request.template.variables["colour"] == "red"
    assert [(slot.name, slot.value) for slot in event.request.slots] == [
        ("size", "medium"), ("colour", "red"), ("shape", "ring"), ("background", "white")
    ]  # fmt: skip
    assert event.request.slots[3].alternatives == ("red", "green", "blue", "yellow", "purple", "orange", "black")


async def test_a_refusal_names_its_rule(policy: Policy) -> None:
    """ImageRefused says which rule, and the request closes by the publisher."""
    event = await one(policy, requested(prompt="a naked man", wanted=2))
    assert isinstance(event, ImageRefused)
    assert (event.reasons[0].rule, event.wanted, event.accepted_at) == ("sexual-content", 2, AT)


async def test_a_deadline_is_the_closing_time(policy: Policy) -> None:
    """closes_by is the deadline where there is one."""
    event = await one(policy, requested(deadline="2026-11-22T08:00:00Z"))
    assert event.closes_by.isoformat() == "2026-11-22T08:00:00+00:00"


async def test_the_seed_is_the_requests_own_or_follows_from_its_id() -> None:
    """The same id has the same seed everywhere; another tenant's id has another."""
    assert seed_of(requested(seed=0)) == 0
    assert seed_of(requested()) == seed_of(requested(prompt="another")) < 2**32
    assert seed_of(requested()) != seed_of(requested(tenant="other"))


async def test_the_same_record_repeats_its_verdict(policy: Policy) -> None:
    """A redelivery re-makes the same event, byte for byte."""
    first = await one(policy, requested())
    again = await one(policy, requested())
    assert again.model_dump_json() == first.model_dump_json()
    assert again.event_id() == first.event_id()


async def test_a_replay_repeats_the_verdict_from_any_place(policy: Policy) -> None:
    """giclee-replay-for: policy repeats; a replay for another stage would be a copy."""
    first = await one(policy, requested())
    replay = requested("image.requested.v1:3:99", replay_for="policy")
    assert (await one(policy, replay)).model_dump_json() == first.model_dump_json()
    assert await policy.handle(requested("image.requested.v1:3:99", replay_for="intake.status")) == []


async def test_a_copy_is_dropped(policy: Policy) -> None:
    """Another record with the same values, defaults spelled out or not, emits nothing."""
    await one(policy, requested())
    copy = requested("image.requested.v1:2:5", wanted=1, quality="final", max_candidates=8, labels={})
    assert await policy.handle(copy) == []


@pytest.mark.parametrize("replay_for", [None, "policy"])
async def test_other_values_are_a_conflict(policy: Policy, replay_for: str | None) -> None:
    """The record dies `invalid` as RequestIdConflict and names the fields; the first request is untouched."""
    first = await one(policy, requested())
    other = requested("image.requested.v1:2:5", replay_for=replay_for, prompt="a blue square", wanted=3)
    with pytest.raises(RequestIdConflict) as caught:
        await policy.handle(other)
    assert caught.value.dead_class == "invalid"
    assert {(r.code, r.pointer) for r in caught.value.reasons} == {
        ("request_id_conflict", "/prompt"),
        ("request_id_conflict", "/wanted"),
        ("request_id_conflict", "/max_candidates"),
    }
    assert (await one(policy, requested())).model_dump_json() == first.model_dump_json()


async def test_a_switch_refuses_what_has_no_verdict_yet(policy: Policy) -> None:
    """The refusal carries the switch and stays, the switch cleared or not; what was cleared before stays cleared."""
    reason = Reason(code="switch_refused", stage="policy", message="tenant:acme: because")
    (refused,) = await policy.refuse(requested(), reason)
    assert isinstance(refused, ImageRefused) and refused.reasons == (reason,)
    assert (await one(policy, requested())).model_dump_json() == refused.model_dump_json()
    other = requested("image.requested.v1:1:1", tenant="other")
    cleared = await one(policy, other)
    assert await policy.refuse(other, reason) == [cleared]


async def test_one_id_in_two_tenants_is_two_requests(policy: Policy) -> None:
    """A request is (tenant, request_id) everywhere."""
    await one(policy, requested())
    assert isinstance(
        await one(policy, requested("image.requested.v1:0:8", tenant="other", prompt="a cat")), ImageCleared
    )


async def test_a_verdict_outlives_its_tables(policy: Policy) -> None:
    """A redelivery after a release with other rules repeats what was decided, under the old version."""
    memory = Memory()
    first = await one(Policy(JUDGE, memory, 72), requested(prompt="a naked man"))

    class Lenient(Judge):
        def rule(self, request: ImageRequested) -> Any:
            return super().rule(request.model_copy(update={"prompt": "a cat"}))

    again = await one(Policy(Lenient(), memory, 72), requested(prompt="a naked man"))
    assert again == first


def test_the_stage_emits_what_the_topics_table_says() -> None:
    """Clearances and refusals are written by policy, and by policy alone."""
    assert topics.row_of(ImageCleared).written_by == topics.row_of(ImageRefused).written_by == ("policy",)


async def test_a_dry_run_tells_the_verdict_and_stores_nothing() -> None:
    """Cleared, refused and invalid values are told apart; a clearance comes with its data."""
    dry = DryRun(JUDGE, ttl_h=72)
    cleared = await dry.verdict({"prompt": "a cat", "wanted": 2})
    assert cleared["verdict"] == "cleared" and cleared["reasons"] == []
    assert ImageCleared.model_validate(cleared["cleared"]).first_wave == 2
    refused = await dry.verdict({"prompt": "a naked man"})
    assert (refused["verdict"], refused["reasons"][0]["rule"]) == ("refused", "sexual-content")
    invalid = await dry.verdict({"prompt": "a cat", "wanted": 0, "budgetusd": 1})
    assert invalid["verdict"] == "invalid"
    assert {reason["pointer"] for reason in invalid["reasons"]} == {"/wanted", "/budgetusd"}
