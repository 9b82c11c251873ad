"""What a claim comes to: the chain goes on, money is summed, and only what no replay can change is a failure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from giclee.bus.errors import Exhausted, Poison
from giclee.gpu_worker import outcome
from giclee.gpu_worker.outcome import Decision
from giclee.gpu_worker.provider import Made, NotMade, Shape
from giclee.schemas import reasons
from giclee.schemas.events import GenerationFailed, ImageGenerated, ImageRouted, ProviderOutcome
from giclee.schemas.parts import Adjustment, BlobRef
from giclee.schemas.prompts import PromptSlot
from giclee.schemas.reproduction import Reproduction
from tests.kit.candidates import hop, model, routed

FINAL, DRAFT = model("shapes-final", price_usd="0.0004"), model("shapes-draft", price_usd="0.0001")
TWO = (hop(FINAL), hop(DRAFT))
DOWN = NotMade(outcome="timeout", message="no answer", code="provider_transient")
NEVER = NotMade(outcome="refused-content", message="no")
IMAGE = BlobRef(bucket="b", key="k", sha256="0" * 64, size_bytes=1, content_type="image/webp", width=64, height=64)
HOW = Reproduction(backend="diffusers", device="cpu (AVX2)", dtype="float32", batch=2, threads=1, seed=7)
SHAPE = Shape(model="shapes-final", width=64, height=64, steps=8, guidance_scale=2.0)


@dataclass
class Told:
    """A stored claim as the tests say it."""

    outcome: Any
    detail: dict[str, Any] = field(default_factory=dict)
    spent_usd: Decimal = Decimal("0.0004")
    fence: int = 1


def told(decision: Decision, spent: str = "0.0004") -> Told:
    return Told(decision.outcome, decision.detail, Decimal(spent))


@pytest.mark.parametrize(
    ("hops", "only_transient", "answer", "comes_to"),
    [
        (2, True, DOWN, "routed"),
        (2, True, NEVER, "routed"),
        (1, True, DOWN, "exhausted"),
        (1, False, DOWN, "failed"),
        (1, True, NEVER, "failed"),
        (1, False, NEVER, "failed"),
    ],
)
def test_only_a_chain_that_failed_for_now_is_exhausted(
    hops: int, only_transient: bool, answer: NotMade, comes_to: str
) -> None:
    """Any final reason on the way makes the end a failure, for no replay can change it."""
    event = routed(*TWO[:hops], only_transient=only_transient)
    assert outcome.not_made(event, answer).outcome == comes_to


@pytest.mark.parametrize(("code", "kind"), [("spend_cap", "budget"), ("call_rate", "rate")])
def test_a_call_that_we_did_not_make_is_no_attempt_and_a_replay_may_make_it(code: str, kind: Any) -> None:
    """Our own cap says nothing about the provider (trap T23); a chain that ends so is exhausted, not failed."""
    decision = outcome.not_made(routed(), NotMade(outcome=kind, message="no", code=code))
    assert decision.outcome == "exhausted" and decision.paid_usd == 0 and decision.detail["attempt"] is None
    assert decision.detail["reason"]["retryable"] and code in reasons.TABLE


def test_a_made_image_costs_what_its_provider_says_else_its_price() -> None:
    """Rounded up to a millionth, since no amount of ours is finer; the attempt tells provider health the same."""
    answer = Made(
        body=b"x", content_type="image/webp", width=64, height=64, seconds=0.5, cost_usd=Decimal("0.00031201")
    )
    decision = outcome.made(routed(), SHAPE, answer, IMAGE)
    assert decision.paid_usd == decision.detail["attempt"]["price_usd"] == Decimal("0.000313")


def test_an_attempt_tells_how_long_its_record_waited() -> None:
    """From when it was written to when the attempt began, never less than nothing; where nobody was asked, nothing."""
    event = routed()
    event.delivered(replace(event.envelope, recorded_at=datetime.now(UTC) - timedelta(seconds=30)))
    made = Made(body=b"x", content_type="image/webp", width=64, height=64, seconds=10.0)
    (attempt,) = (
        one
        for one in outcome.events_of(event, told(outcome.waited(event, outcome.made(event, SHAPE, made, IMAGE))))
        if isinstance(one, ProviderOutcome)
    )
    assert attempt.queue_s == pytest.approx(20, abs=0.5)
    late = replace(made, seconds=100.0)
    assert outcome.waited(event, outcome.made(event, SHAPE, late, IMAGE)).detail["attempt"]["queue_s"] == 0.0
    unasked = outcome.not_affordable(event, Decimal(1))
    assert outcome.waited(event, unasked) == unasked


@pytest.mark.parametrize(("hops", "comes_to"), [(1, "failed"), (2, "routed")])
def test_a_hop_over_the_limit_is_not_taken_and_never_exhausted(hops: int, comes_to: str) -> None:
    """What the limit leaves without an affordable hop is a failure even after transient ones."""
    decision = outcome.not_affordable(routed(*TWO[:hops]), Decimal("0.001"))
    assert decision.outcome == comes_to and decision.paid_usd == 0
    assert decision.detail["only_transient"] is True, "the limit says nothing about the providers before"


def test_the_next_hop_knows_what_was_spent_and_why() -> None:
    """ImageRouted of the next hop: same candidate, hop + 1, the sum over hops, every reason so far."""
    event = routed(*TWO)
    following, attempt = outcome.events_of(event, told(outcome.not_made(event, NEVER), "0.0002"))
    assert isinstance(following, ImageRouted) and isinstance(attempt, ProviderOutcome)
    assert (following.hop, following.candidate_id, following.spent_usd) == (1, event.candidate_id, Decimal("0.0002"))
    assert following.only_transient is False and following.key() == event.key()
    assert [one.code for one in following.reasons] == ["provider_failed"]
    assert following.event_id() != event.event_id()


def test_a_made_image_names_everything_that_makes_it_again() -> None:
    """Model, revision, weights, seed, steps, guidance, adjustments of router and provider, how it was computed."""
    by_router = Adjustment(field="size", asked="60x60", used="64x64", reason="multiples of 8")
    mine = Adjustment(field="prompt", asked="31 tokens", used="20 tokens", reason="the text encoder reads no more")
    event = routed(hop(FINAL, adjustments=[by_router.model_dump()]), labels={"channel": "email"}, client_ref="sku-1")
    slot = PromptSlot(name="size", at=2, value="small", alternatives=("large",))
    event = event.model_copy(update={"request": event.request.model_copy(update={"slots": (slot,)})})
    answer = Made(body=b"x", content_type="image/webp", width=64, height=64, seconds=0.5, weights_sha256="a" * 64,
                  adjustments=(mine, by_router), reproducibility="exact", reproduction=HOW)  # fmt: skip
    found, attempt = outcome.events_of(event, told(outcome.made(event, SHAPE, answer, IMAGE)))
    assert isinstance(found, ImageGenerated) and isinstance(attempt, ProviderOutcome)
    assert attempt.expected_usd == found.price_usd
    assert found.adjustments == (by_router, mine)
    assert (found.reproducibility, found.reproduction) == ("exact", HOW)
    assert (found.model.weights_sha256, found.params.steps, found.seed) == ("a" * 64, 8, event.seed)
    assert (found.labels, found.client_ref) == ({"channel": "email"}, "sku-1")
    assert (found.prompt, found.slots) == (event.request.prompt, event.request.slots)
    assert (found.price_usd, found.spent_usd, attempt.outcome) == (Decimal("0.0004"), Decimal("0.0004"), "made")


def test_the_same_row_tells_the_same_events() -> None:
    """A redelivery re-makes the events bit by bit, the time of the attempt included."""
    event = routed(*TWO)
    row = told(outcome.not_made(event, DOWN))
    first, again = outcome.events_of(event, row), outcome.events_of(event, row)
    assert [one.model_dump() for one in first] == [one.model_dump() for one in again]
    assert [one.event_id() for one in first] == [one.event_id() for one in again]


def test_an_exhausted_chain_is_a_dead_letter_with_its_reasons_and_what_was_paid() -> None:
    """Contract rule 9: not GenerationFailed."""
    event = routed()
    with pytest.raises(Exhausted) as said:
        outcome.events_of(event, told(outcome.not_made(event, DOWN), "0.0003"))
    assert said.value.paid_usd == Decimal("0.0003")
    assert [one.code for one in said.value.reasons] == ["provider_transient"]


def test_a_dead_claim_dies_again_the_same_way() -> None:
    """A redelivery of a record whose claim ended as dead makes the same dead letter."""
    with pytest.raises(Poison) as said:
        outcome.events_of(routed(), Told("dead", {"class": "bug", "message": "boom"}))
    assert (said.value.dead_class, str(said.value)) == ("bug", "boom")


@pytest.mark.parametrize("end", ["ended", "discarded"])
def test_an_ended_or_discarded_candidate_fails_with_what_was_spent(end: str) -> None:
    """Rules 7 and 11: answered with the sum, never below what was paid."""
    (found,) = outcome.events_of(routed(), Told(end, {}, Decimal("0.0007")))
    assert isinstance(found, GenerationFailed)
    assert (found.spent_usd, found.reasons[-1].code) == (Decimal("0.0007"), end)


def test_every_code_is_a_row_of_the_reasons_table() -> None:
    """An unknown code would be a bug of ours that reaches callers."""
    event = routed()
    codes = {outcome.not_made(event, one).detail["reason"]["code"] for one in (DOWN, NEVER)}
    codes |= {outcome.not_affordable(event, Decimal(1)).detail["reason"]["code"], "ended", "discarded"}
    assert codes <= reasons.TABLE.keys()


def test_no_two_fences_share_a_blob() -> None:
    """A late owner cannot overwrite the image of the one that took over."""
    event = routed()
    first, second = outcome.blob_key(event, 1), outcome.blob_key(event, 2)
    assert first != second
    assert first == f"candidates/acme/{event.request_id}/{event.candidate_id}-0-1"
