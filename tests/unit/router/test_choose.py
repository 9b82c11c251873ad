"""A chain holds every model that can, in order, and each other model is a loser with its reason."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from giclee.router.choose import Choice, choose, no_route
from giclee.router.prices import price_of
from giclee.router.routes import Offer
from giclee.schemas import reasons
from tests.unit.router.builders import DRAFT, FINAL, SDXL, model, request

LIMIT = Decimal("0.001")


def names(choice: Choice) -> list[str]:
    return [hop.model.name for hop in choice.chain]


def codes(choice: Choice) -> dict[str, str]:
    return {reason.message.split()[0]: reason.code for reason in choice.losers}


def test_the_models_own_settings_fill_what_was_left_open() -> None:
    """A hop fixes size, steps, guidance, revision and price."""
    (hop,) = choose(request(), LIMIT, [FINAL]).chain
    assert (hop.provider, hop.pool, hop.model.name, hop.model.revision) == ("diffusion", "local", "shapes-final", "r1")
    assert (hop.width, hop.height, hop.params.steps, hop.params.guidance_scale) == (64, 64, 8, 0.0)
    assert (hop.price_usd, hop.adjustments) == (Decimal("0.0004"), ())


def test_a_final_request_never_gets_a_draft() -> None:
    """Quality is a promise upwards only."""
    choice = choose(request(), LIMIT, [DRAFT, FINAL])
    assert (names(choice), codes(choice)) == (["shapes-final"], {"shapes-draft": "no_route"})


def test_a_draft_falls_back_on_a_final_and_says_so() -> None:
    """The better model stands in; the difference is an adjustment of its hop."""
    choice = choose(request(quality="draft"), LIMIT, [DRAFT, FINAL])
    assert names(choice) == ["shapes-draft", "shapes-final"]
    assert [(a.field, a.asked, a.used) for hop in choice.chain for a in hop.adjustments] == [
        ("quality", "draft", "final")
    ]


def test_the_operators_model_takes_the_place_of_the_demos() -> None:
    """A row of the operator's is used at once; the demo models serve only where it cannot."""
    limit = Decimal("0.02")
    assert names(choose(request(), limit, [FINAL, SDXL])) == ["sdxl"]
    assert names(choose(request(size={"width": 64, "height": 64}), limit, [FINAL, SDXL])) == ["shapes-final"]
    assert names(choose(request(model={"name": "shapes-final"}), limit, [FINAL, SDXL])) == ["shapes-final"]


def test_a_pin_is_by_name_and_revision_and_overrides_quality() -> None:
    """A pinned model is the whole chain; another revision is no route."""
    pinned = choose(request(model={"name": "shapes-draft", "revision": "r1"}), LIMIT, [DRAFT, FINAL])
    assert (names(pinned), pinned.chain[0].adjustments) == (["shapes-draft"], ())
    other = choose(request(model={"name": "shapes-final", "revision": "r2"}), LIMIT, [DRAFT, FINAL])
    assert other.chain == ()
    assert "has revision r1, not r2" in no_route(other)[0].message


def test_confidential_requests_go_to_private_models_only() -> None:
    """What is not private never sees a confidential prompt, whatever it costs."""
    public = Offer(model("cloud", private=False, price_usd="0.0001"))
    private = Offer(model("own", price_usd="0.0009"))
    assert names(choose(request(privacy="confidential"), LIMIT, [public, private])) == ["own"]
    assert names(choose(request(), LIMIT, [public, private])) == ["cloud", "own"]
    assert choose(request(privacy="confidential"), LIMIT, [public]).chain == ()


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"size": {"width": 128, "height": 64}}, "size_unsupported"),
        ({"size": {"width": 1024, "height": 1024}}, "size_unsupported"),
        ({"params": {"steps": 60}}, "param_unsupported"),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_name(asked: dict[str, Any], code: str) -> None:
    """Size and steps out of reach make a loser, never a silent adjustment."""
    assert codes(choose(request(**asked), Decimal(1), [FINAL])) == {"shapes-final": code}


def test_parameters_a_model_does_not_take() -> None:
    """No guidance, no negative prompt: a caller who asked for them is told."""
    plain = Offer(model("turbo", takes_guidance=False, takes_negative_prompt=False))
    assert codes(choose(request(params={"guidance_scale": 2}), LIMIT, [plain])) == {"turbo": "param_unsupported"}
    assert codes(choose(request(negative_prompt="blurry"), LIMIT, [plain])) == {"turbo": "param_unsupported"}
    assert choose(request(), LIMIT, [plain]).chain[0].params.guidance_scale is None


def test_a_templates_own_negative_prompt_is_left_out_by_name() -> None:
    """It is our habit, not the caller's wish: an adjustment, no refusal."""
    plain = Offer(model("turbo", takes_negative_prompt=False))
    template = {"id": "product-tile", "version": 1, "variables": {"product": "a teapot"}}
    (hop,) = choose(request(template=template, negative_prompt="people"), LIMIT, [plain]).chain
    assert [(a.field, a.asked) for a in hop.adjustments] == [("negative_prompt", "people")]


def test_more_steps_cost_more() -> None:
    """Our own device charges in proportion; a limit that the steps exceed is said."""
    assert price_of(FINAL.model, 16) == Decimal("0.0008")
    assert price_of(FINAL.model, 3) == Decimal("0.00015")
    choice = choose(request(params={"steps": 24}), LIMIT, [FINAL])
    assert codes(choice) == {"shapes-final": "limit"}
    assert choose(request(params={"steps": 16}), LIMIT, [FINAL]).chain[0].price_usd == Decimal("0.0008")
    assert price_of(SDXL.model, 40) == Decimal("0.01")  # a provider that charges by the image


def test_order_is_health_then_route_then_price() -> None:
    """An ailing provider comes last, and is still there."""
    cheap, dear = Offer(model("cheap", price_usd="0.0001", provider="a")), Offer(model("dear", provider="b"))
    assert names(choose(request(), LIMIT, [dear, cheap])) == ["cheap", "dear"]
    assert names(choose(request(), LIMIT, [dear, cheap], ailing={"a"})) == ["dear", "cheap"]
    assert names(choose(request(), LIMIT, [dear, cheap], ailing={"a", "b", "c"})) == ["cheap", "dear"]


def test_no_route_names_each_loser() -> None:
    """The first reason is one sentence with all of them; its code is the limit's where price alone was wrong."""
    told = no_route(choose(request(), Decimal("0.0003"), [DRAFT, FINAL]))
    assert [reason.code for reason in told] == ["limit", "no_route", "limit"]
    assert "shapes-final asks 0.0004" in told[0].message and "shapes-draft makes draft" in told[0].message
    assert [r.code for r in no_route(choose(request(size={"width": 64, "height": 72}), LIMIT, [FINAL]))] == [
        "no_route",
        "size_unsupported",
    ]
    assert [reason.message for reason in no_route(choose(request(), LIMIT, []))] == [
        "no provider can make this image: no model is offered"
    ]


MODELS = some.builds(
    model,
    name=some.from_regex(r"[a-z][a-z0-9]{2,6}", fullmatch=True),
    qualities=some.sampled_from([["final"], ["draft"], ["draft", "final"]]),
    price_usd=some.sampled_from(["0", "0.0001", "0.0009", "0.001", "0.0011", "2"]),
    private=some.booleans(),
    provider=some.sampled_from(["diffusion", "cloud"]),
    takes_guidance=some.booleans(),
    takes_negative_prompt=some.booleans(),
    size_max=some.sampled_from([64, 512]),
    steps_max=some.sampled_from([8, 50]),
)


@given(
    offers=some.lists(
        some.builds(Offer, MODELS, some.booleans()), max_size=6, unique_by=lambda offer: offer.model.name
    ),
    quality=some.sampled_from(["draft", "final"]),
    privacy=some.sampled_from(["public", "confidential"]),
    steps=some.none() | some.sampled_from([1, 8, 20]),
    negative=some.none() | some.just("blurry"),
    side=some.none() | some.sampled_from([64, 256, 65]),
    ailing=some.sets(some.sampled_from(["diffusion", "cloud"])),
)
def test_every_offer_is_in_the_chain_or_a_loser(
    offers: list[Offer],
    quality: str,
    privacy: str,
    steps: int | None,
    negative: str | None,
    side: int | None,
    ailing: set[str],
) -> None:
    """Exactly one of both for each; every hop fits limit, privacy and size; order and health change no member."""
    asked = request(
        quality=quality, privacy=privacy, params={"steps": steps} if steps else {}, negative_prompt=negative,
        size={"width": side, "height": side} if side else None,
    )  # fmt: skip
    choice = choose(asked, LIMIT, offers, ailing=ailing)
    by_name = {offer.model.name: offer.model for offer in offers}
    losers = [reason.message.split()[0] for reason in choice.losers]
    assert sorted([*names(choice), *losers]) == sorted(by_name)
    assert all(reason.code in reasons.TABLE for reason in no_route(choice))
    for hop in choice.chain:
        row = by_name[hop.model.name]
        assert hop.price_usd <= LIMIT
        assert row.private or privacy == "public"
        assert side is None or (hop.width, hop.height) == (side, side)
    calm = choose(asked, LIMIT, list(reversed(offers)))
    assert set(names(calm)) == set(names(choice))
    assert Choice.model_validate(choice.model_dump(mode="json", exclude_none=True)) == choice


def test_a_pick_is_fast() -> None:
    """At most 50 us for the demo tables (aim of the design), with room for a busy machine."""
    asked = request(quality="draft")
    best_s = min(_timed(asked) for _ in range(5))
    assert best_s < 200e-6


def _timed(asked: Any) -> float:
    start = time.perf_counter()
    for _ in range(200):
        choose(asked, LIMIT, [DRAFT, FINAL])
    return (time.perf_counter() - start) / 200
