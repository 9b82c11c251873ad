"""A chain holds every model that can, in order, and each other model is a loser with its reason."""

from __future__ import annotations

import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from giclee.router.choose import Choice, Known, choose, no_route
from giclee.router.costs import Draw
from giclee.router.prices import price_of
from giclee.router.routes import Offer
from giclee.schemas import reasons
from giclee.schemas.tenant_terms import Demand, Demands
from tests.unit.router.builders import (
    AT,
    AT_S,
    DRAFT,
    FINAL,
    SDXL,
    failing,
    knowing,
    model,
    request,
    switch,
    told,
)

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


def test_a_tenants_terms_are_kept_by_every_place_of_its_chain() -> None:
    """Unknown terms and regions are no; a pin does not get around them; other tenants choose as ever."""
    trains = Offer(model("trains", provider="a", data_terms="trained-on", region="eu", price_usd="0.0001"))
    silent = Offer(model("silent", provider="b", region="eu", price_usd="0.0002"))
    abroad = Offer(model("abroad", provider="c", data_terms="kept", region="us", price_usd="0.0003"))
    nowhere = Offer(model("nowhere", provider="d", data_terms="kept", price_usd="0.0004"))
    right = Offer(model("right", provider="e", data_terms="kept", region="eu", price_usd="0.0005"))
    offers = [trains, silent, abroad, nowhere, right]
    known = knowing(demands=Demands({"acme": Demand(frozenset({"kept", "nothing-kept"}), frozenset({"eu"}))}))
    choice = choose(request(), LIMIT, offers, known.of("acme"))
    assert names(choice) == ["right"]
    assert codes(choice) == dict.fromkeys(("trains", "silent", "abroad", "nowhere"), "no_route")
    assert choose(request(model={"name": "silent"}), LIMIT, offers, known.of("acme")).chain == ()
    assert len(choose(request(), LIMIT, offers, known.of("other")).chain) == 5
    told = " ".join(reason.message for reason in no_route(choose(request(), LIMIT, offers[:4], known.of("acme"))))
    assert "unknown data terms" in told and "region us" in told and "unknown region" in told


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


def test_order_is_health_then_route_then_cost() -> None:
    """A provider that fails in a row comes last, and is still there."""
    cheap, dear = Offer(model("cheap", price_usd="0.0001", provider="a")), Offer(model("dear", provider="b"))
    assert names(choose(request(), LIMIT, [dear, cheap], now_s=AT_S)) == ["cheap", "dear"]
    assert names(choose(request(), LIMIT, [dear, cheap], failing(cheap), now_s=AT_S)) == ["dear", "cheap"]
    assert names(choose(request(), LIMIT, [dear, cheap], failing(cheap, dear), now_s=AT_S)) == ["cheap", "dear"]


def test_the_cheapest_is_who_is_cheapest_for_an_approved_image() -> None:
    """Twice the price is little where four times as many images pass; both are told with what they cost."""
    bad, good = (
        Offer(model("bad", price_usd="0.004", provider="a")),
        Offer(model("good", price_usd="0.008", provider="b")),
    )
    rows = (
        told(bad, accepted={"generic": {"passed": 40, "scored": 200, "at": AT}}),
        told(good, accepted={"generic": {"passed": 160, "scored": 200, "at": AT}}),
    )
    choice = choose(request(), Decimal(1), [bad, good], knowing(*rows), now_s=AT_S)
    assert names(choice) == ["good", "bad"]
    assert [one.per_approved_usd for one in choice.weighed] == sorted(one.per_approved_usd for one in choice.weighed)
    assert choice.weighed[0].acceptance == pytest.approx(0.8, abs=0.02)
    unknown_kind = choose(request(asset_type="email-hero"), Decimal(1), [bad, good], knowing(*rows), now_s=AT_S)
    assert names(unknown_kind) == ["good", "bad"]  # what a model does for others is the prior of a new asset type


def test_a_breaker_rests_longer_with_every_failure_and_then_has_one_trial() -> None:
    """Half open on real work: one wave at a time, none that somebody waits for."""
    cheap, dear = Offer(model("cheap", price_usd="0.0001", provider="a")), Offer(model("dear", provider="b"))

    def first(known: Known, after_s: float, **values: Any) -> str:
        return names(choose(request(**values), LIMIT, [cheap, dear], known, now_s=AT_S + after_s))[0]

    three = knowing(told(cheap, streak=3, failed_at=AT, tried=3, failed=3))
    five = knowing(told(cheap, streak=5, failed_at=AT, tried=5, failed=5))
    assert [first(three, after_s) for after_s in (14, 16)] == ["dear", "cheap"]
    assert [first(five, after_s) for after_s in (16, 59, 61)] == ["dear", "dear", "cheap"]
    assert first(three, 16, priority="interactive") == "dear"
    trial = choose(request(), LIMIT, [cheap, dear], three, now_s=AT_S + 16)
    three.taken([cheap, dear], trial, 1, AT_S + 16)
    assert [first(three, after_s) for after_s in (17, 27)] == ["dear", "cheap"]


def test_a_breaker_of_which_nobody_tells_is_closed_after_ten_minutes() -> None:
    """Health may be away, or all work be such that somebody waits for: nobody is set aside for ever by an old row."""
    cheap, dear = Offer(model("cheap", price_usd="0.0001", provider="a")), Offer(model("dear", provider="b"))
    three = knowing(told(cheap, streak=3, failed_at=AT, tried=3, failed=3))

    def first(after_s: float) -> str:
        asked = request(priority="interactive")
        return names(choose(asked, LIMIT, [cheap, dear], three, now_s=AT_S + after_s))[0]

    assert [first(after_s) for after_s in (16, 614, 616)] == ["dear", "dear", "cheap"]


@pytest.mark.parametrize(
    ("word", "later_s", "chain"), [("auth", 90 * 86400.0, ["dear"]), ("budget", 86400.0, ["cheap", "dear"])]
)
def test_who_refuses_us_is_held_until_its_day_is_over_or_somebody_acts(
    word: str, later_s: float, chain: list[str]
) -> None:
    """A key is mended by people; a budget comes back with the next day; a cleared switch ends both at once."""
    cheap, dear = Offer(model("cheap", price_usd="0.0001", provider="a")), Offer(model("dear", provider="b"))
    until = {"held_until": AT + timedelta(days=1)} if word == "budget" else {}
    row = told(cheap, held=word, held_since=AT, **until)
    asked = request(closes_by=AT + timedelta(days=100))
    held = choose(asked, LIMIT, [cheap, dear], knowing(row), now_s=AT_S + 1)
    assert (names(held), codes(held)) == (["dear"], {"cheap": "provider_held"})
    assert names(choose(asked, LIMIT, [cheap, dear], knowing(row), now_s=AT_S + later_s)) == chain
    cleared = {"provider:a": switch("provider:a", "clear", AT + timedelta(seconds=1))}
    assert names(choose(asked, LIMIT, [cheap, dear], knowing(row, switches=cleared), now_s=AT_S + 2))[0] == "cheap"
    assert names(choose(asked, LIMIT, [cheap], knowing(row), now_s=AT_S + 1)) == ["cheap"]  # nobody else is there


def test_switches_refuse_and_hold() -> None:
    """Refused is out; held is out while anybody else is there, else the work waits with it."""
    cheap, dear = Offer(model("cheap", price_usd="0.0001", provider="a")), Offer(model("dear", provider="b"))
    refused = knowing(switches={"provider:a": switch("provider:a", "refuse")})
    assert codes(choose(request(), LIMIT, [cheap, dear], refused, now_s=AT_S)) == {"cheap": "switch_refused"}
    assert no_route(choose(request(), LIMIT, [cheap], refused, now_s=AT_S))[0].code == "no_route"
    held = knowing(switches={"model:cheap": switch("model:cheap", "hold")})
    assert names(choose(request(), LIMIT, [cheap, dear], held, now_s=AT_S)) == ["dear"]
    assert names(choose(request(), LIMIT, [cheap], held, now_s=AT_S)) == ["cheap"]


def test_who_is_at_its_cap_or_too_slow_is_set_aside() -> None:
    """Both come after whoever is not, and say why."""
    capped = Offer(model("capped", price_usd="0.0001", provider="a", per_minute=3))
    slow = Offer(model("slow", price_usd="0.0002", provider="b", seconds=120.0))
    plain = Offer(model("plain", price_usd="0.0003", provider="c"))
    known, asked = knowing(), request(closes_by=AT + timedelta(seconds=60))
    first = choose(asked, LIMIT, [capped, slow, plain], known, now_s=AT_S)
    assert names(first) == ["capped", "plain", "slow"]
    known.taken([capped, slow, plain], first, 1, AT_S)
    second = choose(asked, LIMIT, [capped, slow, plain], known, now_s=AT_S)
    assert names(second)[0] == "plain"
    why = {one.model: one.why for one in second.weighed}
    assert "3 calls a minute" in why["capped"] and "takes 120.0 s" in why["slow"]
    assert names(choose(asked, LIMIT, [capped, slow, plain], known, now_s=AT_S + 20))[0] == "capped"


def test_a_record_of_the_future_is_ignored() -> None:
    """A clock that is wrong must not close or open anything."""
    cheap, dear = Offer(model("cheap", price_usd="0.0001", provider="a")), Offer(model("dear", provider="b"))
    ahead = told(cheap, at=AT + timedelta(minutes=1), streak=9, failed_at=AT + timedelta(minutes=1))
    assert names(choose(request(), LIMIT, [cheap, dear], knowing(ahead), now_s=AT_S)) == ["cheap", "dear"]


def test_a_queue_counts_while_somebody_tells_of_it() -> None:
    """Work that would come too late goes elsewhere; a minute after the last word of it nobody knows of a queue."""
    cheap, dear = Offer(model("cheap", price_usd="0.0001", provider="a")), Offer(model("dear", provider="b"))
    known, asked = knowing(told(cheap, queue_s=200.0)), request(closes_by=AT + timedelta(seconds=180))

    def firsts(after_s: float) -> str:
        return names(choose(asked, LIMIT, [cheap, dear], known, now_s=AT_S + after_s))[0]

    assert [firsts(after_s) for after_s in (0, 60, 61)] == ["dear", "dear", "cheap"]


def test_health_of_a_provider_that_nobody_offers_changes_nothing() -> None:
    """An old row, another installation's, or nonsense: who is not in the tables is not asked."""
    stranger = Offer(model("cheap", provider="stranger"))
    row = told(stranger, streak=9, failed_at=AT, accepted={"generic": {"passed": 99, "scored": 99, "at": AT}})
    known = choose(request(), LIMIT, [FINAL], knowing(row), now_s=AT_S)
    assert known == choose(request(), LIMIT, [FINAL], now_s=AT_S)
    other_model = told(FINAL, streak=9, failed_at=AT).model_copy(update={"models": row.models})
    assert choose(request(), LIMIT, [FINAL], knowing(other_model), now_s=AT_S) == known


def test_exploring_is_for_public_work_that_nobody_waits_for() -> None:
    """Hundred draws: some standard waves go where we are not sure, no interactive or confidential one does."""
    sure, unsure = (
        Offer(model("sure", price_usd="0.004", provider="a", private=True)),
        Offer(model("unsure", price_usd="0.0044", provider="b", private=True)),
    )
    known = knowing(told(sure, accepted={"generic": {"passed": 130, "scored": 200, "at": AT}}))

    def elsewhere(**values: Any) -> int:
        draws = [Draw(seed, share=1.0) for seed in range(100)]
        chosen = [choose(request(**values), Decimal(1), [sure, unsure], known, now_s=AT_S, draw=draw) for draw in draws]
        return sum(names(choice)[0] == "unsure" for choice in chosen)

    assert elsewhere(priority="interactive") == elsewhere(privacy="confidential") == 0
    assert 5 < elsewhere() < 95


def test_strict_refuses_every_adjustment() -> None:
    """A stand-in, a seed that is not taken: losers with the field named."""
    no_seed = Offer(model("hosted", takes_seed=False))
    assert names(choose(request(seed_asked=True), LIMIT, [no_seed])) == ["hosted"]
    assert [a.field for a in choose(request(seed_asked=True), LIMIT, [no_seed]).chain[0].adjustments] == ["seed"]
    assert codes(choose(request(seed_asked=True, strict=True), LIMIT, [no_seed])) == {"hosted": "param_unsupported"}
    assert names(choose(request(quality="draft", strict=True), LIMIT, [DRAFT, FINAL])) == ["shapes-draft"]
    nobody = choose(request(quality="draft", seed_asked=True, strict=True), LIMIT, [FINAL, no_seed])
    told = {reason.message.split()[0]: reason.message for reason in no_route(nobody)[1:]}
    assert "would change quality," in told["shapes-final"] and "would change quality and seed," in told["hosted"]


def test_bulk_may_use_its_own_pools_and_is_not_starved_there() -> None:
    """A pool for interactive work takes what waited long, whatever its priority."""
    fast = Offer(model("fast", priorities=["interactive"]))
    assert codes(choose(request(priority="bulk"), LIMIT, [fast], now_s=AT_S)) == {"fast": "no_route"}
    assert names(choose(request(priority="interactive"), LIMIT, [fast], now_s=AT_S)) == ["fast"]
    assert names(choose(request(priority="bulk"), LIMIT, [fast], now_s=AT_S + 2 * 3600)) == ["fast"]


def test_a_hedge_goes_to_who_is_fast_and_not_silent() -> None:
    """Where somebody waits the choice says when another is worth asking for; that one passes over who is silent."""
    slow = Offer(model("slow", price_usd="0.004", provider="a", seconds=9.0))
    near = Offer(model("near", price_usd="0.0042", provider="b", seconds=5.0))
    fast = Offer(model("fast", price_usd="0.005", provider="c", seconds=2.0))
    dear = Offer(model("dear", price_usd="0.02", provider="d", seconds=1.0))
    offers = [slow, near, fast, dear]
    usual = choose(request(priority="interactive"), Decimal(1), offers, now_s=AT_S)
    assert (names(usual)[0], usual.hedge_after_s) == ("slow", 36.0)
    assert choose(request(), Decimal(1), offers, now_s=AT_S).hedge_after_s is None
    hedge = choose(request(priority="interactive"), Decimal(1), offers, now_s=AT_S, silent=("a",))
    assert (names(hedge), hedge.hedge_after_s) == (["fast", "near", "dear"], None)
    assert codes(hedge) == {"slow": "provider_silent"}
    measured = knowing(told(slow, p50_s=3.0, p95_s=10.0, samples=50))
    assert choose(request(priority="interactive"), Decimal(1), offers, measured, now_s=AT_S).hedge_after_s == 11.0


def test_an_outage_of_everybody_is_no_reason_to_give_up() -> None:
    """Contract rule 9: what fails for now is tried and becomes a dead letter that a replay mends, never a failure."""
    one, two = Offer(model("one", provider="a")), Offer(model("two", provider="b"))
    assert sorted(names(choose(request(), LIMIT, [one, two], failing(one, two), now_s=AT_S))) == ["one", "two"]


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
    price_usd=some.sampled_from(["0.000001", "0.0001", "0.0009", "0.001", "0.0011", "2"]),
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
    ailing=some.booleans(),
)
def test_every_offer_is_in_the_chain_or_a_loser(
    offers: list[Offer],
    quality: str,
    privacy: str,
    steps: int | None,
    negative: str | None,
    side: int | None,
    ailing: bool,
) -> None:
    """Exactly one of both for each; every hop fits limit, privacy and size; order and health change no member."""
    asked = request(
        quality=quality, privacy=privacy, params={"steps": steps} if steps else {}, negative_prompt=negative,
        size={"width": side, "height": side} if side else None,
    )  # fmt: skip
    choice = choose(asked, LIMIT, offers, failing(*offers) if ailing else None, now_s=AT_S)
    by_name = {offer.model.name: offer.model for offer in offers}
    losers = [reason.message.split()[0] for reason in choice.losers]
    assert sorted([*names(choice), *losers]) == sorted(by_name)
    assert all(reason.code in reasons.TABLE for reason in no_route(choice))
    for hop in choice.chain:
        row = by_name[hop.model.name]
        assert hop.price_usd <= LIMIT
        assert row.private or privacy == "public"
        assert side is None or (hop.width, hop.height) == (side, side)
    calm = choose(asked, LIMIT, list(reversed(offers)), now_s=AT_S)
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
